"""Results as plain text, at most 80 columns wide."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

from tiler.job import MOST_ASKED, pixels_made
from tiler.memory import in_words
from tiler.report import tissue_in_words
from tiler.space import most_bytes
from tiler.tta import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiler.job import Job
    from tiler.metrics import Confusion
    from tiler.planning import Plan
    from tiler.report import ClassTally, Report

COLUMNS: Final = 80
UM2_PER_MM2: Final = 1e6


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """A name and a value per line; a value of many words goes on below itself."""
    rows = [(name, str(value)) for name, value in pairs]
    width = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        lines = textwrap.wrap(value, COLUMNS - width, break_long_words=False, break_on_hyphens=False)
        for i, line in enumerate(lines or [""]):
            click.echo(f"{'' if i else name:<{width}}{line}".rstrip())


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns: the first to the left, numbers to the right."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        first = f"{row[0]:<{widths[0]}}"
        click.echo(
            "  ".join([first, *(f"{v:>{w}}" for v, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def print_report(report: Report) -> None:
    """What a finished run found and took."""
    print_pairs(
        [
            *(("written", path) for path in report.outputs),
            *(("polygons", f"{made['polygons']:,} in {made['path']}") for made in report.polygons.values()),
            ("pixels", f"{report.pixels:,} fed, {report.valid_pixels:,} valid in the output"),
            ("read by", report.source["reader"]),
            ("computed", f"{report.blocks_computed} of {report.blocks} blocks, in {report.seconds:.1f} s"),
            ("speed", f"{report.megapixels_per_second:.2f} Mpx/s, {report.startup_seconds:.1f} s to start"),
            ("busy", ", ".join(f"{name} {s:.1f} s" for name, s in report.stage_seconds.items())),
            ("bottleneck", report.bottleneck),
            *_tissue(report.tissue),
            *_seams(report),
            ("memory", f"peak {in_words(report.peak_memory)} of {in_words(report.plan['peak'])} planned"),
        ]
    )
    if report.classes:
        click.echo()
        total, unit = max(report.valid_pixels, 1), _area_unit(report)
        print_table(
            ("class", "pixels", "share", f"area {unit}"),
            [(c.name, f"{c.pixels:,}", f"{c.pixels / total:.2%}", _area(c, unit)) for c in report.classes],
        )


def _area_unit(report: Report) -> str:
    """In which areas are easy to read."""
    on_slide = [c.area_um2 for c in report.classes if c.area_um2 is not None]
    return "m2" if not on_slide else "mm2" if max(on_slide) >= UM2_PER_MM2 else "um2"


def _area(tally: ClassTally, unit: str) -> str | None:
    area = tally.area_m2 if unit == "m2" else tally.area_um2
    if area is None:
        return None
    return f"{area / UM2_PER_MM2:,.4f}" if unit == "mm2" else f"{area:,.1f}"


def _tissue(facts: dict[str, Any] | None) -> list[tuple[str, object]]:
    if facts is None:
        return []
    return [("tissue", tissue_in_words(facts["share"]))]


def _seams(report: Report) -> list[tuple[str, object]]:
    if report.seams is None:
        return []
    if report.seams["excess"] is None:
        return [("seams", "not known: nothing near and far from any was compared")]
    points, tiles = 100 * report.seams["excess"], report.seams["tiles"]
    return [("seams", f"{points:+.4f} points more labels differ near than far ({tiles} tiles compared)")]


def print_plan(job: Job, plan: Plan, seconds: float) -> None:
    """What a run would do."""
    info = job.raster.info
    height, width = plan.grid.tile
    views = len(VIEWS[job.options.tta])
    skipped, about = job.skipped(plan), "about " if plan.tiles > MOST_ASKED else ""
    disk = most_bytes(job.finisher, info.height * info.width, job.output_info.height * job.output_info.width)
    print_pairs(
        [
            ("source", job.source),
            ("read by", job.raster.info.reader),
            ("model", job.model.path),
            ("runs on", job.model.device),
            ("fed to network", f"{info.width} x {info.height} px, {info.bands} bands"),
            ("pixels", pixels_made(info)),
            *_tissue(None if job.tissue is None else job.tissue.facts()),
            ("mode", f"{plan.mode}: {plan.reason}"),
            ("tiles", f"{plan.tiles} of {width} x {height} px, overlap {plan.grid.columns.overlap} px"),
            ("skipped", f"{about}{skipped} tiles, and what else is found to hold no data"),
            ("computed", f"{plan.grid.waste * (1 - skipped / plan.tiles):.2f} times the pixels at most"),
            ("batch", plan.batch),
            ("calls at once", plan.workers),
            *([] if views == 1 else [("views", f"{views} of each tile, averaged (--tta {job.options.tta})")]),
            ("strips", f"{sum(1 for _ in plan.strips())} of {plan.strip_width} px"),
            ("time", f"about {seconds * (1 - skipped / plan.tiles):,.0f} s for the network"),
            ("disk", f"at most {in_words(disk)} while it finishes"),
            ("memory", f"{in_words(plan.peak)} planned, budget {in_words(plan.budget)}"),
            *((f"  {name}", in_words(size)) for name, size in plan.terms.items()),
        ]
    )


def print_confusion(confusion: Confusion, names: Sequence[str]) -> None:
    """Scores per class, then the means."""
    rows = zip(names, confusion.iou, confusion.dice, confusion.precision, confusion.recall, strict=True)
    print_table(
        ("class", "IoU", "Dice", "precision", "recall"), [(n, *map(float, scores)) for n, *scores in rows]
    )
    click.echo()
    print_pairs(
        [
            ("pixels compared", f"{confusion.pixels:,}"),
            ("accuracy", f"{confusion.accuracy:.4f}"),
            ("mean IoU", f"{confusion.mean_iou:.4f} (of the classes that occur)"),
        ]
    )

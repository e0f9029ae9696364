"""``tiler inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tiler.cli.options import NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.analysis import Analysis, AxisReach
    from tiler.backends.graph import Graph
    from tiler.ports import Raster
    from tiler.spec import ModelSpec

ONNX_SUFFIX: Final = ".onnx"
REASONS: Final = 5
"""Reasons that are shown; one norm per layer would fill the screen."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--allow-vrt", is_flag=True, help="Open a VRT, which may name other local files.")
@click.option("--assume-mpp", type=NUMBER, metavar="UM", help="As of segment.")
def inspect(file: Path, allow_vrt: bool, assume_mpp: float | None) -> None:
    """What a model (.onnx), a raster or a slide says about itself, and what it leaves open."""
    if file.suffix.lower() == ONNX_SUFFIX:
        _inspect_model(file)
    else:
        _inspect_raster(file, allow_vrt, assume_mpp)


def _inspect_model(path: Path) -> None:
    from tiler.analysis import analyse
    from tiler.backends.graph import bytes_per_pixel, precision, read_graph
    from tiler.cli.tables import print_pairs

    graph, content = read_graph(path)
    analysis = analyse(graph.proto)
    print_pairs(
        [
            ("model", f"{path}, {len(content):,} bytes, {precision(graph)}"),
            ("input", f"{graph.input_name}: {graph.dtype}, {_size(graph)} (batch, bands, rows, columns)"),
            ("memory", f"about {bytes_per_pixel(graph):.0f} bytes per pixel of a tile"),
            *_proven(analysis),
            *(_told(graph.spec, analysis) if graph.spec else _untold()),
        ]
    )


def _size(graph: Graph) -> str:
    rows, columns = ("any" if n is None else n for n in graph.shape[1:])
    return f"{graph.shape[0] or 'any'} x {graph.channels} x {rows} x {columns}"


def _proven(analysis: Analysis) -> list[tuple[str, object]]:
    """What the graph itself shows."""
    axes = [("rows", analysis.rows), ("columns", analysis.columns)]
    if analysis.rows == analysis.columns:
        axes = [("sides", analysis.rows)]
    exact = "yes: tiles with this halo equal the whole image" if analysis.exact else "no, tiles are blended"
    return [
        *(line for name, axis in axes if axis is not None for line in _axis(name, axis, analysis.exact)),
        ("exact", exact),
        *(("  because", reason) for reason in analysis.reasons[:REASONS]),
        *([("", f"and {more} more reasons")] if (more := len(analysis.reasons) - REASONS) > 0 else []),
    ]


def _axis(name: str, axis: AxisReach, exact: bool) -> list[tuple[str, object]]:
    sizes = f"{axis.stride}n" + (f" + {axis.residue}" if axis.residue else "")
    lines: list[tuple[str, object]] = [
        (name, f"{sizes} px, {axis.smallest} at least; stride {axis.stride} px"),
    ]
    if exact:
        halo = f"{axis.before} px before and {axis.after} px after"
        lines.append(("  halo", f"{axis.before} px" if axis.before == axis.after else halo))
    if axis.scale != 1 or axis.margin_before or axis.margin_after:
        lost = f", {axis.margin_before} less at the start, {axis.margin_after} less at the end"
        lines.append(("  returns", f"{axis.scale} scores per pixel{lost}"))
    return lines


def _untold() -> list[tuple[str, object]]:
    return [("says of itself", "nothing: pass --scale, --activation, --classes")]


def _told(spec: ModelSpec, analysis: Analysis) -> list[tuple[str, object]]:
    trained = "any resolution" if spec.resolution is None else f"{spec.resolution:g} m per pixel"
    if spec.resize is not None:
        trained = f"whole pictures, each brought to {spec.resize}"
    return [
        ("bands", ", ".join(spec.bands)),
        ("classes", ", ".join(c.name for c in spec.classes)),
        ("returns", spec.activation),
        ("scale", _numbers(spec.scale)),
        ("mean", _numbers(spec.mean)),
        ("std", _numbers(spec.std)),
        *_claimed(spec, analysis),
        ("trained at", trained),
        ("attribution", spec.attribution or "none"),
    ]


def _claimed(spec: ModelSpec, analysis: Analysis) -> list[tuple[str, object]]:
    """Where the model's own words and its graph part ways, the graph goes before."""
    claims = [
        (f"stride {spec.stride}", bool(spec.stride and analysis.stride and spec.stride % analysis.stride)),
        (f"halo {spec.halo} px", spec.halo is not None and spec.halo < (analysis.halo or 0)),
        ("exact", spec.exact and not analysis.exact and analysis.rows is not None),
    ]
    wrong = [text for text, differs in claims if differs]
    return [("says, wrongly", ", ".join(wrong))] if wrong else []


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values) or "none"


def _inspect_raster(path: Path, allow_vrt: bool, assume_mpp: float | None) -> None:
    from tiler.cli.tables import print_pairs
    from tiler.open import open_raster

    raster = open_raster(path, allow_vrt=allow_vrt, assume_mpp=assume_mpp, colours=True)
    info = raster.info
    size = f"{info.width} x {info.height} px, {info.width * info.height / 1e6:.1f} Mpx"
    of = "the colours of its table; as labels, 1 of indices" if info.colours else "alpha not counted"
    about = [("size", size), ("bands", f"{info.bands} of {info.dtype} ({of})")]
    if info.to_level0 is None:
        ground = "not known" if info.ground is None else "{:.4g} x {:.4g} m per pixel".format(*info.ground)
        crs = info.crs.to_string()[:60] if info.crs else "none"
        print_pairs(
            [("raster", path), ("read by", info.reader), *about, ("CRS", crs), ("on the ground", ground)]
        )
    else:
        print_pairs([("slide", path), ("read by", info.reader), *about, *_slide(raster, assume_mpp)])


def _slide(raster: Raster, assume_mpp: float | None) -> Iterator[tuple[str, object]]:
    """Its levels, bounds and tissue, as `tiler segment` would find them."""
    from tiler.options import RunOptions
    from tiler.readers.slide import METRES, SlideRaster
    from tiler.report import tissue_in_words
    from tiler.tissue import open_tissue

    info = raster.info
    if isinstance(raster, SlideRaster):
        if raster.facts.cropped:
            yield "bounds", f"{raster.facts.bounds}, from where pixels are counted"
        for number in range(len(raster.facts.levels)):
            level = raster.level(number).info
            mpp = "" if level.ground is None else f", {level.ground[0] / METRES:.4g} um"
            yield f"level {number}", f"{level.width} x {level.height} px{mpp}"
    if info.ground is None:
        yield "resolution", "not known; pass --assume-mpp"
        return
    yield "resolution", "{:.4g} x {:.4g} um per pixel".format(*(side / METRES for side in info.ground))
    tissue = open_tissue(raster, info, RunOptions(assume_mpp=assume_mpp))
    if tissue is not None:
        yield "tissue", tissue_in_words(tissue.facts()["share"])

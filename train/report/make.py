"""The report of a run, ``OUTDIR/report/``: tables, charts, pictures, and ``report.html`` that shows all."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tiler.metrics import Confusion
from tiler.overlay import png
from train.record import curve
from train.report import charts, page, tables
from train.report.lettering import lettered
from train.report.palette import colored
from train.report.pictures import cut_out, mask, overlay, take
from train.writing import write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tiler.spec import ClassSpec
    from train.evaluate import Examiner
    from train.evaluation import Evaluation
    from train.record import Epoch
    from train.report.pictures import Picture

SHOWN: Final = 6
"""Samples in each gallery."""
NOTES: Final = (
    "Figures of the data set pool the pixels of all samples. Means of samples (sample_mean) are means of "
    "each sample's own figure, over the samples in which the class occurs; each counts alike. "
    "A dash has no pixels to go by. Samples are ranked by the mean IoU of the classes that occur in them, "
    "but for the background, the first of classes that exclude each other."
)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """All that is told."""

    title: str
    classes: tuple[ClassSpec, ...]
    """In the colours that they are drawn in."""
    epochs: list[Epoch]
    evaluation: Evaluation
    worst: list[Picture]
    """From the lowest score up."""
    best: list[Picture]
    """From the highest score down; a sample is not in both."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is worth knowing, by name: the network, the data, the options."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes that are scored."""
        return tuple(kind.name for kind in self.classes)


def make_report(
    folder: Path,
    examiner: Examiner,
    evaluation: Evaluation,
    epochs: list[Epoch],
    *,
    title: str = "Training run",
    facts: Mapping[str, str] | None = None,
    palette: str = "own",
) -> None:
    """Write the report of what ``examiner`` was found to be.

    Parameters
    ----------
    folder
        Is replaced.
    examiner
        The network that was evaluated; asked again for the samples that are shown.
    evaluation
        Of it.
    epochs
        Finished ones; none, and the curves are left out.
    title
        Of the page.
    facts
        A line of the page each.
    palette
        One of `train.report.palette.PALETTES`.

    Raises
    ------
    OutputError
        if the disk does not take it.
    """
    ranked = evaluation.ranked()
    worst = ranked[: min(SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][::-1][:SHOWN]
    report = Report(
        title,
        colored(examiner.spec.classes, palette),
        epochs,
        evaluation,
        [take(examiner, sample) for sample in worst],
        [take(examiner, sample) for sample in best],
        facts or {},
    )
    write_report(folder, report)


def write_report(folder: Path, report: Report) -> None:
    """Write every file; ``report.html`` is the last, and holds what the others hold."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "pictures").mkdir(parents=True)
    drawn = _charts(report)
    for name, content in (_tables(report) | drawn).items():
        write_whole(folder / name, content)
    for kind in ("worst", "best"):
        for rank, picture in enumerate(getattr(report, kind), start=1):
            _write_pictures(folder / "pictures", f"{kind}{rank}", picture, report.classes)
    write_whole(folder / "report.html", _page(report, drawn).encode())


def _tables(report: Report) -> dict[str, bytes]:
    confusion = tables.confusion_table(report.evaluation.confusion, report.names)
    return {
        "samples.csv": tables.to_csv(tables.sample_table(report.evaluation, report.names)),
        "classes.csv": tables.to_csv(tables.class_table(report.evaluation, report.names)),
        "confusion.csv": tables.to_csv(confusion),
    }


def _charts(report: Report) -> dict[str, bytes]:
    samples = [picture.sample.name for picture in (*report.worst, *report.best)]
    with lettered((*report.names, *samples)):
        return _drawn(report)


def _drawn(report: Report) -> dict[str, bytes]:
    confusion = report.evaluation.confusion
    drawn = {
        "samples.png": charts.sample_curves(report.evaluation, report.names),
        "classes.png": charts.bars(confusion, report.classes),
    }
    if isinstance(confusion, Confusion):
        drawn["confusion.png"] = charts.confusion_chart(confusion, report.names)
    for name, pictures in (("worst.png", report.worst), ("best.png", report.best)):
        if pictures:
            drawn[name] = charts.gallery(pictures, report.classes)
    return drawn


def _write_pictures(folder: Path, rank: str, picture: Picture, classes: tuple[ClassSpec, ...]) -> None:
    """The prediction over the photo, alone, and as a cut-out of the photo."""
    stem = f"{rank}_{re.sub(r'[^A-Za-z0-9.-]+', '_', picture.sample.name)[:100]}"
    photo_3HW, labels_QHW = picture.photo_3HW, picture.labels_QHW
    write_whole(folder / f"{stem}.overlay.png", png(overlay(photo_3HW, labels_QHW, classes)))
    write_whole(folder / f"{stem}.mask.png", png(mask(labels_QHW, classes)))
    write_whole(folder / f"{stem}.cutout.png", png(cut_out(photo_3HW, labels_QHW, classes)))


def _page(report: Report, drawn: Mapping[str, bytes]) -> str:
    confusion = report.evaluation.confusion
    summary = page.paragraph(
        f"Data set, of {len(report.evaluation.samples)} samples: accuracy {confusion.accuracy:.4f}, "
        f"mean IoU {confusion.mean_iou:.4f} ({confusion.object_iou:.4f} without background), "
        f"mean Dice {confusion.mean_dice:.4f} ({confusion.object_dice:.4f} without background)."
    )
    scores = page.table(tables.score_table(report.evaluation, report.names))
    amounts = page.table(tables.amount_table(report.evaluation, report.names))
    confused = page.table(tables.confusion_table(confusion, report.names))
    sections = [
        ("Run", page.facts(report.facts) if report.facts else ""),
        ("Training", page.chart(curve(report.epochs, report.names), "curves") if report.epochs else ""),
        ("Result", summary + scores + page.paragraph(NOTES) + _chart(drawn, "classes.png")),
        ("Amounts", amounts),
        ("Confusion, pixels", confused + _chart(drawn, "confusion.png")),
        ("Samples", _chart(drawn, "samples.png")),
        ("Worst samples", _shown(report.worst, report.classes)),
        ("Best samples", _shown(report.best, report.classes)),
    ]
    return page.page(report.title, sections)


def _chart(drawn: Mapping[str, bytes], name: str) -> str:
    return page.chart(drawn[name], name) if name in drawn else ""


def _shown(pictures: list[Picture], classes: tuple[ClassSpec, ...]) -> str:
    return page.key(classes) + page.samples(pictures, classes) if pictures else ""

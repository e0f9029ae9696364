"""``tiler compare`` and ``tiler evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiler.cli.options import NAMES

if TYPE_CHECKING:
    from tiler.metrics import Confusion

FILE = click.Path(path_type=Path)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@as_json
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Agreement of two label rasters of one size; exit code 1 if they differ."""
    from tiler.agreement import compare as run
    from tiler.cli.tables import print_pairs

    agreement = run(a, b)
    if as_json:
        click.echo(agreement.to_json())
    else:
        print_pairs(
            [
                ("pixels", f"{agreement.pixels:,}"),
                ("differ", f"{agreement.different:,} ({agreement.different / agreement.pixels:.6%})"),
                ("nodata in one only", f"{agreement.nodata_differs:,}"),
                ("first difference", agreement.first or "none"),
            ]
        )
    if agreement.different:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("prediction", type=FILE)
@click.argument("truth", type=FILE)
@click.option("--classes", type=NAMES, metavar="A,B..", help="Names, where the prediction does not say them.")
@as_json
def evaluate(prediction: Path, truth: Path, classes: tuple[str, ...] | None, as_json: bool) -> None:
    """IoU, Dice, precision and recall of a label raster against ground truth.

    The truth is brought onto the prediction's grid (nearest label). 255 and nodata are not counted.
    """
    from tiler.agreement import evaluate as run
    from tiler.cli.tables import print_confusion

    confusion, names = run(prediction, truth, classes)
    if as_json:
        click.echo(_confusion_json(confusion, names))
    else:
        print_confusion(confusion, names)


def _confusion_json(confusion: Confusion, names: tuple[str, ...]) -> str:
    scores = {name: getattr(confusion, name) for name in ("iou", "dice", "precision", "recall")}
    per_class = {
        label: {name: _finite(float(values[i])) for name, values in scores.items()}
        for i, label in enumerate(names)
    }
    return json.dumps(
        {
            "classes": per_class,
            "pixels": confusion.pixels,
            "accuracy": _finite(confusion.accuracy),
            "mean_iou": _finite(confusion.mean_iou),
            "confusion": confusion.counts_TP.tolist(),
        }
    )


def _finite(value: float) -> float | None:
    return value if value == value else None  # noqa: PLR0124 - JSON has no NaN

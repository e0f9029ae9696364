"""What a run leaves for people: a line per epoch, ``log.csv``, ``curve.png``, and the table at the end."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from train.report.lettering import lettered
from train.writing import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.metrics import Scores
    from train.evaluation import Evaluation

SCORES = ("iou", "dice", "precision", "recall")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over ``crops_per_epoch`` crops."""

    number: int
    """From 1."""
    loss: float
    """Mean over its steps."""
    lr: float
    """At its last step."""
    iou: tuple[float, ...]
    """Per class, on the validation part; NaN for a class that occurs in neither truth nor prediction, and for
    all if the epoch was not followed by an evaluation."""
    mean_iou: float
    seconds: float
    waited: float
    """Seconds of these in which the network waited for data."""

    def line(self, epochs: int, names: tuple[str, ...]) -> str:
        """For a log on a terminal."""
        ious = "  ".join(f"{name} {iou:.3f}" for name, iou in zip(names, self.iou, strict=True))
        val = f"  val IoU {self.mean_iou:.4f} ({ious})" if self.evaluated else ""
        return f"epoch {self.number:3d}/{epochs}  loss {self.loss:.4f}{val}  {self.seconds:.1f} s"

    @property
    def evaluated(self) -> bool:
        """Whether it has scores."""
        return not math.isnan(self.mean_iou)


def write_log(path: Path, epochs: list[Epoch], names: tuple[str, ...]) -> None:
    """One row per epoch. Always written whole, so that a resumed run has one log."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["epoch", "loss", "lr", *(f"iou_{name}" for name in names), "mean_iou", "seconds", "waited"])
    for e in epochs:
        values = (e.loss, e.lr, *e.iou, e.mean_iou)
        out.writerow([e.number, *(f"{value:.8g}" for value in values), f"{e.seconds:.2f}", f"{e.waited:.2f}"])
    write_whole(path, text.getvalue().encode())


def write_lines(path: Path, epochs: list[Epoch], names: tuple[str, ...]) -> None:
    """The same as `write_log` for machines: a JSON object per line, null where a class is absent."""
    lines = []
    for e in epochs:
        iou = dict(zip(names, map(_number, e.iou), strict=True))
        lines.append(json.dumps(asdict(e) | {"iou": iou, "mean_iou": _number(e.mean_iou)}) + "\n")
    write_whole(path, "".join(lines).encode())


def draw_curve(path: Path, epochs: list[Epoch], names: tuple[str, ...]) -> None:
    """Write `curve` to a file."""
    write_whole(path, curve(epochs, names))


def curve(epochs: list[Epoch], names: tuple[str, ...]) -> bytes:
    """Training loss, and validation IoU per class, over the epochs, as a PNG."""
    with lettered(names):
        return _curve(epochs, names)


def _curve(epochs: list[Epoch], names: tuple[str, ...]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    numbers = [e.number for e in epochs]
    left.plot(numbers, [e.loss for e in epochs], ".-")
    left.set(xlabel="epoch", ylabel="training loss")
    evaluated = [e for e in epochs if e.evaluated]
    for k, name in enumerate(names):
        right.plot([e.number for e in evaluated], [e.iou[k] for e in evaluated], ".-", label=name)
    right.set(xlabel="epoch", ylabel="validation IoU", ylim=(0, 1))
    right.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def scores(confusion: Scores, names: tuple[str, ...]) -> dict[str, Any]:
    """Per class and mean, as plain numbers; None where a class does not occur."""
    table = {score: getattr(confusion, score) for score in SCORES}
    per_class = {
        name: {score: _number(values[k]) for score, values in table.items()} for k, name in enumerate(names)
    }
    return {
        "classes": per_class,
        "mean_iou": _number(confusion.mean_iou),
        "mean_dice": _number(confusion.mean_dice),
        "object_iou": _number(confusion.object_iou),
        "object_dice": _number(confusion.object_dice),
        "accuracy": _number(confusion.accuracy),
        "pixels": confusion.pixels,
    }


def results(evaluation: Evaluation, names: tuple[str, ...]) -> dict[str, Any]:
    """`scores` of the data set, and under ``samples`` means of each sample's own, where a class occurs."""
    means = {score: evaluation.sample_mean(score) for score in SCORES}
    per_class = {
        name: {score: _number(values[k]) for score, values in means.items()} for k, name in enumerate(names)
    }
    samples = {"count": len(evaluation.samples), "classes": per_class}
    return scores(evaluation.confusion, names) | {"samples": samples}


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 6)  # noqa: PLR0124 - NaN differs from itself


def score_table(result: dict[str, Any]) -> str:
    """`scores` as lines of text."""
    width = max(8, *map(len, result["classes"]))
    head = f"{'class':{width}}" + "".join(f"{score:>11}" for score in SCORES)
    rows = [f"{name:{width}}" + _cells(values) for name, values in result["classes"].items()]
    return "\n".join([head, *rows, f"mean IoU {_cell(result['mean_iou']).strip()}"])


def _cells(values: dict[str, float | None]) -> str:
    return "".join(_cell(values[score]) for score in SCORES)


def _cell(value: float | None) -> str:
    return f"{'-':>11}" if value is None else f"{value:11.4f}"

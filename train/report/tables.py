"""Tables, as CSV files and as rows of text. An empty cell has no pixels to go by."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.metrics import Confusion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from tiler.metrics import Counts
    from train.evaluation import Evaluation

SCORES: Final = ("iou", "dice", "precision", "recall", "class_accuracy")
MEANS: Final = ("iou", "dice")
"""Of these, means of samples too."""


def class_table(evaluation: Evaluation, names: tuple[str, ...]) -> list[list[str]]:
    """`score_table` and `amount_table` side by side."""
    scores, amounts = score_table(evaluation, names), amount_table(evaluation, names)
    return [row + more[1:] for row, more in zip(scores, amounts, strict=True)]


def score_table(evaluation: Evaluation, names: tuple[str, ...]) -> list[list[str]]:
    """A head, and a row per class: figures of the data set, then means of samples."""
    head = ["class", *SCORES, *(f"sample_mean_{score}" for score in MEANS)]
    values = [getattr(evaluation.confusion, score) for score in SCORES]
    values += [evaluation.sample_mean(score) for score in MEANS]
    return [head, *([name, *(_cell(column[k]) for column in values)] for k, name in enumerate(names))]


def amount_table(evaluation: Evaluation, names: tuple[str, ...]) -> list[list[str]]:
    """A head, and a row per class: how much of it there is and is predicted, of the known pixels."""
    confusion, areas_2K = evaluation.confusion, _areas(evaluation)
    known = max(confusion.pixels // _decisions(confusion), 1)
    head = ["class", "true_pixels", "predicted_pixels", "true_share", "predicted_share"]
    rows = [head + (["true_m2", "predicted_m2"] if areas_2K is not None else [])]
    for k, name in enumerate(names):
        counts = [int(confusion.true[k]), int(confusion.predicted[k])]
        row = [name, *map(str, counts), *(_cell(count / known) for count in counts)]
        rows.append(row + ([] if areas_2K is None else [f"{area:.10g}" for area in areas_2K[:, k]]))
    return rows


def _decisions(confusion: Counts) -> int:
    """How often a pixel is counted."""
    return 1 if isinstance(confusion, Confusion) else len(confusion.counts)


def _areas(evaluation: Evaluation) -> NDArray[np.float64] | None:
    """True and predicted square metres per class, sample by sample; None unless all have a place."""
    total_2K = np.zeros((2, len(evaluation.confusion.true)))
    for sample in evaluation.samples:
        if sample.pixel_m2 is None:
            return None
        total_2K += np.stack([sample.sums.true, sample.sums.predicted]) * sample.pixel_m2
    return total_2K


def sample_table(evaluation: Evaluation, names: tuple[str, ...]) -> list[list[str]]:
    """A head, and a row per sample, in order."""
    head = ["sample", "file", "top", "left", "height", "width", "known_pixels", "score", "accuracy"]
    head += [f"{score}_{name}" for score in MEANS for name in names]
    rows = [head]
    for sample in evaluation.samples:
        window, sums = sample.window, sample.sums
        place = [str(n) for n in (window.top, window.left, *window.shape)]
        known = str(sums.pixels // _decisions(evaluation.confusion))
        values = [value for score in MEANS for value in getattr(sums, score)]
        row = [sample.name, str(sample.part.source.image), *place, known]
        rows.append([*row, _cell(sample.score), _cell(sums.accuracy), *map(_cell, values)])
    return rows


def confusion_table(confusion: Counts, names: tuple[str, ...]) -> list[list[str]]:
    """Counts: rows are the truth, columns the prediction; of independent classes one row each."""
    if isinstance(confusion, Confusion):
        rows = [[name, *map(str, row)] for name, row in zip(names, confusion.counts, strict=True)]
        return [["true \\ predicted", *names], *rows]
    head = ["class", "true_negative", "false_positive", "false_negative", "true_positive"]
    return [head, *([n, *map(str, c.ravel())] for n, c in zip(names, confusion.counts, strict=True))]


def to_csv(rows: Iterable[list[str]]) -> bytes:
    """UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5f}"

"""Charts, as PNG files on white; `train.report.page` inverts them where a reader has a dark screen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.metrics import mean_present
from train.report.pictures import mask, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tiler.metrics import Confusion, Scores
    from tiler.spec import ClassSpec
    from train.evaluation import Evaluation
    from train.report.pictures import Picture

BARS: Final = ("iou", "dice", "precision", "recall")
MOST: Final = 24
"""Classes that have a panel each, or figures in their cells; of more, pictures would be too large."""


def sample_curves(evaluation: Evaluation, names: tuple[str, ...]) -> bytes:
    """IoU of every sample with the mean over samples and the figure of the data set, class below class.

    Of many classes, the `MOST` that occur most.
    """
    iou_SK = evaluation.per_sample("iou")
    shown = sorted(np.argsort(-evaluation.confusion.true, kind="stable")[:MOST].tolist())
    figure = _figure(8, 0.6 + 1.7 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for k, panel in zip(shown, panels, strict=True):
        panel.plot(np.arange(1, len(iou_SK) + 1), iou_SK[:, k], ".-", linewidth=0.8, markersize=4)
        mean, whole = mean_present(iou_SK[:, k]), evaluation.confusion.iou[k]
        if not np.isnan(mean):
            panel.axhline(mean, color="tab:orange", label=f"mean of samples {mean:.3f}")
            panel.axhline(whole, color="tab:green", linestyle="--", label=f"data set {whole:.3f}")
            panel.legend(loc="lower right", fontsize=8)
        panel.set(ylabel=f"IoU {names[k]}", ylim=(-0.02, 1.02))
    panels[-1].set(xlabel="sample")
    return _png(figure)


def bars(confusion: Scores, classes: tuple[ClassSpec, ...]) -> bytes:
    """IoU, Dice, precision and recall of each class over the data set."""
    figure = _figure(8, 0.9 + 0.32 * len(classes))
    for score, panel in zip(BARS, figure.subplots(1, len(BARS), sharey=True), strict=True):
        values_K = getattr(confusion, score)
        colors = [np.array(kind.color) / 255 for kind in classes]
        drawn = panel.barh(range(len(classes)), np.nan_to_num(values_K), color=colors)
        panel.bar_label(drawn, ["-" if np.isnan(v) else f"{v:.3f}" for v in values_K], fontsize=8, padding=2)
        panel.set(title=score, xlim=(0, 1.35), xticks=(0, 0.5, 1))
        panel.set_yticks(range(len(classes)), [kind.name for kind in classes])
    panel.invert_yaxis()
    return _png(figure)


def confusion_chart(confusion: Confusion, names: tuple[str, ...]) -> bytes:
    """Shares of each true class (rows sum to 1) that are predicted as each class."""
    counts_TP = confusion.counts_TP.astype(np.float64)
    shares_TP = counts_TP / np.maximum(counts_TP.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.55 * min(len(names), MOST)
    figure = _figure(side + 0.6, side)
    panel = figure.subplots()
    panel.imshow(shares_TP, cmap="Blues", vmin=0, vmax=1)
    for (true, predicted), share in np.ndenumerate(shares_TP if len(names) <= MOST else np.empty((0, 0))):
        color = "white" if share > 0.5 else "black"
        panel.text(predicted, true, f"{share:.2f}", ha="center", va="center", fontsize=8, color=color)
    panel.set_xticks(range(len(names)), names, rotation=45, ha="right")
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel="predicted", ylabel="true")
    return _png(figure)


def gallery(pictures: list[Picture], classes: tuple[ClassSpec, ...]) -> bytes:
    """A row per sample: image, label, prediction, and the prediction over the image."""
    figure = _figure(9, 2.35 * max(1, len(pictures)))
    rows = figure.subplots(max(1, len(pictures)), 4, squeeze=False)
    for panel in rows.flat:
        panel.axis("off")
    for panel, title in zip(rows[0], ("image", "label", "prediction", "overlay"), strict=True):
        panel.set_title(title)
    for row, picture in zip(rows, pictures, strict=False):
        found = [
            picture.photo_3HW,
            mask(picture.truth_QHW, classes),
            mask(picture.labels_QHW, classes),
            overlay(picture.photo_3HW, picture.labels_QHW, classes),
        ]
        for panel, pixels_3HW in zip(row, found, strict=True):
            panel.imshow(np.moveaxis(pixels_3HW, 0, -1), interpolation="nearest")
        caption = f"{picture.sample.name}\nIoU {picture.sample.score:.3f}"
        row[0].text(0, -0.03, caption, transform=row[0].transAxes, va="top", fontsize=8)
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    """Inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    image: Any = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return bytes(image.getvalue())

"""Is a network of reduced precision still good enough? Judged on real pixels, none of them calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.sample import WHITE, sample
from tiler.errors import InputError, UsageError
from tiler.finish import Finisher
from tiler.kernels import NODATA
from tiler.metrics import Confusion
from tiler.tiles import network_input, read_mirrored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.model import Model
    from tiler.pixels import Pixels
    from tiler.ports import Raster

CELLS: Final = 64
"""Tiles that are judged by: 4 Mpx where the network leaves their size open."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a network of reduced precision may lose: it passes if it keeps either."""

    agreement: float = 0.999
    """Least share of pixels with the label that the source gives them, in [0, 1]."""
    loss: float = 0.5
    """Largest loss of mean IoU, in points (hundredths); asked only where the truth is known."""

    @classmethod
    def of(cls, agreement: float | None, loss: float | None) -> Limits:
        """Those that are given, else the defaults."""
        given = {"agreement": agreement, "loss": loss}
        return cls(**{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is known to be there, and how two networks compare with it, tile by tile."""

    labels: Raster
    """One band on the grid of the raster; 255 or nodata where it is not known."""
    before: Confusion
    """Of the source."""
    after: Confusion
    """Of the reduced network."""

    def add(self, window: Window, before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> None:
        """Count the labels that both networks give to the pixels of a window."""
        known = read_mirrored(self.labels, window)
        truth_HW = np.where(known.valid_HW, known.raw_CHW[0], NODATA)
        self.before.add(truth_HW, before_HW)
        self.after.add(truth_HW, after_HW)

    def check(self) -> None:
        """Refuse labels that say nothing about the pixels that were judged by."""
        if not self.before.pixels:
            raise InputError(f"--labels knows some of the pixels, got none in {self.labels.info.name}")

    @property
    def loss(self) -> float:
        """Points of mean IoU that are lost, below 0 if the reduced network is better."""
        return 100 * (mean_iou(self.before) - mean_iou(self.after))


def mean_iou(confusion: Confusion) -> float:
    """Over the classes that occur in the truth, which is the same for both networks."""
    return float(confusion.iou[confusion.counts_TP.sum(axis=1) > 0].mean())


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The labels of two networks for the same pixels."""

    classes: tuple[str, ...]
    pixels: int
    same: int
    """Pixels that both label alike."""
    difference: float
    """Largest difference of scores, in the deviation of the source's on the same tile."""
    truth: Truth | None = None
    """How both compare with the truth, if it is known."""

    @property
    def agreement(self) -> float:
        """Share of pixels that both label alike."""
        return self.same / self.pixels

    @property
    def loss(self) -> float | None:
        """Points of mean IoU that are lost, below 0 if it is better; None if the truth is not known."""
        return None if self.truth is None else self.truth.loss

    def passes(self, limits: Limits) -> bool:
        """Whether the labels agree, or are as good."""
        as_good = self.loss is not None and self.loss <= limits.loss
        return self.agreement >= limits.agreement or as_good

    def __str__(self) -> str:
        lines = [
            f"{self.agreement:.3%} of the labels as in fp32, on {self.pixels:,} px not calibrated on",
            f"largest difference of scores: {self.difference:.2g} of their deviation",
        ]
        return "\n".join([*lines, *([] if self.truth is None else self._scores(self.truth))])

    def _scores(self, truth: Truth) -> Iterator[str]:
        pairs = zip(self.classes, truth.before.iou, truth.after.iou, strict=True)
        means = mean_iou(truth.before), mean_iou(truth.after)
        yield f"{'IoU':<20} {'fp32':>8} {'reduced':>8} {'points lost':>12}"
        for name, before, after in [*pairs, ("mean", *means)]:
            # Adding 0 turns a rounded -0.0 into 0.0.
            lost = round(100 * (before - after), 2) + 0.0
            yield f"{name:<20} {before:>8.4f} {after:>8.4f} {lost:>12.2f}"


def judge(source: Model, reduced: Model, raster: Raster, labels: Raster | None) -> Verdict:
    """Run both networks on tiles from all over the raster, none of which is one to calibrate on.

    Parameters
    ----------
    raster
        At the networks' resolution.
    labels
        The truth on the raster's grid: one band, 255 or nodata where it is not known.

    Raises
    ------
    InputError
        if there is nothing to judge by, or the reduced network returns NaN or infinity.
    """
    finisher = Finisher(source.spec, source.channels)
    if labels is not None and finisher.multilabel:
        raise UsageError(
            "--labels is for classes that exclude each other, got a network with several sigmoids"
        )
    truth = None if labels is None else _truth(labels, len(source.spec.classes))
    cells = []
    for window, pixels in sample(raster, source, WHITE, CELLS):
        expected_KHW, got_KHW = _scores(source, pixels), _scores(reduced, pixels)
        expected_QHW, got_QHW = finisher(expected_KHW, pixels.valid_HW), finisher(got_KHW, pixels.valid_HW)
        same_HW = (expected_QHW == got_QHW).all(axis=0) & pixels.valid_HW
        cells.append((pixels.valid_HW.sum(), same_HW.sum(), _difference(expected_KHW, got_KHW)))
        if truth is not None:
            truth.add(window, expected_QHW[0], got_QHW[0])
    if truth is not None:
        truth.check()
    valid, same, differences = zip(*cells, strict=True)
    names = tuple(c.name for c in source.spec.classes)
    return Verdict(names, int(sum(valid)), int(sum(same)), max(differences), truth)


def _truth(labels: Raster, classes: int) -> Truth:
    return Truth(labels, Confusion(classes), Confusion(classes))


def _scores(model: Model, pixels: Pixels) -> NDArray[np.float32]:
    batch_NCHW = network_input(pixels, model.spec, model.dtype)[None]
    scores_KHW: NDArray[np.float32] = model.backend.predict(batch_NCHW)[0]
    if not np.isfinite(scores_KHW).all():
        raise InputError(
            f"scores are numbers, got NaN or infinity from {model.path.name}; its weights are too large for "
            "this precision, or the network was not trained well: use another --precision"
        )
    return scores_KHW


def _difference(expected_KHW: NDArray[np.float32], got_KHW: NDArray[np.float32]) -> float:
    return float(np.abs(got_KHW - expected_KHW).max()) / (float(expected_KHW.std()) or 1.0)


def check(verdict: Verdict, limits: Limits) -> None:
    """Refuse a network that is not good enough."""
    if verdict.passes(limits):
        return
    if verdict.loss is None:
        wish, found, fix = "", "", "pass --labels to show that its IoU holds, "
    else:
        wish = f", or a mean IoU at most --most-loss {limits.loss:g} points lower"
        found, fix = f" and {verdict.loss:.3g} points", ""
    raise InputError(
        f"of the labels a share of at least --least-agreement {limits.agreement:g} is as in fp32{wish}, "
        f"got {verdict.agreement:.5f}{found}; {fix}calibrate on pixels more like these, or use another "
        "--precision; not written"
    )

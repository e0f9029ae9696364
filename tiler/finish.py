"""Scores -> bytes: labels and probabilities. Per pixel, so it does not matter how they are cut.

A finished pixel is one byte in each of Q planes: the label planes first, then the probability planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler import kernels
from tiler.errors import InputError, UsageError
from tiler.kernels import LEVELS, NODATA
from tiler.options import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tiler.spec import ModelSpec

SCALE: Final = 1 / LEVELS
"""A stored probability byte times this is the probability."""

__all__ = ["NODATA", "SCALE", "Finisher"]


@dataclass(frozen=True, slots=True)
class Finisher:
    """Turns a network's scores into the planes that are stored."""

    spec: ModelSpec
    channels: int
    """K, scores per pixel."""
    output: str = "labels"
    """One of `tiler.options.OUTPUTS`."""

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise UsageError(f"output is one of {', '.join(OUTPUTS)}, got {self.output!r}")
        if self.channels == 1 and self.spec.activation == "none":
            raise UsageError("a network with one channel returns logits or sigmoid, got --activation none")
        if self.probability_planes and self.spec.activation == "none":
            raise UsageError("a network with --activation none has no probabilities; use --output labels")
        expected = 2 if self.channels == 1 else self.channels
        if len(self.spec.classes) != expected:
            raise InputError(
                f"a network with {self.channels} output channels has {expected} classes, "
                f"got {len(self.spec.classes)}; name them with --classes"
            )

    @property
    def multilabel(self) -> bool:
        """Whether the classes do not exclude each other, so that each has a 0/1 label plane of its own."""
        return self.spec.activation == "sigmoid" and self.channels > 1

    @property
    def label_planes(self) -> int:
        """Number of label planes."""
        return 0 if self.output == "probabilities" else self.channels if self.multilabel else 1

    @property
    def probability_planes(self) -> int:
        """Number of probability planes: one per channel, or none."""
        return 0 if self.output == "labels" else self.channels

    @property
    def planes(self) -> int:
        """Q, bytes per pixel."""
        return self.label_planes + self.probability_planes

    @property
    def probability_names(self) -> tuple[str, ...]:
        """Class of each probability plane; a one-channel network scores its second class."""
        return tuple(c.name for c in self.spec.classes[-self.channels :])

    def __call__(
        self,
        scores_KHW: NDArray[np.float32],
        valid_HW: NDArray[np.bool_],
        at: tuple[int, int] = (0, 0),
    ) -> NDArray[np.uint8]:
        """The planes (Q, H, W) of the scores from row and column ``at`` on; `NODATA` where not valid."""
        planes_QHW = np.empty((self.planes, *valid_HW.shape), np.uint8)
        if self.label_planes:
            self._labels(scores_KHW, at, valid_HW, planes_QHW[: self.label_planes])
        if self.probability_planes:
            kernel = self._probability_kernel
            kernel(scores_KHW, at, valid_HW, planes_QHW[self.label_planes :])
        return planes_QHW

    def probabilities(self, scores_KHW: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each channel, in full precision; for measuring, not for maps."""
        scores_KHW = scores_KHW.astype(np.float64)
        if self.spec.activation != "logits":
            return np.clip(scores_KHW, 0, 1)
        if self.channels == 1:
            return np.asarray(1 / (1 + np.exp(-scores_KHW)))
        raised_KHW = np.exp(scores_KHW - scores_KHW.max(axis=0))
        return np.asarray(raised_KHW / raised_KHW.sum(axis=0))

    def decided(self, probabilities_KHW: NDArray[np.float64]) -> NDArray[np.generic]:
        """The labels that follow from `probabilities`: (H, W), or (K, H, W) where classes are independent."""
        if self.channels > 1 and not self.multilabel:
            return np.asarray(probabilities_KHW.argmax(axis=0))
        return np.asarray(probabilities_KHW >= self.spec.threshold)

    def labels_of(self, planes_QHW: NDArray[np.uint8]) -> NDArray[np.generic]:
        """The labels that finished planes hold, or that follow from their probabilities."""
        if self.label_planes:
            return planes_QHW[: self.label_planes]
        return self.decided(planes_QHW.astype(np.float64) * SCALE)

    def _labels(
        self,
        scores_KHW: NDArray[np.float32],
        at: tuple[int, int],
        valid_HW: NDArray[np.bool_],
        out_QHW: NDArray[np.uint8],
    ) -> None:
        if self.channels > 1 and not self.multilabel:
            kernels.argmax(scores_KHW, at, valid_HW, out_QHW[0])
            return
        threshold = self.spec.threshold
        limit = math.log(threshold / (1 - threshold)) if self.spec.activation == "logits" else threshold
        for scores_HW, out_HW in zip(scores_KHW, out_QHW, strict=True):
            kernels.at_least(scores_HW, at, valid_HW, limit, out_HW)

    @property
    def _probability_kernel(self) -> Callable[..., None]:
        if self.spec.activation != "logits":
            return kernels.probability_bytes
        return kernels.sigmoid_bytes if self.channels == 1 else kernels.softmax_bytes

"""What an evaluation found: counts of the whole, and of each sample.

Two kinds of figures follow, and they differ: those of the *data set* pool all pixels; those *per sample* are
means of each sample's own, over the samples in which the class occurs. Neither is called simply "mean IoU".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiler.metrics import Confusion, IndependentConfusion, mean_present

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.metrics import Counts, Scores
    from tiler.spec import ModelSpec
    from train.data.labelled import Part


@dataclass(frozen=True, slots=True, eq=False)
class SampleScore:
    """One image, or a square of a larger one."""

    part: Part
    """What was evaluated as an image of its own."""
    window: Window
    """The pixels of the raster that are this sample: all of the part, or a square of it."""
    sums: Scores
    """Of its known pixels; no matrix, of which thousands of samples would fill the memory."""
    pixel_m2: float | None = None
    """Area of its middle pixel on the ground, square metres; None if it is not georeferenced."""

    @property
    def name(self) -> str:
        """The file's, and where a larger image was cut: ``scene 512,0``."""
        name, corner = Path(self.part.source.image).stem, (self.window.top, self.window.left)
        return f"{name} {corner[0]},{corner[1]}" if any(corner) else name

    @property
    def score(self) -> float:
        """Mean IoU of the classes that occur, but for the background.

        NaN if only background occurs: finding nothing where nothing is says little.
        """
        return self.sums.object_iou


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All samples."""

    confusion: Counts
    """Of all known pixels: figures of the data set."""
    samples: list[SampleScore]
    """Those with a known pixel, in the order of the parts."""

    def per_sample(self, score: str) -> NDArray[np.float64]:
        """One row per sample, one column per class, of ``iou``, ``dice``...; NaN where a class is absent."""
        rows = [getattr(sample.sums, score) for sample in self.samples]
        return np.array(rows, np.float64).reshape(len(rows), len(self.confusion.true))

    def sample_mean(self, score: str) -> NDArray[np.float64]:
        """Per class, the mean over the samples in which it occurs."""
        return np.array([mean_present(column) for column in self.per_sample(score).T])

    def ranked(self) -> list[SampleScore]:
        """Samples from the lowest `SampleScore.score` to the highest; those without one are left out."""
        scored = [sample for sample in self.samples if not np.isnan(sample.score)]
        return sorted(scored, key=lambda sample: sample.score)


def empty_confusion(spec: ModelSpec) -> Counts:
    """No counts yet: of independent classes where the activation is ``sigmoid``, else of exclusive ones."""
    K = len(spec.classes)
    return IndependentConfusion(K) if spec.activation == "sigmoid" else Confusion(K)

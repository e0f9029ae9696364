"""Agreement of labels with ground truth, from a confusion matrix that is summed as pixels stream by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.errors import InputError, UsageError
from tiler.kernels import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Counts of (true class, predicted class).

    A class that occurs in neither has NaN scores, so that it cannot pull a mean up or down.

    >>> confusion = Confusion(2)
    >>> confusion.add(np.array([[0, 1, 1, 255]]), np.array([[0, 1, 0, 1]]))
    >>> confusion.counts_TP.tolist(), confusion.iou.tolist()
    ([[1, 0], [1, 1]], [0.5, 0.5])
    """

    classes: int
    counts_TP: NDArray[np.int64] = field(init=False)
    """Rows are the truth, columns the prediction."""

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"a confusion matrix has at least one class, got {self.classes}")
        object.__setattr__(self, "counts_TP", np.zeros((self.classes, self.classes), np.int64))

    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Count the pixels that both know; 255 in either is not counted.

        Raises
        ------
        InputError
            if a value is neither a class nor 255.
        """
        known = (truth != NODATA) & (predicted != NODATA)
        truth_N, predicted_N = truth[known].astype(np.int64), predicted[known].astype(np.int64)
        for name, values_N in (("truth", truth_N), ("prediction", predicted_N)):
            if values_N.size and not 0 <= values_N.min() <= values_N.max() < self.classes:
                worst = values_N.max() if values_N.max() >= self.classes else values_N.min()
                raise InputError(
                    f"the {name} holds classes 0 to {self.classes - 1} or {NODATA} for nodata, got {worst}"
                )
        pairs_N = truth_N * self.classes + predicted_N
        self.counts_TP[...] += np.bincount(pairs_N, minlength=self.classes**2).reshape(self.counts_TP.shape)

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.counts_TP.sum())

    @property
    def accuracy(self) -> float:
        """Share of pixels that agree."""
        return float(_ratio(np.trace(self.counts_TP), self.counts_TP.sum()))

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union per class."""
        return _ratio(self._hits, self._true + self._predicted - self._hits)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Twice the intersection over the sum of sizes, per class (F1)."""
        return _ratio(2 * self._hits, self._true + self._predicted)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the pixels predicted as a class that are of it."""
        return _ratio(self._hits, self._predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the pixels of a class that are predicted as it."""
        return _ratio(self._hits, self._true)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN if none does."""
        present = self.iou[~np.isnan(self.iou)]
        return float(present.mean()) if present.size else float("nan")

    @property
    def _hits(self) -> NDArray[np.int64]:
        return np.diag(self.counts_TP)

    @property
    def _true(self) -> NDArray[np.int64]:
        return np.asarray(self.counts_TP.sum(axis=1))

    @property
    def _predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.counts_TP.sum(axis=0))


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:  # noqa: ANN401 - ints or int arrays
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))

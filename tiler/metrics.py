"""Agreement of labels with ground truth, from counts that are summed as pixels stream by.

What is computed from counts of a whole data set is not the mean of what is computed image by image: of two
images with intersections over unions of 0.1 and 0.9, the second a hundred times larger, the mean is 0.5 and
the data set's is 0.89. Everything here is of all pixels that were added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.errors import InputError, UsageError
from tiler.kernels import NODATA

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scores(ABC):
    """Scores per class, from how many pixels are of it, are predicted as it, and are both.

    What has no pixels to go by is NaN, so that it cannot pull a mean up or down: all but the accuracy and
    specificity of a class that occurs in neither truth nor prediction, the precision of one that is never
    predicted, the recall of one that never occurs.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def first_object(self) -> int:
        """Index of the first class that is no background."""

    @property
    @abstractmethod
    def pixels(self) -> int:
        """Number of pixels counted, once for each class that was decided on its own."""

    @property
    @abstractmethod
    def accuracy(self) -> float:
        """Share of decisions that agree."""

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """Share of the pixels that truth and prediction put on the same side of each class."""
        wrong = self.true + self.predicted - 2 * self.hits
        return 1 - _ratio(wrong, self.asked)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union per class."""
        return _ratio(self.hits, self.true + self.predicted - self.hits)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Twice the intersection over the sum of sizes, per class (F1)."""
        return _ratio(2 * self.hits, self.true + self.predicted)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the pixels predicted as a class that are of it."""
        return _ratio(self.hits, self.predicted)

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the pixels of a class that are predicted as it (sensitivity)."""
        return _ratio(self.hits, self.true)

    @property
    def specificity(self) -> NDArray[np.float64]:
        """Share of the pixels not of a class that are not predicted as it."""
        return _ratio(self.asked - self.true - self.predicted + self.hits, self.asked - self.true)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur; NaN if none does."""
        return mean_present(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean of `dice`, likewise."""
        return mean_present(self.dice)

    @property
    def object_iou(self) -> float:
        """`mean_iou` without the background, the first of classes that exclude each other."""
        return mean_present(self.iou[self.first_object :])

    @property
    def object_dice(self) -> float:
        """`mean_dice` without the background, likewise."""
        return mean_present(self.dice[self.first_object :])

    @property
    @abstractmethod
    def hits(self) -> NDArray[np.int64]:
        """Pixels per class that are of it and predicted as it."""

    @property
    @abstractmethod
    def true(self) -> NDArray[np.int64]:
        """Pixels of each class."""

    @property
    @abstractmethod
    def predicted(self) -> NDArray[np.int64]:
        """Pixels predicted as each class."""

    @property
    @abstractmethod
    def asked(self) -> NDArray[np.int64]:
        """Pixels per class of which it is known whether they are of it."""


class Counts(Scores):
    """Scores that pixels are added to."""

    __slots__ = ()

    @abstractmethod
    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Count the pixels that both know; 255 in either is not counted.

        Raises
        ------
        InputError
            if their sizes differ, or a value is neither a class nor 255.
        """

    @property
    @abstractmethod
    def counts(self) -> NDArray[np.int64]:
        """All that has been counted; counts of other pixels may be added to it in place."""


@dataclass(frozen=True, slots=True, eq=False)
class Confusion(Counts):
    """Counts of (true class, predicted class), for classes that exclude each other.

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
        """As `Counts` has it: class indices and 255."""
        if truth.shape != predicted.shape:
            raise InputError(f"truth and prediction have one size, got {truth.shape} and {predicted.shape}")
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
    def first_object(self) -> int:
        """The first class is background."""
        return 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """As `Counts` has it."""
        return self.counts_TP

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.counts_TP.sum())

    @property
    def accuracy(self) -> float:
        """Share of pixels that agree."""
        return float(_ratio(np.trace(self.counts_TP), self.counts_TP.sum()))

    @property
    def hits(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.diag(self.counts_TP)

    @property
    def true(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.counts_TP.sum(axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.counts_TP.sum(axis=0))

    @property
    def asked(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.full(self.classes, self.counts_TP.sum())


@dataclass(frozen=True, slots=True, eq=False)
class IndependentConfusion(Counts):
    """Counts of (truth, prediction) for each class on its own: a pixel may be of several, or of none.

    >>> confusion = IndependentConfusion(2)
    >>> confusion.add(np.array([[[1, 1, 0]], [[0, 255, 1]]]), np.array([[[1, 0, 0]], [[0, 1, 1]]]))
    >>> confusion.iou.tolist(), confusion.accuracy
    ([0.5, 1.0], 0.8)
    """

    classes: int
    counts_KTP: NDArray[np.int64] = field(init=False)
    """Per class: rows are the truth (no, yes), columns the prediction."""

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise UsageError(f"a confusion matrix has at least one class, got {self.classes}")
        object.__setattr__(self, "counts_KTP", np.zeros((self.classes, 2, 2), np.int64))

    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """As `Counts` has it: (K, H, W) of 0, 1 and 255."""
        for k, (truth_HW, predicted_HW) in enumerate(zip(truth, predicted, strict=True)):
            one = Confusion(2)
            one.add(truth_HW, predicted_HW)
            self.counts_KTP[k] += one.counts_TP

    @property
    def first_object(self) -> int:
        """None is background."""
        return 0

    @property
    def counts(self) -> NDArray[np.int64]:
        """As `Counts` has it."""
        return self.counts_KTP

    @property
    def pixels(self) -> int:
        """Number of decisions counted: a pixel counts once per class."""
        return int(self.counts_KTP.sum())

    @property
    def accuracy(self) -> float:
        """Share of decisions that agree."""
        return float(_ratio(np.trace(self.counts_KTP.sum(axis=0)), self.counts_KTP.sum()))

    @property
    def hits(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return self.counts_KTP[:, 1, 1]

    @property
    def true(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.counts_KTP[:, 1].sum(axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.counts_KTP[:, :, 1].sum(axis=1))

    @property
    def asked(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.counts_KTP.sum(axis=(1, 2)))


@dataclass(frozen=True, slots=True, eq=False)
class Sums(Scores):
    """What scores of classes need of a confusion, four numbers per class, where many are kept.

    >>> confusion = Confusion(2)
    >>> confusion.add(np.array([[0, 1, 1, 255]]), np.array([[0, 1, 0, 1]]))
    >>> sums = Sums.empty(confusion)
    >>> sums.add(confusion)
    >>> sums.iou.tolist(), sums.pixels
    ([0.5, 0.5], 3)
    """

    sums_4K: NDArray[np.int64]
    """Hits, true, predicted and asked."""
    independent: bool
    """Whether a pixel counts once per class."""

    @classmethod
    def empty(cls, like: Counts) -> Sums:
        """Of no pixels yet, for classes like those."""
        sums_4K = np.zeros((4, len(like.true)), np.int64)
        return cls(sums_4K, isinstance(like, IndependentConfusion))

    def add(self, counts: Counts) -> None:
        """What was counted of other pixels."""
        self.sums_4K[...] += np.stack([counts.hits, counts.true, counts.predicted, counts.asked])

    @property
    def first_object(self) -> int:
        """The first class is background, or none is."""
        return 0 if self.independent else 1

    @property
    def pixels(self) -> int:
        """As `Scores` has it."""
        return int(self.asked.sum() if self.independent else self.asked[0])

    @property
    def accuracy(self) -> float:
        """Share of decisions that agree."""
        if not self.independent:
            return float(_ratio(self.hits.sum(), self.pixels))
        wrong = self.true + self.predicted - 2 * self.hits
        return float(_ratio((self.asked - wrong).sum(), self.pixels))

    @property
    def hits(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.sums_4K[0])

    @property
    def true(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.sums_4K[1])

    @property
    def predicted(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.sums_4K[2])

    @property
    def asked(self) -> NDArray[np.int64]:
        """As `Scores` has it."""
        return np.asarray(self.sums_4K[3])


def mean_present(values: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN if nothing is left.

    >>> mean_present(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:  # noqa: ANN401 - ints or int arrays
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))

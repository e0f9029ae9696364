"""Random training samples: sample ``i`` of epoch ``e`` is a function of (seed, e, i) and of nothing else.

Its place, its augmentation and its noise included. So neither workers, nor processes, nor order, nor a
resumed run can change what is trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from tiler import signals
from tiler.errors import UsageError
from tiler.pixels import fill_invalid, fill_values, normalise
from train.data.augment import Augment
from train.data.labelled import CACHE_BYTES
from train.data.square import square_at, with_margin
from train.data.target import IGNORE
from train.data.warp import Planes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from tiler.geometry import Window
    from tiler.spec import ModelSpec
    from train.data.balance import ClassMap
    from train.data.labelled import Library, Part

TRIES: Final = 20
"""Further draws of a sample that shows no pixel whose class is known: there is nothing to learn from it."""
Key = tuple[int, int]
"""Epoch and number of a sample."""


class Sample(NamedTuple):
    """One square to learn from; the loader stacks them, with N samples as a first axis."""

    pixels_CHW: Tensor
    """float32, normalised; 0 where there are none."""
    target_HW: Tensor
    """int64: a class or `IGNORE`; (K, H, W) of 0, 1 and `IGNORE` for independent classes."""
    weight_HW: Tensor
    """float32: how much a pixel counts; (1, 1), holding 1, when all count alike."""


@dataclass(frozen=True, slots=True, eq=False)
class Crops(Dataset[Sample]):
    """All samples of all epochs."""

    parts: tuple[Part, ...]
    library: Library
    spec: ModelSpec
    side: int
    """Pixels."""
    seed: int
    augment: Augment = field(default_factory=Augment.none)
    class_weights: tuple[float, ...] = ()
    """How much a pixel of each class counts; empty: 1. What the library says of gaps is added."""
    balance: float = 0.0
    """Share of the samples that are centred on a pixel of a class drawn evenly."""
    classes: ClassMap | None = None
    """Where the classes are: needed for ``balance``, and where few pixels are labelled."""
    margin: int = 0
    """Pixels at each side of a sample that a network sees and does not score: a part is mirrored there."""
    _until_P: NDArray[np.int64] = field(init=False)
    """Pixels of the parts up to and including each."""
    _fill_C: NDArray[Any] = field(init=False)
    """What pixels without data are filled with, in the rasters' dtype."""
    _weight_Q: NDArray[np.float32] = field(init=False)
    """By value of the target."""

    def __post_init__(self) -> None:
        if self.balance and self.classes is None:
            raise UsageError("balance needs to know where the classes are; pass the survey's map")
        info = self.library.info(self.parts[0].source)
        self.augment.check(info)
        if self.class_weights and self.library.legend.independent:
            raise UsageError("weights of classes are for classes that exclude each other, not --independent")
        areas = [part.window.area for part in self.parts]
        object.__setattr__(self, "_until_P", np.cumsum(areas))
        object.__setattr__(self, "_fill_C", fill_values(self.spec, info.dtype))
        unknown = np.ones(IGNORE + 1 - len(self.class_weights), np.float32)
        object.__setattr__(self, "_weight_Q", np.append(np.array(self.class_weights, np.float32), unknown))

    def __getitem__(self, key: Key) -> Sample:
        """The sample of an epoch and number."""
        rng = np.random.default_rng([self.seed, *key])
        planes = self._drawn(*self._place(rng), rng)
        for _ in range(TRIES):
            if (planes.target_HW != IGNORE).any():
                break
            planes = self._drawn(*self._known_place(rng), rng)
        planes = planes._replace(pixels_CHW=self.augment.light(planes.pixels_CHW, rng))
        arrays = self.augment.symmetry(planes, rng)
        return Sample(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _drawn(self, part: Part, middle: tuple[int, int], rng: np.random.Generator) -> Planes:
        """What is around a pixel, zoomed, turned and bent as it is drawn."""
        warp = self.augment.warp(self.side, rng)
        mirrored = self.margin > 0
        if warp is None:
            scored = square_at(part.window, self.side - 2 * self.margin, middle)
            window = with_margin(scored, self.margin, part.window)
            before = self.margin - (scored.top - window.top), self.margin - (scored.left - window.left)
            return self._planes(part, window, rng).padded(self.side, before, mirrored=mirrored)
        warp = warp.moved_inside(part.window, middle, self.margin)
        return warp.apply(self._planes(part, warp.window(part.window), rng), mirrored=mirrored)

    def _place(self, rng: np.random.Generator) -> tuple[Part, tuple[int, int]]:
        """A part, and the pixel that the sample is about: any, each as likely, or one of a class."""
        if self.classes is not None and self.balance and rng.random() < self.balance:
            return self.classes.draw_class(self.parts, self.library, rng)
        number = np.searchsorted(self._until_P, rng.integers(self._until_P[-1]), side="right")
        part = self.parts[int(number)]
        inside = part.window
        row, column = rng.integers((inside.top, inside.left), (inside.bottom, inside.right)).tolist()
        return part, (row, column)

    def _known_place(self, rng: np.random.Generator) -> tuple[Part, tuple[int, int]]:
        """A part, and a pixel of it whose class is known, as far as it is known where these are."""
        if self.classes is None:
            return self._place(rng)
        return self.classes.draw_known(self.parts, self.library, rng)

    def _planes(self, part: Part, window: Window, rng: np.random.Generator) -> Planes:
        """What lies in a window: normalised pixels, target, weight."""
        labelled = self.library.open(part.source)
        pixels, target_HW = labelled.read(window)
        raw_CHW = self.augment.colour(fill_invalid(pixels, self._fill_C), rng)
        weight_HW = np.ones((1, 1), np.float32)
        if self.class_weights:
            weight_HW = self._weight_Q[target_HW]
        if labelled.gaps is not None:
            weight_HW = weight_HW + labelled.gaps.read(window).raw_CHW[0]
        return Planes(window, normalise(raw_CHW, self.spec), target_HW, weight_HW)


@dataclass(slots=True, eq=False)
class Keys(Sampler[Key]):
    """The samples of one epoch after the other; the loader asks here what comes next.

    Every global batch is cut into one slice per process, so that what is learnt in a step does not depend
    on how many there are.
    """

    count: int
    """Samples per epoch of all processes, whole batches."""
    batch: int = 1
    """Samples per step of all processes."""
    rank: int = 0
    """Number of this process, from 0."""
    world: int = 1
    """Processes."""
    epoch: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.count % self.batch:
            raise UsageError(f"an epoch is whole batches of {self.batch}, got {self.count} samples")
        if self.batch % self.world:
            raise UsageError(
                f"--batch is divided among the processes, got {self.batch} for {self.world}; "
                f"use a multiple of {self.world}"
            )

    @property
    def share(self) -> int:
        """Samples per step of this process."""
        return self.batch // self.world

    def __len__(self) -> int:
        return self.count // self.world

    def __iter__(self) -> Iterator[Key]:
        for first in range(self.rank * self.share, self.count, self.batch):
            yield from ((self.epoch, i) for i in range(first, first + self.share))


class Readers(DataLoader[Any]):
    """A loader whose processes leave it to this one to stop."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # as it is used
        with signals.held_back():
            return super().__iter__()


def crop_loader(crops: Crops, keys: Keys, workers: int = 0) -> DataLoader[Any]:
    """Batches of samples, read by spawned processes: open rasters do not survive a fork."""
    kind = Readers if workers else DataLoader
    return kind(
        crops,
        batch_size=keys.share,
        sampler=keys,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # the default one is that of dropout, and workers would draw from it
        multiprocessing_context="spawn" if workers else None,
        collate_fn=stacked,
        worker_init_fn=take_share,
    )


def take_share(number: int) -> None:
    """In a process that reads: of the memory for decoded blocks, each takes its share."""
    del number
    reader: Any = get_worker_info()
    reader.dataset.library.cache.limit = CACHE_BYTES // reader.num_workers


def stacked(samples: list[Sample]) -> Sample:
    """Samples as a batch. By NumPy: torch.stack waits for threads, 10 ms a batch where cores are busy."""
    planes = zip(*samples, strict=True)
    return Sample(*(torch.from_numpy(np.stack([t.numpy() for t in plane])) for plane in planes))

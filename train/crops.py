"""Random training crops: crop ``i`` of epoch ``e`` is a function of (seed, e, i) and of nothing else.

So neither workers, nor order, nor a resumed run can change what is trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tiler.geometry import Window
from tiler.pixels import fill_invalid, fill_values, normalise
from train.loss import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from tiler.spec import ModelSpec
    from train.labelled import Library, Part
    from train.options import TrainOptions

Key = tuple[int, int]
"""Epoch and number of a crop."""


@dataclass(frozen=True, slots=True, eq=False)
class Crops(Dataset[tuple["Tensor", "Tensor"]]):
    """All crops of all epochs."""

    parts: tuple[Part, ...]
    library: Library
    spec: ModelSpec
    side: int
    """Pixels."""
    seed: int

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        """Normalised pixels (C, side, side) and target (side, side)."""
        rng = np.random.default_rng([self.seed, *key])
        areas = np.array([part.window.area for part in self.parts], np.float64)
        part = self.parts[rng.choice(len(self.parts), p=areas / areas.sum())]
        return self._cut(part, random_window(part.window, self.side, rng))

    def _cut(self, part: Part, window: Window) -> tuple[Tensor, Tensor]:
        pixels, target_HW = self.library.open(part.source).read(window)
        filled_CHW = fill_invalid(pixels, fill_values(self.spec, pixels.raw_CHW.dtype))
        pixels_CHW, target_HW = _padded(normalise(filled_CHW, self.spec), target_HW, self.side)
        return torch.from_numpy(pixels_CHW), torch.from_numpy(target_HW)


def random_window(inside: Window, side: int, rng: np.random.Generator) -> Window:
    """A square around any pixel, each as likely, moved inside; narrower where there is no room for it.

    A square anywhere inside would hardly ever show the pixels of a corner.
    """
    height, width = min(side, inside.height), min(side, inside.width)
    middle = rng.integers((inside.top, inside.left), (inside.bottom, inside.right))
    top = int(np.clip(middle[0] - height // 2, inside.top, inside.bottom - height))
    left = int(np.clip(middle[1] - width // 2, inside.left, inside.right - width))
    return Window(top, left, top + height, left + width)


def _padded(
    pixels_CHW: NDArray[np.float32], target_HW: NDArray[np.int64], side: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Fill a crop of a small image up at its bottom and right; what is filled is not learnt from."""
    missing = tuple((0, side - n) for n in target_HW.shape)
    return (
        np.pad(pixels_CHW, ((0, 0), *missing)),
        np.pad(target_HW, missing, constant_values=IGNORE),
    )


@dataclass(slots=True, eq=False)
class Keys(Sampler[Key]):
    """The crops of one epoch after the other; the loader asks here what comes next."""

    count: int
    """Crops per epoch."""
    epoch: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, i) for i in range(self.count))


def crop_loader(crops: Crops, keys: Keys, options: TrainOptions) -> DataLoader[Any]:
    """Batches of crops, read by ``options.workers`` spawned processes: open rasters do not survive a fork."""
    return DataLoader(
        crops,
        batch_size=options.batch,
        sampler=keys,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        multiprocessing_context="spawn" if options.workers else None,
    )

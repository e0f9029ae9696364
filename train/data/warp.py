"""Geometry of a sample: zoomed, turned, bent; pixels interpolated, targets and weights the nearest.

What lies outside the part that is trained on is not looked at: its class is not known there. Positions are
continuous, (row, column), a pixel's centre lies at a half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from tiler.geometry import Window
from train.data.target import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Planes(NamedTuple):
    """What lies in a window."""

    window: Window
    pixels_CHW: NDArray[np.float32]
    target_HW: NDArray[np.int64]
    """Or (K, H, W)."""
    weight_HW: NDArray[np.float32]
    """Or (1, 1)."""

    def padded(self, side: int, before: tuple[int, int] = (0, 0), *, mirrored: bool = False) -> Planes:
        """Filled up above and left by so much, then below and right; what is filled is not learnt from."""
        missing = tuple((first, side - first - n) for first, n in zip(before, self.window.shape, strict=True))
        if missing == ((0, 0), (0, 0)):
            return self
        beyond: Literal["reflect", "constant"] = "reflect" if mirrored else "constant"
        return Planes(
            self.window,
            np.pad(self.pixels_CHW, ((0, 0), *missing), mode=beyond),
            _pad(self.target_HW, missing, IGNORE),
            self.weight_HW if self.weight_HW.size == 1 else _pad(self.weight_HW, missing, 0),
        )


def _pad(array: NDArray, missing: tuple[tuple[int, int], ...], value: int) -> NDArray:  # type: ignore[type-arg]
    return np.pad(array, ((0, 0),) * (array.ndim - 2) + missing, constant_values=value)


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """Where each pixel of a square sample comes from."""

    side: int
    """Of the sample, pixels."""
    steps: tuple[tuple[float, float], tuple[float, float]]
    """Source (rows, columns) per row of the sample, and per column."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Source (rows, columns)."""
    bend_2GG: NDArray[np.float32] | None = None
    """Source rows and columns by which a coarse grid over the sample is displaced."""
    centre: tuple[float, float] = (0.0, 0.0)
    """Where the sample's middle comes from, before the shift."""

    @classmethod
    def of(cls, side: int, zoom: tuple[float, float], degrees: float) -> Warp:
        """Zoomed along rows and columns (2: twice as large), then turned."""
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        return cls(side, ((cosine / zoom[0], -sine / zoom[1]), (sine / zoom[0], cosine / zoom[1])))

    @property
    def reach(self) -> tuple[float, float]:
        """Half the rows and columns of the source that it spans, bends and shift left out."""
        (down_y, down_x), (across_y, across_x) = self.steps
        half = self.side / 2
        return half * (abs(down_y) + abs(across_y)), half * (abs(down_x) + abs(across_x))

    @property
    def _pace(self) -> float:
        """Source pixels per pixel, along the side where there are more."""
        return max(math.hypot(*step) for step in self.steps)

    def moved_inside(self, inside: Window, middle: tuple[int, int], margin: int = 0) -> Warp:
        """Around a pixel, or as near to it as nothing outside is seen; in the middle of what has no room.

        What is seen within ``margin`` pixels of the sample's sides may lie outside.
        """
        down, across = (reach * (1 - 2 * margin / self.side) for reach in self.reach)
        row = _moved_inside(middle[0] + 0.5, down, inside.top, inside.bottom)
        return replace(self, centre=(row, _moved_inside(middle[1] + 0.5, across, inside.left, inside.right)))

    def positions(self, origin: tuple[float, float]) -> NDArray[np.float32]:
        """Source row and column of each pixel, counted from an origin that is not far: (2, side, side)."""
        away_S = (np.arange(self.side, dtype=np.float32) + 0.5) - self.side / 2
        down, across = (np.array(step, np.float32)[:, None, None] for step in self.steps)
        at = (np.add(self.centre, self.shift) - origin).astype(np.float32)[:, None, None]
        places_2HW = at + down * away_S[:, None] + across * away_S
        if self.bend_2GG is not None:
            bend = torch.from_numpy(self.bend_2GG)[None]
            size = (self.side, self.side)
            places_2HW += functional.interpolate(bend, size, mode="bicubic", align_corners=True)[0].numpy()
        return np.asarray(places_2HW)

    def window(self, inside: Window) -> Window:
        """The source pixels that are needed, within those that may be looked at."""
        places_2HW = self.positions(self.centre)
        margin = 1 + math.ceil(self._pace)
        low = np.floor(places_2HW.min(axis=(1, 2)) + self.centre) - margin
        high = np.ceil(places_2HW.max(axis=(1, 2)) + self.centre) + margin
        top, left = max(int(low[0]), inside.top), max(int(low[1]), inside.left)
        bottom, right = min(int(high[0]), inside.bottom), min(int(high[1]), inside.right)
        return Window(
            min(top, inside.bottom - 1),
            min(left, inside.right - 1),
            max(bottom, inside.top + 1),
            max(right, inside.left + 1),
        )

    def apply(self, planes: Planes, *, mirrored: bool = False) -> Planes:
        """The sample out of what lies in `window`; outside are zeros, or a mirror image."""
        window = planes.window
        places_2HW = self.positions((window.top, window.left))
        index_2HW = np.floor(places_2HW).astype(np.int64)
        limits = np.array(window.shape)[:, None, None]
        outside_HW = ((index_2HW < 0) | (index_2HW >= limits)).any(axis=0)
        rows_HW, columns_HW = np.clip(index_2HW, 0, limits - 1)

        pixels_CHW = self._interpolated(planes.pixels_CHW, places_2HW, "reflection" if mirrored else "border")
        target_HW = planes.target_HW[..., rows_HW, columns_HW]
        target_HW[..., outside_HW] = IGNORE
        if not mirrored:
            pixels_CHW[:, outside_HW] = 0
        weight_HW = planes.weight_HW
        if weight_HW.size > 1:
            weight_HW = np.where(outside_HW, np.float32(0), weight_HW[rows_HW, columns_HW])
        return Planes(window, pixels_CHW, target_HW, weight_HW)

    def _interpolated(
        self, pixels_CHW: NDArray[np.float32], places_2HW: NDArray[np.float32], beyond: str
    ) -> NDArray[np.float32]:
        source_1CHW = torch.from_numpy(pixels_CHW)[None]
        shrunk = 1
        # Between two centres lies the mean of two pixels; where more are passed over, they are averaged.
        while self._pace / shrunk > 2:
            source_1CHW = functional.avg_pool2d(source_1CHW, 2, ceil_mode=True, count_include_pad=False)
            shrunk *= 2
        height, width = source_1CHW.shape[-2:]
        extent = torch.tensor([width * shrunk, height * shrunk], dtype=torch.float32)
        grid_HW2 = torch.from_numpy(places_2HW[::-1].copy()).movedim(0, -1) * 2 / extent - 1
        out_1CHW = functional.grid_sample(
            source_1CHW, grid_HW2[None], padding_mode=beyond, align_corners=False
        )
        return np.asarray(out_1CHW[0].numpy())


def _moved_inside(at: float, reach: float, start: int, stop: int) -> float:
    if stop - start <= 2 * reach:
        return (start + stop) / 2
    return min(max(at, start + reach), stop - reach)

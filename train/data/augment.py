"""Random changes of a sample that leave its classes as they are.

Each has a strength, and 0 is off. The default: the eight symmetries of the square, and mild changes of
light. Everything is drawn from the sample's own generator. Light changes normalised pixels, about zero mean
and unit variance in each band, any number of bands; nothing is clipped there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.errors import MissingError, UsageError
from train.data.options import AugmentOptions
from train.data.warp import Planes, Warp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.ports import RasterInfo

OFTEN: Final = 0.8
"""Share of the samples whose contrast, and whose brightness, is changed."""
GRID: Final = 3
"""Nodes along a side of the coarse grid that is displaced, after Ronneberger, Fischer and Brox (2015)."""


@dataclass(frozen=True, slots=True)
class Augment:
    """Draws and applies the changes."""

    options: AugmentOptions = field(default_factory=AugmentOptions)

    @classmethod
    def none(cls) -> Augment:
        """Changes nothing."""
        off = dict.fromkeys(
            ("flip_horizontal", "quarter_turns", "contrast", "brightness", "band_brightness"), 0.0
        )
        return cls(AugmentOptions(**off))  # type: ignore[arg-type] # all of these are floats

    def check(self, info: RasterInfo) -> None:
        """Refuse to change colours that pixels do not have.

        Raises
        ------
        UsageError
            if these are not red, green and blue.
        """
        if self.options.colours and (info.bands != 3 or info.dtype != np.uint8):
            raise UsageError(
                f"--hue, --saturation and --value are of three bands of uint8, got {info.bands} of "
                f"{info.dtype}; give 0 for each of them, or --rgb for grey pictures"
            )

    def warp(self, side: int, rng: np.random.Generator) -> Warp | None:
        """How a sample of that side is zoomed, turned, shifted and bent; None: not at all."""
        told = self.options
        if not told.warps:
            return None
        smallest, largest = told.zoom
        zoom, degrees = rng.uniform(smallest, largest), rng.uniform(-told.rotate, told.rotate)
        height, width = np.sqrt(rng.uniform(1 - told.aspect, 1 + told.aspect, 2))
        warp = Warp.of(side, (zoom * height / width, zoom * width / height), degrees)
        down, across = rng.uniform(-told.shift, told.shift, 2) * side
        bend_2GG = (rng.standard_normal((2, GRID, GRID)) * told.elastic).astype(np.float32)
        return replace(warp, shift=(down, across), bend_2GG=bend_2GG if told.elastic else None)

    def symmetry(self, planes: Planes, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Pixels, target and weight of a square, flipped and turned alike, bit for bit."""
        horizontal, vertical, turned = rng.random(3)
        turns = int(rng.integers(4)) if turned < self.options.quarter_turns else 0
        mirror = slice(None, None, -1 if horizontal < self.options.flip_horizontal else 1)
        upside = slice(None, None, -1 if vertical < self.options.flip_vertical else 1)
        return tuple(
            # A weight of all pixels has nothing to turn.
            array if array.size == 1 else np.rot90(array[..., upside, mirror], turns, (-2, -1))
            for array in planes[1:]
        )

    def light(self, pixels_CHW: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Other contrast, brightness, noise and order of bands."""
        told, bands = self.options, len(pixels_CHW)
        gain_C, add_C = np.ones(bands), np.zeros(bands)
        if rng.random() < OFTEN:
            gain_C *= _gain(told.contrast, rng, 1)
        if rng.random() < OFTEN:
            add_C += rng.uniform(-told.brightness, told.brightness)
        gain_C *= _gain(told.band_contrast, rng, bands)
        add_C += told.band_brightness * rng.standard_normal(bands)
        lit_CHW = pixels_CHW * gain_C.astype(np.float32)[:, None, None]
        lit_CHW += add_C.astype(np.float32)[:, None, None]
        if told.noise:
            lit_CHW += told.noise * rng.standard_normal(lit_CHW.shape, np.float32)
        if rng.random() < told.shuffle_bands:
            lit_CHW = lit_CHW[rng.permutation(bands)]
        return np.asarray(lit_CHW)

    def colour(self, raw_CHW: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Raw red, green and blue of another hue, saturation and value."""
        if not self.options.colours:
            return raw_CHW
        try:
            from train.data.colour import changed
        except ModuleNotFoundError as error:
            raise MissingError(f"colours need {error.name}; pip install 'gigatiler[train]'") from None

        told = self.options
        hue = rng.uniform(-told.hue, told.hue)
        saturation, value = 1 + rng.uniform(-1, 1, 2) * (told.saturation, told.value)
        return changed(raw_CHW, hue, saturation, value)


def _gain(strength: float, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return rng.uniform(1 / (1 + strength), 1 + strength, count)

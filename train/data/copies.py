"""Augmented copies of whole images and their labels as files, for those who want to see or to send them.

They are changed as samples are while training, and their parts are told in a table, so that no copy of an
image that is trained on is ever validated with. Whoever trains here needs none: samples are drawn anew.
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from tqdm import tqdm

from tiler.errors import InputError, UsageError
from tiler.overlay import png
from tiler.pixels import factors, fill_invalid, fill_values, normalise
from tiler.spec import ModelSpec, default_classes
from train.data.item import Item
from train.data.manifest import write_manifest
from train.data.warp import Planes
from train.writing import writing

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from tiler.geometry import Window
    from train.data.augment import Augment
    from train.data.labelled import Library, Part
    from train.data.survey import Survey

LARGEST: Final = 2**26
"""Pixels of an image that is copied: it is held in memory."""
PARTS: Final = "parts.csv"
FOLDERS: Final = ("images", "labels")


@dataclass(frozen=True, slots=True, eq=False)
class Copier:
    """Changes whole images with their labels: copy ``n`` of image ``i`` depends on (seed, n, i) alone."""

    library: Library
    spec: ModelSpec
    """Mean and deviation of the raw pixels, about which light changes."""
    augment: Augment
    seed: int

    @classmethod
    def of(cls, library: Library, found: Survey, augment: Augment, seed: int) -> Copier:
        """With the mean and deviation of what is trained on."""
        bands = tuple(f"band {number}" for number in range(1, found.moments.bands + 1))
        mean, deviation = (
            tuple(map(float, values)) for values in (found.moments.mean_C, found.moments.deviation)
        )
        classes = default_classes(library.legend.classes)
        return cls(library, ModelSpec(bands, classes, mean=mean, std=deviation), augment, seed)

    def __call__(self, part: Part, copy: int, image: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Raw pixels (C, H, W), and labels (1, H, W): a class, or 255 where it is not known."""
        rng = np.random.default_rng([self.seed, copy, image])
        planes = self._drawn(part, rng)
        lit = planes._replace(pixels_CHW=self.augment.light(planes.pixels_CHW, rng))
        pixels_CHW, target_HW, _ = self.augment.symmetry(lit, rng)
        dtype = self.library.info(part.source).dtype
        return stored(pixels_CHW, self.spec, dtype), target_HW[None].astype(np.uint8)

    def _drawn(self, part: Part, rng: np.random.Generator) -> Planes:
        """All of an image, or of its size the middle of a square sample that is zoomed, turned, bent."""
        inside = part.window
        side = max(inside.shape)
        warp = self.augment.warp(side, rng)
        if warp is None:
            return self._planes(part, inside, rng)
        row, column = rng.integers((inside.top, inside.left), (inside.bottom, inside.right)).tolist()
        warp = warp.moved_inside(inside, (row, column))
        square = warp.apply(self._planes(part, warp.window(inside), rng))
        rows, columns = (slice((side - n) // 2, (side - n) // 2 + n) for n in inside.shape)
        return square._replace(
            pixels_CHW=square.pixels_CHW[:, rows, columns], target_HW=square.target_HW[rows, columns]
        )

    def _planes(self, part: Part, window: Window, rng: np.random.Generator) -> Planes:
        pixels, target_HW = self.library.open(part.source).read(window)
        raw_CHW = self.augment.colour(fill_invalid(pixels, fill_values(self.spec, pixels.raw_CHW.dtype)), rng)
        return Planes(window, normalise(raw_CHW, self.spec), target_HW, np.ones((1, 1), np.float32))


def stored(pixels_CHW: NDArray[np.float32], spec: ModelSpec, dtype: DTypeLike) -> NDArray[Any]:
    """Raw pixels of normalised ones: the inverse of `tiler.pixels.normalise`, within what the type holds."""
    scale_C, shift_C = factors(spec)
    raw_CHW = (pixels_CHW + shift_C[:, None, None]) / scale_C[:, None, None]
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(np.dtype(dtype))
        raw_CHW = np.clip(np.rint(raw_CHW), limits.min, limits.max)
    return np.asarray(raw_CHW.astype(dtype))


def check_free(outdir: Path) -> None:
    """Refuse a folder that is there: copies of copies would be the next step.

    Raises
    ------
    UsageError
        if it is.
    """
    if outdir.exists():
        raise UsageError(f"OUTDIR is a new folder, got {outdir}, which is there; name another")


def write_copies(
    outdir: Path, items: list[Item], parts: tuple[Part, ...], copier: Copier, copies: int
) -> int:
    """Write copies, and a manifest of them and of the originals; all of it or nothing.

    Parameters
    ----------
    outdir
        A folder that is not there yet.
    items
        The originals, each with its part.
    parts
        Of these all that are trained on: whole images.
    copier
        Makes a copy.
    copies
        Of each image.

    Returns
    -------
    int
        How many there are in all.

    Raises
    ------
    InputError
        if two images have one name, or one is too large.
    OutputError
        if they cannot be written.
    """
    _check_images(parts)
    partial = outdir.with_name(f"{outdir.name}.partial")
    with writing(outdir):
        shutil.rmtree(partial, ignore_errors=True)
        for folder in FOLDERS:
            (partial / folder).mkdir(parents=True)
    made = []
    for number, part in enumerate(tqdm(parts, "images", leave=False, disable=None)):  # None: off a terminal
        for copy in range(1, copies + 1):
            planes = zip(FOLDERS, copier(part, copy, number), strict=True)
            name = f"{part.source.image.stem}_{copy}"
            image, labels = (_saved(partial / folder / name, raw_CHW) for folder, raw_CHW in planes)
            made.append(Item(image, str(labels), "train", coding="index"))
    write_manifest(partial / PARTS, [*items, *made])
    with writing(outdir):
        partial.rename(outdir)
    return len(made)


def _check_images(parts: tuple[Part, ...]) -> None:
    for part in parts:
        if part.window.area > LARGEST:
            raise InputError(
                f"an image that is copied has up to {LARGEST:,} pixels, got {part.window.area:,} in "
                f"{part.source.image}; train on it as it is, samples are augmented there"
            )
    (name, count), *_ = Counter(part.source.image.stem for part in parts).most_common(1)
    if count > 1:
        raise InputError(
            f"copies are named after their images, got {count} images called {name}; rename them"
        )


def _saved(stem: Path, raw_CHW: NDArray[Any]) -> Path:
    """As PNG what a picture is, bytes of one or three bands, else as GeoTIFF."""
    bands, height, width = raw_CHW.shape
    picture = raw_CHW.dtype == np.uint8 and bands in {1, 3}
    path = stem.with_name(f"{stem.name}.{'png' if picture else 'tif'}")
    if picture:
        with writing(path):
            path.write_bytes(png(raw_CHW))
        return path
    shape = {"count": bands, "height": height, "width": width, "dtype": raw_CHW.dtype}
    # Else a fourth band of bytes would be taken for alpha.
    profile = {"driver": "GTiff", "compress": "deflate", "photometric": "MINISBLACK", "alpha": "NO"}
    with writing(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **shape, **profile) as dataset:
            dataset.write(raw_CHW)
    return path

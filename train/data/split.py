"""Which data is trained on, which chooses the best epoch, and which is kept unseen for the test.

A large raster is cut by columns, left to right: train, validation, test. Neighbouring pixels look alike, so
parts that were mixed would flatter the score. A folder of images is shuffled and split by whole images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiler.errors import InputError, UsageError
from tiler.geometry import Window
from train.data.labelled import Library, Part, Source
from train.data.maskfile import MaskFile

if TYPE_CHECKING:
    from train.data.options import DataOptions


@dataclass(frozen=True, slots=True)
class Split:
    """All data of a run."""

    train: tuple[Part, ...]
    val: tuple[Part, ...]
    test: tuple[Part, ...]
    """Empty when nothing is kept for it."""

    @property
    def all(self) -> tuple[Part, ...]:
        """The three one after the other."""
        return self.train + self.val + self.test


def split_data(options: DataOptions, library: Library) -> Split:
    """Find the data that the options name, and divide it."""
    train: list[Part] = []
    val: list[Part] = []
    test: list[Part] = []
    for part, into in _divided(options, library):
        {"train": train, "val": val, "test": test}[into].append(part)
    split = Split(tuple(train), tuple(val), tuple(test))
    _check_alike(split, library)
    return split


def _divided(options: DataOptions, library: Library) -> list[tuple[Part, str]]:
    parts = []
    for image, mask in options.pair:
        source = Source(Path(image), MaskFile(Path(mask)), options.view())
        parts += _by_columns(source, library, options)
    if options.images is not None and options.masks is not None:
        joined = _join(Path(options.images), Path(options.masks))
        sources = [Source(image, MaskFile(mask), options.view()) for image, mask in joined]
        parts += _by_images(sources, library, options)
    return parts


def _by_columns(source: Source, library: Library, options: DataOptions) -> list[tuple[Part, str]]:
    info = library.info(source)
    cuts = [
        0,
        *(round(info.width * s) for s in (1 - options.val - options.test, 1 - options.test)),
        info.width,
    ]
    spans = zip(("train", "val", "test"), cuts[:-1], cuts[1:], strict=True)
    found = [(Part(source, Window(0, a, info.height, b)), name) for name, a, b in spans if b > a]
    if len(found) < 2 + (options.test > 0):
        raise InputError(
            f"a raster is wide enough for its parts, got {info.width} columns in {source.image} "
            f"for --val {options.val} --test {options.test}; use a larger raster"
        )
    return found


def _by_images(sources: list[Source], library: Library, options: DataOptions) -> list[tuple[Part, str]]:
    order = np.random.default_rng(options.seed).permutation(len(sources))
    val = max(1, round(len(sources) * options.val))
    test = max(1, round(len(sources) * options.test)) if options.test else 0
    if val + test >= len(sources):
        raise InputError(
            f"a folder holds images for each part, got {len(sources)} with masks in {options.images} "
            f"for --val {options.val} --test {options.test}; add images"
        )
    names = ["val"] * val + ["test"] * test + ["train"] * (len(sources) - val - test)
    return [(_whole(sources[i], library), name) for i, name in zip(order, names, strict=True)]


def _whole(source: Source, library: Library) -> Part:
    info = library.info(source)
    return Part(source, Window(0, 0, info.height, info.width))


def _join(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Each image with its mask, by name; both folders are sorted, so that every machine agrees."""
    for name, folder in (("--images", images), ("--masks", masks)):
        if not folder.is_dir():
            raise UsageError(f"{name} is a folder, got {folder}")
    mask_of = {path.stem.removesuffix("_mask"): path for path in _files(masks)}
    image_of = {
        path.stem: path for path in _files(images) if images != masks or not path.stem.endswith("_mask")
    }
    lonely = sorted(image_of.keys() - mask_of.keys())
    if lonely or not image_of:
        raise InputError(
            f"every image has a mask NAME.* or NAME_mask.* in {masks}, "
            f"got none for {image_of[lonely[0]] if lonely else images}"
        )
    return [(path, mask_of[stem]) for stem, path in image_of.items()]


def _files(folder: Path) -> list[Path]:
    hidden_or_side = (".", "_")
    suffixes = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2"}
    found = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes)
    return [p for p in found if not p.name.startswith(hidden_or_side)]


def _check_alike(split: Split, library: Library) -> None:
    """One network is fed alike by all: bands, type, and size of a pixel on the ground."""
    first = library.info(split.all[0].source)
    for part in split.all:
        info = library.info(part.source)
        if (info.bands, info.dtype) != (first.bands, first.dtype):
            raise InputError(
                f"rasters have the same bands and type, got {first.bands} of {first.dtype} in {first.name} "
                f"and {info.bands} of {info.dtype} in {info.name}; see --bands"
            )
        mine, theirs = (i.ground and sum(i.ground) / 2 for i in (info, first))
        if mine and theirs and abs(mine / theirs - 1) > 0.05:
            raise InputError(
                f"rasters have the same ground resolution, got {theirs:.4g} m in {first.name} "
                f"and {mine:.4g} m in {info.name}; bring them to one with --resolution"
            )

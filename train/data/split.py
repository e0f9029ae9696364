"""Which data is trained on, which chooses the best epoch, and which is kept unseen for the test.

A large raster is cut by columns, left to right: train, validation, test. Neighbouring pixels look alike, so
parts that were mixed would flatter the score. Sets of images are shuffled and split by whole images, but for
those whose part is told: a part that the data names itself is not drawn from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiler.errors import InputError
from tiler.geometry import Window
from train.data.item import ANY, PARTS, Item
from train.data.labelled import Library, Part, Source
from train.data.layouts import find_items, joined
from train.data.manifest import read_manifest

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
    """Find the data that the options name, and divide it.

    Raises
    ------
    InputError
        if it cannot be used together.
    """
    found = []
    for image, mask in options.pair:
        source = Item(Path(image), mask).source(options.view(), options.field)
        found += _by_columns(source, library, options)
    items = divided(whole_images(options), options)
    found += [(_whole(item.source(options.view(), options.field), library), item.part) for item in items]
    _check_apart(found)
    parts = {name: tuple(part for part, into in found if into == name) for name in PARTS}
    for name in ("train", "val"):
        if not parts[name]:
            raise InputError(f"every part but the test has images, got none for {name}; name some")
    split = Split(**parts)
    _check_alike(split, library)
    return split


def whole_images(options: DataOptions) -> list[Item]:
    """All images but the pairs, which are cut, as they lie there."""
    items = []
    for text in (*options.data, *filter(None, [options.manifest])):
        path = Path(text)
        manifest = text == options.manifest or path.suffix.lower() == ".csv"
        items += read_manifest(path) if manifest else find_items(path, options.layout, options.classes)
    if options.images is not None and options.masks is not None:
        items += joined(Path(options.images), Path(options.masks))
    return items


def divided(items: list[Item], options: DataOptions) -> list[Item]:
    """Each with a part; the order in which they were found does not matter beyond their names.

    Raises
    ------
    InputError
        if there are too few.
    """
    told = {item.part for item in items}
    free = [item for item in items if item.part == ANY]
    if not free:
        return items
    val = 0 if "val" in told else max(1, round(len(free) * options.val))
    test = 0 if "test" in told or not options.test else max(1, round(len(free) * options.test))
    if val + test >= len(free):
        raise InputError(
            f"there are images for each part, got {len(free)} with labels "
            f"for --val {options.val} --test {options.test}; add images"
        )
    names = ["val"] * val + ["test"] * test + ["train"] * (len(free) - val - test)
    order = np.random.default_rng(options.seed).permutation(len(free))
    drawn = [replace(free[i], part=name) for i, name in zip(order, names, strict=True)]
    return [item for item in items if item.part != ANY] + drawn


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


def _whole(source: Source, library: Library) -> Part:
    info = library.info(source)
    return Part(source, Window(0, 0, info.height, info.width))


def _check_apart(found: list[tuple[Part, str]]) -> None:
    """Nothing is learnt from that is validated or tested on."""
    seen: dict[Path, list[tuple[Window, str]]] = {}
    for part, into in found:
        others = seen.setdefault(part.source.image.resolve(), [])
        for window, other in others:
            if other != into and window.touches(part.window):
                raise InputError(
                    f"a pixel is in one part, got {part.source.image} in {other} and {into}; name it once"
                )
        others.append((part.window, into))


def _check_alike(split: Split, library: Library) -> None:
    """One network is fed alike by all: bands, type, and size of a pixel on the ground."""
    first = library.info(split.all[0].source)
    for part in split.all:
        info = library.info(part.source)
        if (info.bands, info.dtype) != (first.bands, first.dtype):
            raise InputError(
                f"rasters have the same bands and type, got {first.bands} of {first.dtype} in {first.name} "
                f"and {info.bands} of {info.dtype} in {info.name}; see --bands and --rgb"
            )
        mine, theirs = (i.ground and sum(i.ground) / 2 for i in (info, first))
        if mine and theirs and abs(mine / theirs - 1) > 0.05:
            raise InputError(
                f"rasters have the same ground resolution, got {theirs:.4g} m in {first.name} "
                f"and {mine:.4g} m in {info.name}; bring them to one with --resolution"
            )

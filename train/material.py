"""What a run learns from: its data, found, divided and looked at once, and the crops of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tiler.errors import InputError
from train.data.augment import Augment
from train.data.crops import Crops
from train.data.labelled import Library
from train.data.split import split_data
from train.data.survey import survey
from train.data.weightmap import class_weights

if TYPE_CHECKING:
    from tiler.ports import RasterInfo
    from tiler.spec import ModelSpec
    from train.data.split import Split
    from train.data.survey import Survey
    from train.options import TrainOptions


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What there is to learn from."""

    split: Split
    library: Library

    @property
    def info(self) -> RasterInfo:
        """Of the first raster; the others are like it."""
        return self.library.info(self.split.train[0].source)


def find_data(options: TrainOptions) -> Data:
    """Find and divide the data; no pixel is read.

    Raises
    ------
    InputError
        if it cannot be used together.
    """
    told = options.data_options()
    library = Library(told.legend(), options.sample_options().gaps())
    return Data(split_data(told, library), library)


def look_at(data: Data, options: TrainOptions) -> Survey:
    """Look at all of it once.

    Raises
    ------
    InputError
        if it cannot be trained on as the options say.
    """
    Augment(options.augment_options()).check(data.info)
    found = survey(data.split, data.library, options.classes)
    if options.best_by in options.classes:
        index = options.classes.index(options.best_by)
        if not found.pixels["val"][index]:
            raise InputError(
                f"--best-by is a class of the validation part, got no pixel of {options.best_by!r} in it; "
                "give it more with --val"
            )
    return found


def counted(options: TrainOptions, split: Split) -> TrainOptions:
    """With a number of crops per epoch: as many as cover the training part, if none is told."""
    if options.crops_per_epoch:
        return options
    area = sum(part.window.area for part in split.train)
    return replace(options, crops_per_epoch=math.ceil(area / (options.crop - 2 * options.margin) ** 2))


def new_crops(options: TrainOptions, spec: ModelSpec, data: Data, found: Survey) -> Crops:
    """What is learnt from."""
    pixels_K = found.pixels["train"]
    return Crops(
        data.split.train,
        data.library,
        spec,
        options.crop,
        options.seed,
        Augment(options.augment_options()),
        class_weights(pixels_K) if options.weigh_classes else (),
        options.balance,
        found.classes,
        options.margin,
    )


def data_summary(split: Split, found: Survey, options: TrainOptions) -> str:
    """One line per part: how much there is, and of what."""
    lines = []
    for name, counts_K in found.pixels.items():
        area = sum(part.window.area for part in getattr(split, name))
        if not area:
            continue  # there need not be a test part
        # Classes that may overlap are shares of all pixels, others of those whose class is known.
        known = counts_K.sum()
        whole, told = (area, "") if options.independent else (max(known, 1), f", labelled {known / area:.0%}")
        share = ", ".join(f"{c} {n / whole:.1%}" for c, n in zip(options.classes, counts_K, strict=True))
        lines.append(f"{name:5} {area / 1e6:8.2f} Mpx{told}: {share}")
    absent = [c for c, n in zip(options.classes, found.pixels["train"], strict=True) if not n]
    lines += [f"no pixel of {name!r} to train on: the network will not know it" for name in absent]
    return "\n".join(lines)

"""The options of `DataOptions` on the command line, declared once for every command that reads labels."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

import click

from tiler.cli.options import BANDS, NAMES, NUMBERS
from train.data.options import LAYOUTS, AugmentOptions, DataOptions, SampleOptions

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = {
    f.name: f.default
    for options in (DataOptions, SampleOptions, AugmentOptions)
    for f in fields(options)
    if f.default is not MISSING
}
CLASSES = click.option(
    "--classes", metavar="NAME,NAME", type=NAMES, help="Names of the classes 0, 1, ...; 255 is not known."
)


def _option(name: str, text: str, **more: Any) -> Callable[..., Any]:  # noqa: ANN401 - as click has it
    default = DEFAULT[name.replace("-", "_")]
    shown = isinstance(default, (int, float)) and not isinstance(default, bool)
    return click.option(f"--{name}", default=default, show_default=shown, help=text, **more)


DATA = (
    click.option(
        "--pair", nargs=2, multiple=True, metavar="RASTER LABELS", help="A raster and its labels; repeatable."
    ),
    _option("images", "Folder of images, each one a whole.", metavar="DIR"),
    _option("masks", "Folder of their labels: NAME.* or NAME_mask.*.", metavar="DIR"),
    _option("manifest", "Table of the columns image, mask, part.", metavar="FILE.csv"),
    _option("layout", "Of the data sets  [default: told by what they hold]", type=click.Choice(LAYOUTS)),
    _option(
        "coding",
        "What values, colours or names mean, see `tiler labels -h`  [default: index]",
        metavar="TEXT",
    ),
    _option("independent", "Classes may overlap: a yes or no for each.", is_flag=True),
    _option("field", "Attribute of polygons that tells the class.", metavar="NAME"),
    _option("outside", "Class of what is in no polygon, or ignore  [default: the first]", metavar="CLASS"),
    _option("bands", "Band numbers, from 1  [default: all but alpha]", metavar="N,N..", type=BANDS),
    _option("rgb", "Grey images become three equal bands.", is_flag=True),
    _option("nodata", "Value of pixels without data  [default: the file's]", type=float),
    _option("resolution", "Metres per pixel  [default: the rasters' own]", type=float),
    _option("mpp", "Micrometres per pixel of slides  [default: level 0]", type=float),
    _option("resize", "A scale, stretch:W[xH] or letterbox:W[xH].", metavar="HOW"),
    _option("val", "Share of the data that chooses the best epoch.", type=float),
    _option("test", "Share of the data kept unseen for the end.", type=float),
    _option("seed", "Of everything random.", type=int),
)
"""All but the data sets and the classes, which commands ask for in ways of their own."""


SAMPLES = (
    _option("balance", "Share of samples around a pixel of a class drawn evenly.", type=float),
    _option("border-weight", "Added to pixels in gaps between objects; 10 is usual.", type=float),
    _option("border-sigma", "Width of such gaps, pixels.", type=float),
    _option("weigh-classes", "Classes count alike, however frequent.", is_flag=True),
)
AUGMENT = (
    _option("flip-horizontal", "Probability.", type=float),
    _option("flip-vertical", "Probability.", type=float),
    _option("quarter-turns", "Probability of a turn by any of four angles.", type=float),
    _option("zoom", "Range of the magnification, e.g. 0.5,1.2  [default: 1,1]", type=NUMBERS),
    _option("aspect", "Change of height against width, below 1.", type=float),
    _option("rotate", "Largest angle, degrees.", type=float),
    _option("shift", "Largest shift, share of the side.", type=float),
    _option("elastic", "Deviation of a bent grid's nodes, pixels.", type=float),
    _option("hue", "Largest change, turns of the colour wheel.", type=float),
    _option("saturation", "Largest change, share.", type=float),
    _option("value", "Largest change, share.", type=float),
    _option("contrast", "Largest change, share.", type=float),
    _option("brightness", "Largest change, deviations.", type=float),
    _option("band-contrast", "Contrast of each band by itself.", type=float),
    _option("band-brightness", "Deviation of a cast of colour.", type=float),
    _option("noise", "Deviation of each pixel's noise.", type=float),
    _option("shuffle-bands", "Probability of any order of the bands.", type=float),
)
"""Each is off at 0."""


def data_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options `DATA`, in this order."""
    for option in reversed(DATA):
        command = option(command)
    return command

"""``tiler picture``: a map drawn on its image, as other systems draw what they predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tiler.cli.options import BANDS, NAMES
from tiler.errors import InputError, OutputError, UsageError
from train.report.palette import PALETTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tiler.ports import Raster
    from tiler.vector.labels import Labels

FILE = click.Path(path_type=Path)
KINDS: Final = ("overlay", "mask", "cutout")
ALIKE: Final = 0.01
"""Share by which height to width may differ between a map and its image: one may be resampled."""


@click.command()
@click.argument("image", type=FILE)
@click.argument("labels", metavar="MAP", type=FILE)
@click.argument("destination", metavar="OUT.png", type=FILE)
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True, help="What to draw.")
@click.option(
    "--longest",
    type=click.IntRange(1, 16384),
    default=2000,
    show_default=True,
    metavar="PX",
    help="Pixels of its longer side at most.",
)
@click.option("--palette", type=click.Choice(PALETTES), default="own", show_default=True, help="Colours.")
@click.option("--bands", type=BANDS, metavar="N,N,N", help="Of IMAGE, for red, green and blue.")
@click.option("--classes", type=NAMES, metavar="A,B..", help="Names by number, where MAP does not say.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.png.")
def picture(
    image: Path,
    labels: Path,
    destination: Path,
    kind: str,
    longest: int,
    palette: str,
    bands: tuple[int, ...] | None,
    classes: tuple[str, ...] | None,
    overwrite: bool,
) -> None:
    """Draw a map on the image that it was made of.

    `overlay` tints and outlines the classes, `mask` has their colours alone, `cutout` the image where there
    is another class than the first, on black.
    """
    from dataclasses import replace

    from tiler.durable import write_whole
    from tiler.open import open_coarse
    from tiler.overlay import png
    from tiler.vector.labels import open_labels_file
    from train.report.palette import colored

    if destination.suffix.lower() != ".png":
        raise UsageError(f"a picture is called .png, got {destination}")
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination} is there already; name another, or give --overwrite")
    found = open_labels_file(labels, classes)
    found = replace(found, classes=colored(found.classes, palette))
    share = min(1.0, longest / max(found.info.height, found.info.width))
    height, width = (max(1, round(side * share)) for side in (found.info.height, found.info.width))
    seen = open_coarse(image, height, width, bands=bands, colours=True)
    content = png(drawn(seen, found, kind, height, width))
    try:
        write_whole(destination, content)
    except OSError as error:
        raise OutputError(f"cannot write {destination}: {error.strerror}; name another") from None


def drawn(image: Raster, labels: Labels, kind: str, height: int, width: int) -> NDArray[np.uint8]:
    """Red, green and blue (3, H, W) of that size.

    Raises
    ------
    InputError
        if the map is not of the image, or does not say what it shows.
    """
    from tiler.geometry import Window
    from tiler.readers.resampled import ResampledRaster, resampled_info
    from train.report.pictures import cut_out, mask, overlay, photo

    _check(image, labels)
    labels_QHW = _small(labels, height, width)
    if kind == "mask":
        return mask(labels_QHW, labels.classes)
    small = ResampledRaster(image, resampled_info(image.info, height, width, image.info.name))
    photo_3HW = photo(small.read(Window(0, 0, height, width)))
    return (overlay if kind == "overlay" else cut_out)(photo_3HW, labels_QHW, labels.classes)


def _check(image: Raster, labels: Labels) -> None:
    info, of_image = labels.info, image.info
    if abs(info.height * of_image.width / (info.width * of_image.height) - 1) > ALIKE:
        raise InputError(
            f"a map has the extent of its image, got {labels.path} of {info.width} x {info.height} px and "
            f"{of_image.name} of {of_image.width} x {of_image.height} px; give the image that it was made of"
        )
    if info.dtype.itemsize > 1:
        raise InputError(f"a map that is drawn has classes of a byte, got {info.dtype} in {labels.path}")
    if not labels.classes:
        raise InputError(f"{labels.path} does not name its classes; give --classes")


def _small(labels: Labels, height: int, width: int) -> NDArray[np.uint8]:
    """The labels under the centres of a picture's pixels, (Q, H, W); 255 where none is valid."""
    from dataclasses import replace

    import numpy as np

    from tiler.geometry import Window, nearest
    from tiler.kernels import NODATA
    from tiler.readers.gdal import GdalRaster
    from tiler.readers.resampled import NearestRaster
    from tiler.readers.source import LABEL_DTYPES, Source

    info = replace(labels.info, height=height, width=width)
    rows, columns = nearest(height, labels.info.height), nearest(width, labels.info.width)
    raster = GdalRaster(Source(labels.path, dtypes=LABEL_DTYPES))
    pixels = NearestRaster(raster, rows, columns, info).read(Window(0, 0, height, width))
    return np.where(pixels.valid_HW, pixels.raw_CHW, NODATA).astype(np.uint8)

"""Small labelled rasters for the tests of training and export."""

from __future__ import annotations

import csv

import numpy as np
import rasterio
from rasterio.transform import from_origin

SMALL = {
    "classes": ("background", "building"),
    "depth": 1,
    "width": 4,
    "crop": 32,
    "lr": 0.02,
    "device": "cpu",
    "threads": 1,
    "report": False,
}
"""Options of a run of a second."""
PLACE = {"crs": "EPSG:32737", "transform": from_origin(500_000, 9_300_000, 0.5, 0.5)}
"""In UTM, half a metre per pixel."""


def write(path, raw_CHW, **profile):
    """A raster file; the format is that of its name."""
    bands, height, width = raw_CHW.shape
    driver = {".png": "PNG", ".tif": "GTiff", ".jpg": "JPEG"}[path.suffix]
    shape = {"count": bands, "height": height, "width": width, "dtype": raw_CHW.dtype}
    with rasterio.open(path, "w", driver=driver, **shape, **profile) as dataset:
        dataset.write(raw_CHW)
    return path


def blocks(height, width, seed=0):
    """Dark noise (3 bands, uint8) with bright squares, and the mask of the squares (1 band, 0 and 1)."""
    rng = np.random.default_rng(seed)
    mask_HW = np.zeros((height, width), np.uint8)
    for top in range(4, height - 8, 16):
        for left in range(4, width - 8, 16):
            if rng.random() < 0.6:
                mask_HW[top : top + 8, left : left + 8] = 1
    raw_CHW = rng.integers(20, 90, (3, height, width)) + 100 * mask_HW
    return raw_CHW.astype(np.uint8), mask_HW[None]


def write_pair(folder, height=64, width=200, **place):
    """``raster.tif`` and ``mask.tif`` in a folder, georeferenced unless told otherwise."""
    raw_CHW, mask_1HW = blocks(height, width)
    place = place or PLACE
    return write(folder / "raster.tif", raw_CHW, **place), write(folder / "mask.tif", mask_1HW, **place)


def write_images(folder, sizes):
    """``images/`` and ``masks/`` of PNG pictures of these (height, width), without georeferencing."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i, (height, width) in enumerate(sizes):
        raw_CHW, mask_1HW = blocks(height, width, seed=i)
        write(folder / "images" / f"{i}.png", raw_CHW)
        write(folder / "masks" / f"{i}.png", mask_1HW)
    return folder / "images", folder / "masks"


def five_pictures(folder, side):
    """Three to train on, one that chooses, one for the end, as options."""
    images, masks = write_images(folder, [(side, side)] * 5)
    return {"images": str(images), "masks": str(masks), "val": 0.2, "test": 0.2}


def read_log(outdir):
    """Rows of a run's log.csv."""
    with (outdir / "log.csv").open() as file:
        return list(csv.DictReader(file))


def flags(told):
    """Options as words of the command line."""
    words = []
    for key, value in told.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words

"""An archive of sixty mixed rasters, eight of which cannot be segmented, each for a reason of its own."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

import slides
from conftest import DATA
from rasters import write_raster

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD = 52, 8
KINDS = (
    {"tiled": True, "blockxsize": 64, "blockysize": 64},
    {"compress": "deflate", "predictor": 2},
    {"tiled": True, "compress": "jpeg", "photometric": "ycbcr", "blockxsize": 64, "blockysize": 64},
    {"compress": "lzw", "nodata": 0},
    {"compress": "zstd", "interleave": "band"},
)
REASONS = {
    "bad/bands.tif": "the model takes 3 bands",
    "bad/cut.tif": "cut.tif",
    "bad/empty.tif": "not recognized",
    "bad/flipped.tif": "is damaged at",
    "bad/header.tif": "not recognized",
    "bad/no_mpp.svs": "--assume-mpp",
    "bad/picture.png": "is damaged at",
    "bad/text.tif": "not recognized",
}
"""Words of the reason for which each of the bad ones fails."""


def make_archive(folder: Path) -> Path:
    """Real and made rasters in three folders."""
    for name in ("scenes", "real", "bad"):
        (folder / name).mkdir(parents=True)
    real = [*sorted(DATA.glob("*.tif*"))]
    for path in real:
        shutil.copy(path, folder / "real")
    slides.aperio(folder / "real" / "slide.svs", slides.pyramid(slides.textured(480, 720)))
    for number in range(GOOD - len(real) - 1):
        _scene(folder / "scenes", number)
    _bad(folder / "bad")
    return folder


def noise(seed: int, height: int = 150, width: int = 190, bands: int = 3, dtype=np.uint8) -> np.ndarray:
    """Blotches, as (bands, rows, columns)."""
    return slides.textured(height, width, seed).transpose(2, 0, 1)[:bands].astype(dtype)


def _scene(folder: Path, number: int) -> None:
    raw_CHW = noise(number, height=140 + number, width=260 - number)
    if number % 10 == 9:
        write(folder / f"{number:02}.png", raw_CHW, driver="PNG")
    elif number % 10 == 8:
        write(folder / f"{number:02}.jpg", raw_CHW, driver="JPEG")
    else:
        kind = KINDS[number % len(KINDS)]
        write(folder / f"{number:02}.tif", raw_CHW, **kind)


def write(path: Path, raw_CHW, driver="GTiff", **more) -> Path:
    """A raster with a place on the ground, if its format has room for it."""
    if driver == "GTiff":
        more = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9), **more}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return write_raster(path, raw_CHW, driver=driver, **more)


def _bad(folder: Path) -> None:
    write(folder / "bands.tif", noise(0, bands=1))
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("<h1>404 Not Found</h1>\n" * 50)
    slides.aperio(folder / "no_mpp.svs", slides.pyramid(slides.textured(480, 720)), mpp=None)
    _spoil(write(folder / "cut.tif", noise(1), tiled=True, blockxsize=64, blockysize=64), cut=0.6)
    _spoil(write(folder / "header.tif", noise(2)), at=0, by=b"\x13\x57" * 8)
    _spoil(write(folder / "flipped.tif", noise(3), **KINDS[2]), at=0.7, by=b"\xff\xd9" * 40)
    _spoil(write(folder / "picture.png", noise(4), driver="PNG"), cut=0.5)


def _spoil(path: Path, cut: float = 1, at: float = 0, by: bytes = b"") -> None:
    """Cut a file to a share of its length; overwrite bytes of it from another on."""
    content = path.read_bytes()
    start = int(at * len(content))
    spoilt = content[:start] + by + content[start + len(by) :]
    path.write_bytes(spoilt[: int(cut * len(content))])

"""Damaged rasters, through the command line: refused, stopped at and named, or made nodata and listed.

Never silent background. What no format can tell is left out on purpose: TIFF has no checksums, so a flipped
bit in stored, LZW or zstd pixels is a pixel of another value. Deflate has one, and we compare it.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import threading
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

import networks
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.damage import DamageLog
from tiler.errors import DamageError, InputError
from tiler.geometry import Window
from tiler.open import open_raster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
HEIGHT, WIDTH, BLOCK = 300, 340, 64
TILED = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
JP2_TILES = {"blockxsize": 128, "blockysize": 128}
FORMATS = {
    "stored": TILED,
    "deflate": {**TILED, "compress": "deflate"},
    "lzw": {**TILED, "compress": "lzw"},
    "zstd": {**TILED, "compress": "zstd"},
    "jpeg": {**TILED, "compress": "jpeg", "photometric": "ycbcr"},
    "jpeg strips": {"driver": "GTiff", "compress": "jpeg", "blockysize": 32},
    "planes": {**TILED, "compress": "deflate", "interleave": "band"},
    "cog": {"driver": "COG", "compress": "deflate", "blocksize": 128},
    "jp2": {
        "driver": "JP2OpenJPEG",
        "QUALITY": 100,
        "REVERSIBLE": "YES",
        "blockxsize": 128,
        "blockysize": 128,
    },
    "png": {"driver": "PNG"},
    "jpg": {"driver": "JPEG"},
}
SEQUENTIAL = ("png", "jpg")
CHECKED = ("deflate", "planes", "cog")


def cut(share):
    return lambda content: content[: int(len(content) * share) if share < 1 else share]


def overwrite(length, value=0, at=0.5):
    """Bytes in the middle of the pixels."""

    def change(content):
        start = int(len(content) * at)
        return content[:start] + bytes([value]) * length + content[start + length :]

    return change


def flip(seed):
    """Sixteen bits in the second half, where the pixels are."""

    def change(content):
        changed = bytearray(content)
        for place in np.random.default_rng(seed).integers(len(content) // 2, len(content) * 9 // 10, 16):
            changed[place] ^= 1 << int(place) % 8
        return bytes(changed)

    return change


def directory(content) -> int:
    return struct.unpack_from("<I", content, 4)[0]


def endless(content):
    """The first directory names itself as the next one."""
    start = directory(content)
    entries = struct.unpack_from("<H", content, start)[0]
    changed = bytearray(content)
    struct.pack_into("<I", changed, start + 2 + 12 * entries, start)
    return bytes(changed)


def huge(content):
    """The header says two thousand million pixels each way."""
    start = directory(content)
    changed = bytearray(content)
    for i in range(struct.unpack_from("<H", content, start)[0]):
        entry = start + 2 + 12 * i
        if struct.unpack_from("<H", content, entry)[0] in {256, 257}:
            struct.pack_into(
                "<HHII", changed, entry, *struct.unpack_from("<H", content, entry), 4, 1, 2**31 - 9
            )
    return bytes(changed)


HARMS = {
    "1 kB": cut(1000),
    "50 %": cut(0.5),
    "90 %": cut(0.9),
    "99 %": cut(0.99),
    "empty": cut(0.0),
    "zeros": overwrite(400),
    "4 kB of zeros": overwrite(4096),
    "0x55": overwrite(400, 0x55),
    "ones at the end": overwrite(1000, 0xFF, 0.85),
    **{f"flips {seed}": flip(seed) for seed in range(4)},
}
HEADERS = {"endless": endless, "huge": huge}
CASES = [(form, harm) for form in FORMATS for harm in HARMS] + [
    (form, harm) for form in ("stored", "deflate", "jpeg", "jpeg strips") for harm in HEADERS
]


@cache
def pixels():
    """A smooth scene: compressible, and different everywhere."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 9, (3, HEIGHT, WIDTH))
    return (np.stack([rows % 229, columns % 233, (rows + columns) % 227]) + 1 + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A sound file of each format, a network that looks at one pixel at a time, and the map of each."""
    folder = tmp_path_factory.mktemp("good")
    networks.pixelwise(folder / "net.onnx")
    here = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9)}
    size = {"count": 3, "height": HEIGHT, "width": WIDTH, "dtype": "uint8"}
    with rasterio.open(folder / "plain.tif", "w", driver="GTiff", **size, **here) as plain:
        plain.write(pixels())
    for name, profile in FORMATS.items():
        rasterio.shutil.copy(folder / "plain.tif", folder / name, **profile)
        assert run(folder / name, folder, folder / f"{name}.map.tif") == 0
    for path in folder.glob("*.aux.xml"):
        path.unlink()
    return folder


def run(source, folder, output, *more) -> int:
    arguments = ["segment", source, folder / "net.onnx", output, "--quiet", *more]
    return run_command(command, [str(a) for a in arguments])


def labels(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def window_of(text) -> Window:
    top, bottom, left, right = map(int, re.search(r"rows (\d+):(\d+), columns (\d+):(\d+)", text).groups())
    return Window(top, left, bottom, right)


def certain(form, harm) -> bool:
    """Whether it cannot be missed: bytes are not there, or a checksum covers them."""
    return harm.endswith((" %", " kB", "empty")) or (form in CHECKED and harm not in HEADERS)


@pytest.mark.parametrize(("form", "harm"), CASES, ids=lambda value: value)
@pytest.mark.parametrize("mode", ["fail", "nodata"])
def test_damage(good, tmp_path, capsys, form, harm, mode):
    """Refused when it is opened (2), or found while it is read (1): one line, and never a wrong pixel."""
    source, output = tmp_path / "scene", tmp_path / "out.tif"
    source.write_bytes({**HARMS, **HEADERS}[harm]((good / form).read_bytes()))
    code = run(source, good, output, "--on-error", mode)
    out, err = capsys.readouterr()
    assert out == ""
    assert code in {0, 1, 2}
    if code:
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
    expected_HW = labels(good / f"{form}.map.tif")
    left = {path.name for path in tmp_path.iterdir()} - {"scene"}
    if code == 2:
        assert left == set()
    elif code == 0:
        assert not certain(form, harm)
        assert (labels(output) != 255).all()
    elif mode == "fail" or form in SEQUENTIAL:
        assert left == {"out.tif.run"}
        assert window_of(err).height <= HEIGHT
        assert "restore the file" in err
    else:
        assert left == {"out.tif", "out.report.json", "out.config.toml", "out.qml"}
        assert "are nodata in" in err
        report = json.loads((tmp_path / "out.report.json").read_text())
        check_map(labels(output), expected_HW, report, certain(form, harm))


def check_map(labels_HW, expected_HW, report, comparable):
    """Nodata exactly where the report says; elsewhere as without damage, where that can be known."""
    damaged_HW = np.zeros(labels_HW.shape, bool)
    for entry in report["damaged"]:
        assert entry["reason"]
        damaged_HW[window_of(entry["window"]).slices] = True
    np.testing.assert_array_equal(labels_HW == 255, damaged_HW)
    assert report["valid_pixels"] == (~damaged_HW).sum()
    if comparable:
        np.testing.assert_array_equal(labels_HW[~damaged_HW], expected_HW[~damaged_HW])


@pytest.mark.parametrize("form", ["deflate", "jpeg", "jpeg strips", "planes", "cog", "jp2"])
def test_most_of_it_is_found_while_reading(good, tmp_path, form):
    """Else the cases above would show little: of a file cut at 90 % most is there, and is mapped."""
    content = (good / form).read_bytes()
    harm = "90 %" if form in {"cog", "jp2"} else "4 kB of zeros"
    (tmp_path / "scene").write_bytes(HARMS[harm](content))
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", "--on-error", "nodata") == 1
    share = (labels(tmp_path / "out.tif") == 255).mean()
    assert 0 < share < 0.5


@pytest.mark.parametrize("form", ["deflate", "jpeg", "planes", "cog"])
@pytest.mark.parametrize("options", [[], ["--tile", "48"], ["--tile", "200", "--batch", "3"]])
def test_the_map_of_a_damaged_file_does_not_depend_on_the_tiles(good, tmp_path, form, options):
    """Nor on the order in which damage was met: the file's own blocks are the unit."""
    (tmp_path / "scene").write_bytes(HARMS["4 kB of zeros"]((good / form).read_bytes()))
    for name, more in (("a", []), ("b", options)):
        assert run(tmp_path / "scene", good, tmp_path / f"{name}.tif", "--on-error", "nodata", *more) == 1
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    a, b = (json.loads((tmp_path / f"{n}.report.json").read_text())["damaged"] for n in "ab")
    assert a == b


def test_a_damaged_overview_is_reported_in_pixels_of_the_file(good, tmp_path):
    """What is read at half the resolution comes from the overview."""
    with rasterio.open(good / "cog") as dataset:
        assert dataset.overviews(1)[0] == 2
    content = bytearray((good / "cog").read_bytes())
    # Overviews lie before the full resolution.
    content[30_000:34_000] = bytes(4_000)
    (tmp_path / "scene").write_bytes(content)
    half = ["--resolution", "2", "--on-error", "nodata"]
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", *half) == 1
    report = json.loads((tmp_path / "out.report.json").read_text())
    damaged_HW = np.zeros((HEIGHT, WIDTH), bool)
    for entry in report["damaged"]:
        damaged_HW[window_of(entry["window"]).slices] = True
    np.testing.assert_array_equal(labels(tmp_path / "out.tif") == 255, damaged_HW[::2, ::2])
    assert run(tmp_path / "scene", good, tmp_path / "source.tif", *half, "--grid", "source") == 1
    np.testing.assert_array_equal(labels(tmp_path / "source.tif") == 255, damaged_HW)


def test_from_fail_to_nodata_without_computing_again(good, tmp_path, capsys, monkeypatch):
    """The run that stopped at the damage is carried on; the other way round it stops at once."""
    monkeypatch.setattr("tiler.planning.BLOCK", 64)
    (tmp_path / "scene").write_bytes(HARMS["4 kB of zeros"]((good / "deflate").read_bytes()))
    options = ["--tile", "64", "--batch", "1"]
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", *options) == 1
    first = window_of(capsys.readouterr().err)
    kept = sum(1 for p in (tmp_path / "out.tif.run" / "blocks" / "c").rglob("*") if p.is_file())
    assert kept > 0
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", *options, "--on-error", "nodata") == 1
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["blocks_computed"] == report["blocks"] - kept
    assert str(first) in [entry["window"] for entry in report["damaged"]]
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", *options, "--on-error", "nodata") == 1
    assert "are nodata in" in capsys.readouterr().err


def test_damage_is_known_after_a_resume(good, tmp_path, monkeypatch):
    """Also that of blocks which an earlier process stored."""
    monkeypatch.setattr("tiler.planning.BLOCK", 64)
    (tmp_path / "scene").write_bytes(HARMS["4 kB of zeros"]((good / "deflate").read_bytes()))
    options = ["--tile", "64", "--batch", "1", "--on-error", "nodata"]
    assert run(tmp_path / "scene", good, tmp_path / "whole.tif", *options) == 1
    for shard in ("2/3", "3/3"):
        assert run(tmp_path / "scene", good, tmp_path / "out.tif", *options, "--shard", shard) == 0
    assert (tmp_path / "out.tif.run").exists()
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", *options, "--shard", "1/3") == 1
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    a, b = (json.loads((tmp_path / f"{n}.report.json").read_text())["damaged"] for n in ("whole", "out"))
    assert a == b


def test_a_run_of_damaged_blocks_is_not_carried_on_with_fail(good, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tiler.planning.BLOCK", 64)
    (tmp_path / "scene").write_bytes(HARMS["4 kB of zeros"]((good / "deflate").read_bytes()))
    for shard in ("1/2", "2/2"):
        capsys.readouterr()
        code = run(tmp_path / "scene", good, tmp_path / "out.tif", "--shard", shard, "--on-error", "nodata")
        if code == 0:
            assert run(tmp_path / "scene", good, tmp_path / "out.tif") == 1
            assert "damaged at rows" in capsys.readouterr().err
    assert code == 1


@pytest.mark.parametrize("form", ["deflate", "jpeg", "stored"])
def test_a_file_that_vanishes_while_it_is_read(good, tmp_path, form):
    """Or is cut short by somebody else: damage, not a crash."""
    shutil.copy(good / form, tmp_path / "scene")
    raster = open_raster(tmp_path / "scene")
    raster.read(Window(0, 0, 10, 10))
    with (tmp_path / "scene").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DamageError, match="restore the file"):
        raster.read(Window(0, 0, HEIGHT, WIDTH))
    (tmp_path / "scene").unlink()
    with pytest.raises(DamageError, match="no such file"):
        raster.read(Window(0, 0, HEIGHT, WIDTH))


def test_a_failure_that_does_not_repeat_is_none(good, monkeypatch):
    """The disk had a bad moment: nothing is lost."""
    from tiler.readers.gdal import GdalRaster, UnreadableError

    real, left = GdalRaster.read_once, [1]

    def moody(self, window):
        if left and left.pop():
            raise UnreadableError("input/output error")
        return real(self, window)

    monkeypatch.setattr(GdalRaster, "read_once", moody)
    log = DamageLog()
    raster = open_raster(good / "deflate", damage=log)
    np.testing.assert_array_equal(raster.read(Window(0, 0, HEIGHT, WIDTH)).raw_CHW, pixels())
    assert log.found == ()


def test_no_memory_is_no_damage(good, monkeypatch):
    """It goes to whoever can make the tiles smaller."""
    from rasterio._err import CPLE_OutOfMemoryError
    from rasterio.errors import RasterioIOError

    from tiler.readers.gdal import GdalRaster

    class Full:
        def read(self, *_, **__):
            raise RasterioIOError("Read failed") from CPLE_OutOfMemoryError(3, 2, "cannot allocate 9 GB")

    monkeypatch.setattr(GdalRaster, "_dataset", lambda self: Full())
    with pytest.raises(MemoryError, match="cannot allocate"):
        open_raster(good / "deflate", damage=DamageLog()).read(Window(0, 0, 9, 9))


def test_reading_leaves_nothing_beside_the_file(good, tmp_path):
    """No statistics, no sidecars."""
    for form in FORMATS:
        shutil.copy(good / form, tmp_path / form)
        open_raster(tmp_path / form).read(Window(0, 0, HEIGHT, WIDTH))
    assert {path.name for path in tmp_path.iterdir()} == set(FORMATS)


@pytest.mark.parametrize("form", CHECKED)
def test_not_one_wrong_byte_in_deflated_blocks(good, tmp_path, form):
    """What libtiff lets through, the Adler-32 of the block gives away: any bit of any block."""
    content = (good / form).read_bytes()
    with rasterio.open(good / form) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
        size = int(dataset.get_tag_item("BLOCK_SIZE_1_1", "TIFF", bidx=1))
    for i in range(0, size, 199):
        changed = bytearray(content)
        changed[start + i] ^= 1 << i % 8
        (tmp_path / "scene").write_bytes(changed)
        with pytest.raises(DamageError):
            open_raster(tmp_path / "scene").read(Window(0, 0, HEIGHT, WIDTH))


def test_damage_that_only_the_finest_pixels_have(good, tmp_path):
    """The network reads a sound overview; the map on the source's own grid has nodata there, and says so."""
    with rasterio.open(good / "cog") as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray((good / "cog").read_bytes())
    content[start + 100 : start + 500] = bytes(400)
    (tmp_path / "scene").write_bytes(content)
    options = ["--resolution", "2", "--grid", "source", "--on-error", "nodata"]
    assert run(tmp_path / "scene", good, tmp_path / "out.tif", *options) == 1
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert [entry["window"] for entry in report["damaged"]] == ["rows 128:256, columns 128:256"]
    assert (labels(tmp_path / "out.tif") == 255).sum() == 128 * 128


def test_overviews_in_a_file_of_their_own(good, tmp_path):
    """Their blocks are not where the main file's are."""
    shutil.copy(good / "deflate", tmp_path / "scene.tif")
    settings = rasterio.Env(TIFF_USE_OVR="YES", COMPRESS_OVERVIEW="DEFLATE")
    with settings, rasterio.open(tmp_path / "scene.tif", "r+") as dataset:
        dataset.build_overviews([2], rasterio.enums.Resampling.average)
    assert (tmp_path / "scene.tif.ovr").exists()
    assert run(tmp_path / "scene.tif", good, tmp_path / "out.tif", "--resolution", "2") == 0


@pytest.mark.parametrize("tiling", [(1024, 1024), (300, 700), (2048, 1500)])
def test_a_jpeg_2000_of_many_blocks(tmp_path, tiling):
    """GDAL decodes several of them in threads, whose errors it loses; not for us."""
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(1, 255, (1, 2048, 1500), np.uint8)
    size = {"count": 1, "height": 2048, "width": 1500, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **size) as dataset:
        dataset.write(raw_CHW)
    tiles = {"blockxsize": 256, "blockysize": 256}
    options = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "yes", **tiles}
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.jp2", **options)
    content = (tmp_path / "a.jp2").read_bytes()
    (tmp_path / "cut.jp2").write_bytes(content[: len(content) * 6 // 10])
    log = DamageLog()
    raster = open_raster(tmp_path / "cut.jp2", damage=log)
    for top in range(0, 2048, tiling[0]):
        for left in range(0, 1500, tiling[1]):
            window = Window(top, left, min(top + tiling[0], 2048), min(left + tiling[1], 1500))
            pixels_here = raster.read(window)
            same_HW = pixels_here.raw_CHW[0] == raw_CHW[0][window.slices]
            assert same_HW[pixels_here.valid_HW].all()
    assert log.found


@pytest.mark.parametrize("compress", ["deflate", "lzw"])
def test_a_tall_strip_is_one_block(tmp_path, compress):
    """GDAL shows it as rows, but none of them can be trusted after damage in one."""
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(0, 4, (3, 2500, 200), np.uint8)
    size = {"count": 3, "height": 2500, "width": 200, "dtype": "uint8"}
    options = {"driver": "GTiff", "blockysize": 2500, "compress": compress, **size}
    with rasterio.open(tmp_path / "a.tif", "w", **options) as dataset:
        dataset.write(raw_CHW)
    np.testing.assert_array_equal(
        open_raster(tmp_path / "a.tif").read(Window(0, 0, 2500, 200)).raw_CHW, raw_CHW
    )
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    (tmp_path / "bad.tif").write_bytes(content)
    for log in (None, DamageLog()):
        raster = open_raster(tmp_path / "bad.tif", damage=log)
        with pytest.raises(DamageError, match="one-strip TIFF cannot be read"):
            [raster.read(Window(top, 0, top + 100, 200)) for top in range(2400, -1, -100)]


def test_a_block_that_inflates_without_end_takes_no_memory(tmp_path):
    """A bomb of 1 GB in 1 MB is looked at in pieces."""
    import io
    import tracemalloc
    import zlib

    from tiler.readers.checksum import _inflated

    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    tracemalloc.start()
    assert _inflated(io.BytesIO(bomb), len(bomb)) == ""
    assert _inflated(io.BytesIO(bomb), len(bomb) - 9) == "the block is cut short"
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("harm", ["disabled", "level", "disable"])
def test_a_program_that_silences_logging_hears_of_damage(good, tmp_path, harm):
    """Or is refused, where it has silenced everything."""
    import logging

    from tiler.errors import UsageError

    (tmp_path / "scene").write_bytes(HARMS["zeros"]((good / "jpeg strips").read_bytes()))
    log = logging.getLogger("rasterio._err")
    try:
        log.disabled = harm == "disabled"
        if harm == "level":
            log.setLevel(logging.CRITICAL)
        logging.disable(logging.ERROR if harm == "disable" else logging.NOTSET)
        with pytest.raises(UsageError if harm == "disable" else DamageError):
            open_raster(tmp_path / "scene").read(Window(0, 0, HEIGHT, WIDTH))
    finally:
        log.disabled = False
        log.setLevel(logging.NOTSET)
        logging.disable(logging.NOTSET)


def test_threads_that_read_beside_do_not_hide_damage(good, tmp_path):
    """Each hears of its own."""
    (tmp_path / "scene").write_bytes(HARMS["zeros"]((good / "jpeg strips").read_bytes()))
    stop = threading.Event()

    def busy():
        raster = open_raster(good / "deflate")
        while not stop.is_set():
            raster.read(Window(0, 0, 64, 64))

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            with pytest.raises(DamageError):
                open_raster(tmp_path / "scene").read(Window(0, 0, HEIGHT, WIDTH))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def read_in(path, heights, upward=False, **options):
    """Pixels and their validity, read in bands of rows, each of a height in turn; and the damage noted."""
    log = DamageLog()
    raster = open_raster(path, damage=log, **options)
    windows, top = [], 0
    while top < raster.info.height:
        bottom = min(top + heights[len(windows) % len(heights)], raster.info.height)
        windows.append(Window(top, 0, bottom, raster.info.width))
        top = bottom
    parts = [raster.read(window) for window in (reversed(windows) if upward else windows)]
    parts = parts[::-1] if upward else parts
    raw_CHW = np.concatenate([p.raw_CHW for p in parts], axis=1)
    return raw_CHW, np.concatenate([p.valid_HW for p in parts]), log.found


def check_alike(path, **options):
    """Whatever the windows and their order; some pixels are bad, not all."""
    whole = read_in(path, [HEIGHT], **options)
    assert 0 < (~whole[1]).mean() < 1
    assert whole[2]
    for heights in ([1], [7, 90], [96, 3], [64]):
        for upward in (False, True):
            for a, b in zip(read_in(path, heights, upward, **options), whole, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_mask_with_blocks_of_its_own(tmp_path):
    """They do not end where the raster's do, and a window may touch only sound ones."""
    size = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(tmp_path / "a.tif", "w", count=3, blockysize=10, **size) as dataset:
        dataset.write(pixels())
    with rasterio.open(tmp_path / "a.tif.msk", "w", count=1, blockysize=16, **size) as mask:
        mask.write(np.where(np.indices((HEIGHT, WIDTH)).sum(axis=0) % 9, 255, 0).astype(np.uint8), 1)
        mask.update_tags(**{f"INTERNAL_MASK_FLAGS_{i}": "2" for i in (1, 2, 3)})
    with rasterio.open(tmp_path / "a.tif.msk") as mask:
        start, length = (
            int(mask.get_tag_item(f"BLOCK_{what}_0_6", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    content = bytearray((tmp_path / "a.tif.msk").read_bytes())
    content[start : start + length] = b"\x55" * length
    (tmp_path / "a.tif.msk").write_bytes(content)
    check_alike(tmp_path / "a.tif")


def test_a_vrt_over_a_damaged_file(good, tmp_path):
    """Its blocks are not those of its files."""
    (tmp_path / "scene.tif").write_bytes(HARMS["0x55"]((good / "jpeg").read_bytes()))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">scene.tif'
        f"</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    text = f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{bands}</VRTDataset>'
    (tmp_path / "scene.vrt").write_text(text)
    check_alike(tmp_path / "scene.vrt", allow_vrt=True)


@pytest.mark.parametrize("left", [0, 5, 100])
def test_a_tiff_whose_directories_break_off(good, tmp_path, left):
    """All its pixels are there, but not its mask: without a word from GDAL they would all be valid."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        rasterio.shutil.copy(good / "deflate", tmp_path / "a.tif", **TILED)
        with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
            dataset.write_mask(np.indices((HEIGHT, WIDTH)).sum(axis=0) % 9 > 0)
    content = (tmp_path / "a.tif").read_bytes()
    start = directory(content)
    second = struct.unpack_from("<I", content, start + 2 + 12 * struct.unpack_from("<H", content, start)[0])[
        0
    ]
    assert second > start
    (tmp_path / "b.tif").write_bytes(content[: second + left])
    with pytest.raises(InputError, match="cannot open"):
        open_raster(tmp_path / "b.tif")


def test_a_mask_that_does_not_open(good, tmp_path):
    shutil.copy(good / "deflate", tmp_path / "a.tif")
    (tmp_path / "a.tif.msk").write_bytes(b"II*\0 and no more")
    with pytest.raises(InputError, match=r"a\.tif\.msk"):
        open_raster(tmp_path / "a.tif")
    (tmp_path / "a.tif.msk").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.tif\.msk does not"):
        open_raster(tmp_path / "a.tif")


def test_lack_of_memory_is_the_last_of_several_causes(good, monkeypatch):
    """As GDAL and rasterio report it: "read failed" by "block failed" by "cannot allocate"."""
    from rasterio._err import CPLE_AppDefinedError, CPLE_OutOfMemoryError
    from rasterio.errors import RasterioIOError

    from tiler.readers.gdal import GdalRaster

    class Full:
        def read(self, *_, **__):
            failed = CPLE_AppDefinedError(3, 1, "band 1: IReadBlock failed at X offset 0, Y offset 0")
            failed.__cause__ = CPLE_OutOfMemoryError(
                3, 2, "gtiffdataset_read.cpp, 3339: cannot allocate 9 GB"
            )
            raise RasterioIOError("Read failed. See previous exception for details.") from failed

    log = DamageLog()
    raster = open_raster(good / "deflate", damage=log)
    monkeypatch.setattr(GdalRaster, "_dataset", lambda self: Full())
    with pytest.raises(MemoryError, match="cannot allocate"):
        raster.read(Window(0, 0, 9, 9))
    assert log.found == ()


def test_a_header_that_asks_for_a_huge_block(good, tmp_path):
    """One row of two thousand million pixels: GDAL would take 8 GB for it."""
    content = bytearray((good / "jpeg strips").read_bytes())
    start = directory(content)
    for i in range(struct.unpack_from("<H", content, start)[0]):
        entry = start + 2 + 12 * i
        value = {256: 2**31 - 9, 257: 1}.get(struct.unpack_from("<H", content, entry)[0])
        if value:
            struct.pack_into("<HII", content, entry + 2, 4, 1, value)
    (tmp_path / "scene").write_bytes(content)
    with pytest.raises(InputError, match="at most 1e\\+09 bytes"):
        open_raster(tmp_path / "scene")


def test_an_error_of_gdals_that_is_no_failure(good, monkeypatch):
    """It cannot read the table of blocks, says so, and returns zeros; for rasterio that is information."""
    import logging

    from tiler.readers.gdal import GdalRaster, UnreadableError

    def zeros(self, dataset, window):
        text = "GDAL signalled an error: err_no=%r, msg=%r"
        logging.getLogger("rasterio._err").info(text, 1, "Cannot read offset/size for strile around ~0")
        return dataset.read(window=((0, 9), (0, 9)))

    monkeypatch.setattr(GdalRaster, "_fetched", zeros)
    with pytest.raises(UnreadableError, match="Cannot read offset/size"):
        open_raster(good / "deflate").read_once(Window(0, 0, 9, 9))


def test_what_a_program_logs_stays_the_same(good, tmp_path, caplog):
    """Errors that are heard as information are not passed on to a program that logs warnings."""
    import logging

    (tmp_path / "scene").write_bytes(HARMS["4 kB of zeros"]((good / "deflate").read_bytes()))
    log = logging.getLogger("rasterio._err")
    before = log.level, log.disabled, list(log.filters)
    with caplog.at_level(logging.WARNING), pytest.raises(DamageError):
        open_raster(tmp_path / "scene").read(Window(0, 0, HEIGHT, WIDTH))
    assert not [record for record in caplog.records if record.levelno < logging.WARNING]
    assert (log.level, log.disabled, list(log.filters)) == before

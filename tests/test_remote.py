"""Rasters at an address, from a real server on this machine that does everything a server can do wrong."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling

import networks
from rasters import write_raster
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.damage import DamageLog
from tiler.errors import InputError, RemoteError, TilerError
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.readers import remote, source
from unruly import Unruly

SIDE = 500
WHOLE = Window(0, 0, SIDE, SIDE)
PLACE = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9)}
FILES = ("scene.tif", "masked.tif", "small_tiles.tif", "scene.jp2")
TROUBLES = ("500", "503", "429", "416", "404", "half", "nothing", "reset", "silent", "no http", "no ranges")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files larger than what GDAL fetches at once, each with something that it fetches late."""
    folder = tmp_path_factory.mktemp("scene")
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), np.uint8)
    write_raster(folder / "plain.tif", raw_CHW, **PLACE)
    rasterio.shutil.copy(folder / "plain.tif", folder / "scene.tif", driver="COG", blocksize=128)
    tiles = {"blockxsize": 128, "blockysize": 128}
    rasterio.shutil.copy(
        folder / "plain.tif", folder / "scene.jp2", driver="JP2OpenJPEG", QUALITY=40, **tiles
    )
    # The directories of its mask and its overviews, at the end of the file.
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        profile = {
            "count": 3,
            "height": SIDE,
            "width": SIDE,
            "dtype": "uint8",
            "compress": "deflate",
            **PLACE,
        }
        with rasterio.open(
            folder / "masked.tif", "w", driver="GTiff", tiled=True, **tiles, **profile
        ) as dataset:
            dataset.write(raw_CHW)
            dataset.write_mask(np.indices((SIDE, SIDE)).sum(axis=0) % 37 > 5)
        with rasterio.open(folder / "masked.tif", "r+") as dataset:
            dataset.build_overviews([2], Resampling.average)
    # The table of its blocks: if that is missing, GDAL takes all blocks for zeros.
    write_raster(folder / "small_tiles.tif", raw_CHW, tiled=True, blockxsize=16, blockysize=16, **PLACE)
    networks.pixelwise(folder / "net.onnx")
    return folder


@pytest.fixture(scope="module")
def running(folder):
    made = Unruly(folder)
    yield made
    made.stop()


@pytest.fixture
def server(running, monkeypatch):
    """A server that behaves, until told otherwise, and clients in a hurry."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(remote, "TIMEOUT", 1.0)
    monkeypatch.setitem(source.FETCHING, "low_speed_time", "1")
    running.tell()
    return running


@pytest.fixture
def url(server) -> str:
    return f"{server.base}/scene.tif"


@pytest.fixture
def scene(folder) -> Path:
    return folder / "scene.tif"


def pixels(path, **options):
    return open_raster(path, **options).read(WHOLE).raw_CHW


@pytest.mark.parametrize("slashes", ["//", "/"])
def test_a_remote_raster_is_read_as_a_local_one(url, scene, slashes):
    """Also when pathlib has taken one of the slashes."""
    typed = url.replace("//", slashes)
    np.testing.assert_array_equal(pixels(typed, allow_remote=True), pixels(scene))
    assert open_raster(Path(typed), allow_remote=True).info.files == (url,)


@pytest.mark.parametrize("name", FILES)
def test_masks_and_overviews_come_too(server, folder, name):
    address = f"{server.base}/{name}"
    for resolution in ("native", 2.0):
        here, there = (
            open_raster(folder / name, resolution=resolution),
            open_raster(address, resolution=resolution, allow_remote=True),
        )
        assert there.info.note == here.info.note
        window = Window(0, 0, here.info.height, here.info.width)
        np.testing.assert_array_equal(there.read(window).raw_CHW, here.read(window).raw_CHW)
        np.testing.assert_array_equal(there.read(window).valid_HW, here.read(window).valid_HW)


def test_nothing_is_fetched_unless_it_is_allowed(server, url):
    with pytest.raises(InputError, match="--allow-remote"):
        open_raster(url)
    assert server.tell() == []


def test_nothing_beside_the_file_is_asked_for(server, url):
    """And nothing by HEAD, which a signed address does not allow."""
    pixels(url, allow_remote=True)
    requests = server.tell()
    assert {(method, path) for method, path, _ in requests} == {("GET", "/scene.tif")}


@pytest.mark.parametrize("code", [403, 405, 501])
def test_a_server_that_refuses_head(server, url, scene, code):
    server.tell(head=code)
    np.testing.assert_array_equal(pixels(url, allow_remote=True), pixels(scene))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://bucket/a.tif", "begins with http"),
        ("file:///etc/hostname", "begins with http"),
        ("ftp://host/a.tif", "begins with http"),
        ("http://me:secret@127.0.0.1:9/a.tif", "no user name or password"),
        ("/vsicurl/http://127.0.0.1:9/a.tif", "no such file"),
    ],
)
@pytest.mark.parametrize("allow", [False, True])
def test_other_addresses_are_refused(path, words, allow):
    with pytest.raises(InputError, match=words) as caught:
        open_raster(path, allow_remote=allow)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_that_passes_is_passed_over(server, url, scene, trouble):
    """Asked again, and nothing of the bad answer is kept."""
    raster = open_raster(url, allow_remote=True)
    server.tell(trouble=trouble, last=1)
    np.testing.assert_array_equal(raster.read(WHOLE).raw_CHW, pixels(scene))


@pytest.mark.parametrize("trouble", ["500", "half", "nothing", "no ranges"])
@pytest.mark.parametrize("name", FILES)
def test_whichever_request_fails(server, folder, name, trouble):
    """The n-th, for every n, from opening on: the same pixels, the same mask; or an error when opening."""
    address = f"{server.base}/{name}"
    expected = open_raster(folder / name).read(WHOLE)
    open_raster(address, allow_remote=True).read(WHOLE)
    equal = 0
    for number in range(1, len(server.tell()) + 1):
        server.tell(trouble=trouble, first=number, last=number)
        with contextlib.suppress(InputError):
            seen = open_raster(address, allow_remote=True).read(WHOLE)
            np.testing.assert_array_equal(seen.raw_CHW, expected.raw_CHW)
            np.testing.assert_array_equal(seen.valid_HW, expected.valid_HW)
            equal += 1
    assert equal > 3


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_that_stays_is_an_error(server, url, trouble, log):
    """After a bounded number of requests; never nodata, never zeros."""
    raster = open_raster(url, allow_remote=True, damage=DamageLog() if log else None)
    server.tell(trouble=trouble)
    with pytest.raises(RemoteError, match="run the same command again") as caught:
        raster.read(WHOLE)
    assert url in str(caught.value)
    assert len(server.tell()) <= 40


@pytest.mark.parametrize("trouble", [t for t in TROUBLES if t != "half"])
def test_trouble_when_opening(server, url, trouble):
    """One clear error of ours."""
    server.tell(trouble=trouble)
    with pytest.raises(TilerError, match=r"scene\.tif") as caught:
        open_raster(url, allow_remote=True)
    assert "vsicurl" not in str(caught.value)
    assert len(server.tell()) <= 40


def test_a_file_that_changes_meanwhile(server, url):
    """No result of two versions."""
    raster = open_raster(url, allow_remote=True)
    raster.read(Window(0, 0, 10, 10))
    server.tell(etag='"two"')
    with pytest.raises(RemoteError, match="changed while it was read"):
        raster.read(WHOLE)


def test_a_redirect_is_followed_but_not_to_a_file(server, url, scene):
    server.tell(location=url)
    moved = url.replace("scene", "moved")
    np.testing.assert_array_equal(pixels(moved, allow_remote=True), pixels(scene))
    server.tell(location=scene.as_uri())
    with pytest.raises(TilerError):
        open_raster(moved, allow_remote=True)


def test_a_run_over_a_bad_line_is_carried_on(server, url, folder, tmp_path, capsys, monkeypatch):
    """Exit 1 with the address, without its signature; then the rest; the same bytes as from the file."""
    monkeypatch.setattr("tiler.planning.BLOCK", 128)
    options = ["--tile", "128", "--batch", "1", "--quiet"]
    net = str(folder / "net.onnx")
    scene = str(folder / "scene.tif")
    assert run_command(command, ["segment", scene, net, str(tmp_path / "local.tif"), *options]) == 0
    address = f"{url}?signature=secret"
    whole, arguments = (
        ["segment", address, net, str(tmp_path / name), *options, "--allow-remote"]
        for name in ("whole.tif", "out.tif")
    )
    server.tell()
    assert run_command(command, whole) == 0
    server.tell(trouble="503", first=len(server.tell()) * 3 // 4)
    assert run_command(command, arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: cannot read {url} (")
    assert err.count("\n") == 1
    assert "secret" not in err
    assert any(p.is_file() for p in (tmp_path / "out.tif.run" / "blocks" / "c").rglob("*"))
    server.tell()
    assert run_command(command, arguments) == 0
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "local.tif").read_bytes()
    report = (tmp_path / "out.report.json").read_text()
    assert 0 < json.loads(report)["blocks_computed"] < json.loads(report)["blocks"]
    assert "secret" not in report
    server.tell(etag='"two"')
    assert run_command(command, arguments) == 2
    assert "made with another input file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["http://[::1/x.tif", "http://127.0.0.1:9/\u00e9 x.tif", "https://", "http://"]
)
def test_odd_addresses_are_one_line(path, capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    net = str(folder / "net.onnx")
    assert run_command(command, ["segment", path, net, str(tmp_path / "o.tif"), "--allow-remote"]) in {1, 2}
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_signature_is_in_no_message(server, folder, tmp_path, capsys):
    """Nor is advice that cannot be followed."""
    write_raster(folder / "one.tif", np.ones((1, SIDE, SIDE), np.uint8), **PLACE)
    address = f"{server.base}/one.tif?s=secret"
    arguments = ["segment", address, str(folder / "net.onnx"), str(tmp_path / "o.tif"), "--allow-remote"]
    assert run_command(command, arguments) == 2
    err = capsys.readouterr().err
    assert "takes 3 bands" in err
    assert "secret" not in err
    assert "--bands" not in err

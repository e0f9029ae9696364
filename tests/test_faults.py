"""What fails, fails cleanly: the n-th call of everything, for every n, in the manner of SQLite's tests.

A run is counted once; then it is made again and again, and each time another one of its calls fails. Every
time: one line, an exit code, no thread left, nothing unfinished at a final name; and the same command, run
again, ends with the same bytes.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime as ort
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.errors import RasterioIOError
from zarr.storage import LocalStore

import networks
from rasters import write_raster
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.readers.gdal import GdalRaster
from tiler.store import BlockStore

SIDE = 128
OPTIONS = ["--tile", "96", "--output", "both", "--overwrite", "--quiet", "--batch", "2"]


def input_output_error(*_, **__):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def disk_full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def gdal_error(*_, **__):
    raise RasterioIOError("Write failed")


def network_error(*_, **__):
    raise ort.capi.onnxruntime_pybind11_state.Fail("[ONNXRuntimeError] : 1 : FAIL : the device is lost")


def no_memory(*_, **__):
    raise MemoryError("Unable to allocate 9.99 GiB")


CALLS = {
    "sync": (os, "fsync", input_output_error),
    "rename": (Path, "replace", input_output_error),
    "open": (Path, "open", disk_full),
    "make a folder": (Path, "mkdir", disk_full),
    "remove a file": (Path, "unlink", input_output_error),
    "remove a folder": (Path, "rmdir", input_output_error),
    "remove a tree": (shutil, "rmtree", input_output_error),
    "list a folder": (os, "scandir", input_output_error),
    "read a raster": (GdalRaster, "read", no_memory),
    "network": (ort.InferenceSession, "run", network_error),
    "memory of the network": (ort.InferenceSession, "run", no_memory),
    "read a block": (LocalStore, "get", input_output_error),
    "open a raster": (rasterio, "open", gdal_error),
    "build a COG": (rasterio.shutil, "copy", gdal_error),
    "store a block": (BlockStore, "write", no_memory),
}
"""What is made to fail: where it is, its name, how it fails."""


@contextmanager
def failing(kind: str, number: int):
    """Let the n-th call of a kind fail; gives the list of calls."""
    place, name, fail = CALLS[kind]
    real, calls = getattr(place, name), []

    def counted(*arguments, **options):
        calls.append(arguments)
        return (fail if len(calls) == number else real)(*arguments, **options)

    with mock.patch.object(place, name, counted):
        yield calls


def make_place(folder: Path) -> list[str]:
    """A scene and a network, and the command."""
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(1, 255, (3, 200, 230), np.uint8)
    write_raster(
        folder / "scene.tif", raw_CHW, tiled=True, crs="EPSG:32633", transform=Affine(1, 0, 9, 0, -1, 9)
    )
    networks.unet(folder / "net.onnx")
    return ["segment", *(str(folder / name) for name in ("scene.tif", "net.onnx", "out.tif")), *OPTIONS]


def rasters(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("out*.tif") if p.is_file()}


def pytest_generate_tests(metafunc):
    """Count the calls of a run that nothing disturbs: those are the cases."""
    if "nth" not in metafunc.fixturenames:
        return
    cases = []
    with mock.patch("tiler.planning.BLOCK", SIDE), tempfile.TemporaryDirectory() as name:
        arguments = make_place(Path(name))
        for kind in CALLS:
            for path in Path(name).glob("out*"):
                path.unlink()
            with failing(kind, 0) as calls:
                assert run_command(command, arguments) == 0
            assert calls, f"nothing calls {kind}"
            cases += [pytest.param((kind, n), id=f"{kind} {n}") for n in range(1, len(calls) + 1)]
    metafunc.parametrize("nth", cases)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that a small scene has several."""
    monkeypatch.setattr("tiler.planning.BLOCK", SIDE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """What comes out when nothing fails."""
    folder = tmp_path_factory.mktemp("whole")
    with mock.patch("tiler.planning.BLOCK", SIDE):
        assert run_command(command, make_place(folder)) == 0
    return rasters(folder)


def test_the_nth_call_fails(nth, tmp_path, capsys, undisturbed):
    """For every n, of every kind of call."""
    kind, number = nth
    arguments = make_place(tmp_path)
    threads = threading.active_count()
    with failing(kind, number) as calls:
        code = run_command(command, arguments)
    assert len(calls) >= number
    out, err = capsys.readouterr()
    assert out == ""
    if code:
        assert code in {1, 2, 3}
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        # But for the last sync, after which the output would be in its place.
        assert rasters(tmp_path) == undisturbed or not (tmp_path / "out.tif").exists()
    else:
        # What could be done without, or again: cleaning up, a block that did not read back, less memory.
        assert rasters(tmp_path) == undisturbed
    assert not [t for t in threading.enumerate() if t.name.startswith("tiler")]
    assert threading.active_count() <= threads + 2  # zarr's own, which stay
    assert run_command(command, arguments) == 0
    assert rasters(tmp_path) == undisturbed
    assert not list(tmp_path.glob("out.tif.run*"))
    assert not list(tmp_path.rglob("*.partial"))


NOISE = 1200
"""Side of a scene of noise, whose map does not compress."""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """A scene and a network whose output is large, and that output."""
    folder = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(0, 255, (3, NOISE, NOISE), np.uint8)
    here = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9)}
    write_raster(folder / "scene.tif", raw_CHW, tiled=True, **here)
    networks.pixelwise(folder / "net.onnx", channels=5)
    for output in ("labels", "both"):
        assert process(folder, None, output).returncode == 0
        (folder / output).mkdir()
        for path in folder.glob("out.*"):
            path.rename(folder / output / path.name)
    return folder


def process(folder: Path, limit: int | None, output: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that can write no file larger than the limit."""

    def restrict():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    files = [folder / name for name in ("scene.tif", "net.onnx", "out.tif")]
    return subprocess.run(
        [sys.executable, "-m", "tiler", "segment", *files, "--quiet", "--output", output],
        preexec_fn=restrict,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("output", ["labels", "both"])
@pytest.mark.parametrize("limit", [10, 100, 2_000, 10**5, 400_000, 600_000, 2 * 10**6, 5 * 10**6, 9 * 10**6])
def test_a_full_disk(noisy, tmp_path, limit, output):
    """In manifest, block, plain GeoTIFF and COG (GDAL's own writes). With room again it goes on."""
    for name in ("scene.tif", "net.onnx"):
        os.link(noisy / name, tmp_path / name)
    done = process(tmp_path, limit, output)
    largest = max(path.stat().st_size for path in (noisy / output).iterdir())
    assert (done.returncode == 0) >= (limit > 2 * largest)
    assert (done.returncode != 0) >= (limit < largest)
    if done.returncode:
        assert done.returncode in {1, 2}, done.stderr
        # libtiff may say "_tiffWriteProc: File too large." before us.
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        assert any(words in last for words in ("cannot ", "does not read back")), done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob("out.*[!n]"))
    assert process(tmp_path, None, output).returncode == 0
    for path in tmp_path.glob("out*.tif"):
        assert path.read_bytes() == (noisy / output / path.name).read_bytes()
    assert not list(tmp_path.glob("*.run*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_too_small_is_found_before_the_start(noisy, small_disk, capsys):
    """Nothing is left on it. What fits goes through."""
    files = [noisy / "scene.tif", noisy / "net.onnx", small_disk / "out.tif"]
    assert run_command(command, ["segment", *map(str, files), "--quiet", "--output", "both"]) == 1
    assert "of disk while it finishes, got 3.1" in capsys.readouterr().err
    assert not list(small_disk.iterdir())
    assert run_command(command, ["segment", *map(str, files), "--quiet"]) == 0


def test_a_disk_that_others_fill_meanwhile(noisy, small_disk, capsys):
    """Said in one line; with room again the run goes on, and the file is the same."""
    files = [noisy / "scene.tif", noisy / "net.onnx", small_disk / "out.tif"]
    arguments = ["segment", *map(str, files), "--quiet"]
    real = BlockStore.write

    def crowded(self, block, damage=()):
        (small_disk / "other").write_bytes(bytes(2_900_000))
        real(self, block, damage)

    with mock.patch.object(BlockStore, "write", crowded):
        assert run_command(command, arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: cannot ")
    assert "run the same command again" in err
    assert not (small_disk / "out.tif").exists()
    (small_disk / "other").unlink()
    assert run_command(command, arguments) == 0
    assert (small_disk / "out.tif").read_bytes() == (noisy / "labels" / "out.tif").read_bytes()

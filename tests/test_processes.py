"""Real processes: stopped, killed, several at once, short of memory. Everything else is tested in one."""

from __future__ import annotations

import importlib
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

import networks
from rasters import write_raster

HERE = {"crs": "EPSG:32633", "transform": Affine(1, 0, 9, 0, -1, 9)}
SEGMENT = [sys.executable, "-m", "tiler", "segment"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A scene of 3 x 3 blocks, a network, and its map."""
    folder = tmp_path_factory.mktemp("processes")
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, 2500, 2300), np.uint8)
    write_raster(folder / "scene.tif", raw_CHW, tiled=True, **HERE)
    networks.unet(folder / "net.onnx", width=6)
    assert finish(start(folder, folder / "whole.tif"))[0] == 0
    return folder


def start(place, output, *more, **how) -> subprocess.Popen:
    """The command, with a line of JSON per event."""
    files = [place / "scene.tif", place / "net.onnx", output]
    options = ["--tile", "512", "--log", "json", *more]
    return subprocess.Popen([*SEGMENT, *files, *options], stderr=subprocess.PIPE, text=True, **how)


def wait_for(process, event) -> None:
    """Read what the process says until it says this."""
    for line in process.stderr:
        if json.loads(line)["event"] == event:
            return
    raise AssertionError(f"no {event}")


def finish(process) -> tuple[int, str]:
    """Its exit code, and its last line."""
    _, err = process.communicate(timeout=120)
    return process.returncode, err.strip().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("event", ["Planned", "BlockStored", "Finishing"])
def test_a_signal_stops_cleanly(place, tmp_path, number, event):
    """Exit code 4, one line that says how to go on; what is stored is kept."""
    process = start(place, tmp_path / "out.tif")
    wait_for(process, event)
    process.send_signal(number)
    assert finish(process) == (4, "error: interrupted; run the same command again to carry on")
    assert [p.name for p in tmp_path.iterdir()] == ([] if event == "Planned" else ["out.tif.run"])
    assert finish(start(place, tmp_path / "out.tif"))[0] == 0
    assert (tmp_path / "out.tif").read_bytes() == (place / "whole.tif").read_bytes()
    assert not list(tmp_path.glob("*.run"))


def test_a_second_signal_stops_at_once(place, tmp_path):
    """Whoever presses twice means it; no stored block is lost."""
    process = start(place, tmp_path / "out.tif")
    wait_for(process, "BlockStored")
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 4
    assert finish(start(place, tmp_path / "out.tif"))[0] == 0
    assert (tmp_path / "out.tif").read_bytes() == (place / "whole.tif").read_bytes()


@pytest.mark.parametrize("count", [2, 4])
def test_shards_at_once(place, tmp_path, count):
    """Each computes its part, one of them finishes, all end well."""
    shards = [start(place, tmp_path / "out.tif", "--shard", f"{i + 1}/{count}") for i in range(count)]
    ends = [finish(shard) for shard in shards]
    assert [code for code, _ in ends] == [0] * count
    assert (tmp_path / "out.tif").read_bytes() == (place / "whole.tif").read_bytes()
    assert not list(tmp_path.glob("*.run"))
    computed = [json.loads(line)["report"]["blocks_computed"] for _, line in ends if '"Finished"' in line]
    assert all(blocks <= -(-9 // count) for blocks in computed)


def test_two_runs_on_one_output(place, tmp_path):
    """The second is refused at once, and told who the first is; the first does not notice."""
    first = start(place, tmp_path / "out.tif")
    wait_for(first, "BlockStored")
    first.send_signal(signal.SIGSTOP)
    code, line = finish(start(place, tmp_path / "out.tif"))
    assert code == 2
    assert re.search(rf"process {first.pid} on \S+, started 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", line)
    first.send_signal(signal.SIGCONT)
    assert finish(first)[0] == 0
    assert (tmp_path / "out.tif").read_bytes() == (place / "whole.tif").read_bytes()


@pytest.mark.parametrize("blend", ["exact", "hann"])
def test_a_process_short_of_memory(tmp_path, blend):
    """Address space for a small batch only: it says so, goes on with smaller ones, and no byte changes."""
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, 1500, 1500), np.uint8)
    write_raster(tmp_path / "scene.tif", raw_CHW, tiled=True, **HERE)
    networks.unet(tmp_path / "net.onnx", width=16)
    assert finish(start(tmp_path, tmp_path / "whole.tif", "--blend", blend))[0] == 0

    def restrict():
        resource.setrlimit(resource.RLIMIT_AS, (1_600_000_000, 1_600_000_000))

    options = ["--blend", blend, "--batch", "16", "--memory", "60GB", "--threads", "1"]
    process = start(tmp_path, tmp_path / "out.tif", *options, preexec_fn=restrict)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "out of memory: going on with" in err
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.fixture
def kills(monkeypatch):
    """The benchmark that kills; its ten-kill version is the test below. Benchmarks import each other."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("kills")


@pytest.mark.parametrize(("mode", "number"), [("exact", 3), ("blended", 2)])
def test_killed_at_random_and_run_again(kills, tmp_path, mode, number):
    """Ten kills in all, alone and as two shards: the same SHA-256 every time."""
    random.seed(0)
    kills.make_scene(tmp_path / "scene.tif", 2100)
    for tally in kills.measure(tmp_path / "scene.tif", tmp_path, mode, number):
        assert tally.equal == tally.kills == number

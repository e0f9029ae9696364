"""``tiler bench``: what it says, never how fast."""

from __future__ import annotations

import json
import re

import pytest

from refusals import refused
from tiler.bench import kernel_speeds
from tiler.cli.main import run_command, tiler
from tiler.demo import MODEL, SCENE

RUN = ["bench", SCENE, MODEL, "--side", "300", "--repeats", "2"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels on arrays that are timed at once."""
    monkeypatch.setattr("tiler.bench.SIDE", 64)
    monkeypatch.setattr("tiler.bench.CALLS", 1)


def test_every_loop_over_pixels_is_timed():
    """Each against its twin, and against a copy."""
    names = [speed.name.partition(",")[0] for speed in kernel_speeds()]
    assert set(names) == {"feed", "argmax", "accumulate", "softmax"}
    assert all(speed.megapixels > 0 for speed in kernel_speeds())


def test_a_table_that_fits_a_terminal(capsys):
    """With and without a scene."""
    assert run_command(tiler, ["bench"]) == 0
    assert "speed" not in capsys.readouterr().out
    assert run_command(tiler, [str(a) for a in RUN]) == 0
    out = capsys.readouterr().out
    for word in ("plain loop", "ratio", "bottleneck", "x numpy"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_and_a_picture(tmp_path, capsys):
    """The same figures; shares are shares."""
    pytest.importorskip("matplotlib")
    chart = tmp_path / "chart.png"
    assert run_command(tiler, [str(a) for a in (*RUN, "--json", "--chart", chart)]) == 0
    values = json.loads(capsys.readouterr().out)
    run = values["run"]
    assert run["ratio"] > 0
    assert 0 < run["network"] <= 1
    assert run["waste"] >= 1
    assert {"read", "network", "store", "finish"} <= set(run["stages"])
    assert re.fullmatch(r"\w+: \d+% of the time", run["bottleneck"])
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_refusals(tmp_path, capsys):
    """One line each, nothing on stdout."""
    refused(capsys, tiler, ["bench", SCENE], "SOURCE and MODEL go together")
    refused(capsys, tiler, ["bench", "--chart", tmp_path / "c.png"], "--chart")
    refused(capsys, tiler, ["bench", tmp_path / "none.tif", MODEL], "none.tif")

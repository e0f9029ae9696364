"""Runs as processes: killed at any moment they end with the same weights, and several make one run."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training_processes import Run, together  # noqa: E402

from train.checkpoint import load_checkpoint  # noqa: E402
from training_data import write_images, write_pair  # noqa: E402

ROOT = Path(__file__).parents[1]
TOLD = {
    "classes": ("background", "building"),
    "depth": 1,
    "width": 4,
    "crop": 32,
    "batch": 4,
    "epochs": 6,
    "crops_per_epoch": 12,
    "lr": 0.02,
    "device": "cpu",
    "threads": 1,
}
SAME = ("metrics.json", "best/model.safetensors", "last/model.safetensors", "best/spec.json")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tuple(map(str, write_pair(tmp_path_factory.mktemp("data"))))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Seven pictures, of sizes that differ: they do not divide evenly among processes."""
    root = tmp_path_factory.mktemp("pictures")
    images, masks = write_images(root, [(40 + 8 * i, 64) for i in range(7)])
    return {"images": str(images), "masks": str(masks), "val": 0.45, "test": 0.3}


def log(outdir):
    with (outdir / "log.csv").open() as file:
        return list(csv.DictReader(file))


# --- kills


def killed_and_resumed(told, outdir, kills, seed):
    """Kill a run again and again, after some line and some part of what comes after it."""
    rng = random.Random(seed)
    done = 0
    while done < kills:
        run = Run(told, outdir)
        for _ in range(rng.randint(1, 4)):
            run.line()
        run.lines.poll(rng.uniform(0, 0.15))
        done += run.process.is_alive()
        run.kill()
    said, code = Run(told, outdir).end()
    assert code == 0
    return said


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_at_random_it_ends_with_the_very_same_weights(pair, tmp_path, kills):
    """With dropout, an average, a plateau and frozen first epochs: all that a resumed run could forget."""
    told = {**TOLD, "pair": (pair,), "dropout": 0.2, "schedule": "plateau", "patience": 0, "keep_every": 2}
    told |= {"epochs": 6 + kills}
    said, code = Run(told, tmp_path / "whole").end()
    assert code == 0, said
    said = killed_and_resumed(told, tmp_path / "killed", kills, seed=kills)
    assert any(line.startswith("carrying on after epoch") or "is finished" in line for line in said)
    for name in (*SAME, "epoch-0004/model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    without = [
        [{k: v for k, v in row.items() if k not in {"seconds", "waited"}} for row in log(tmp_path / d)]
        for d in ("whole", "killed")
    ]
    assert without[0] == without[1]
    assert {p.name for p in (tmp_path / "killed").iterdir()} == {
        p.name for p in (tmp_path / "whole").iterdir()
    }


# --- several processes


@pytest.mark.parametrize("more", [{"norm": "none"}, {"freeze_norm": True}], ids=["no-norm", "frozen-norm"])
def test_two_processes_are_one(folders, tmp_path, more):
    """At equal global batch: the losses of all epochs, the scores, and the weights."""
    told = {**TOLD, **folders, **more, "epochs": 4, "average": 0.0}
    (said, code), *_ = together(1, told, tmp_path / "one")
    assert code == 0, said
    (first, code), (second, other_code) = together(2, told, tmp_path / "two")
    assert (code, other_code) == (0, 0), first
    assert any("2 processes" in line for line in first)
    assert second == []  # only the first prints

    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-4)
        assert float(a["mean_iou"]) == pytest.approx(float(b["mean_iou"]), abs=1e-3)
    mine, theirs = (load_checkpoint(tmp_path / d / "last")[0].state_dict() for d in ("one", "two"))
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in mine)

"""Runs as processes: killed at any moment they end with the same weights, and several make one run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

torch = pytest.importorskip("torch")

from train.checkpoint import load_checkpoint  # noqa: E402
from training_data import SMALL, flags, read_log, write_images, write_pair  # noqa: E402
from training_processes import (  # noqa: E402
    Run,
    free_port,
    program,
    start_together,
    together,
    wait_for,
)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
ROOT = Path(__file__).parents[1]
TOLD = {**SMALL, "batch": 4, "epochs": 6, "crops_per_epoch": 12}
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


# --- kills


def killed_and_resumed(told, outdir, kills, seed):
    """Kill a run again and again, after some line and some part of what comes after it."""
    rng = random.Random(seed)  # noqa: S311 - any will do
    for _ in range(kills):
        run = Run(told, outdir)
        for _ in range(rng.randint(1, 5)):
            run.line()
        run.lines.poll(rng.uniform(0, 0.15))
        run.kill()
        assert not (outdir / "metrics.json").exists(), "killed too late to tell anything"
    said, code = Run(told, outdir).end()
    assert code == 0
    return said


def but_for_times(outdir):
    """The log, but for what no two runs share."""
    return [{k: v for k, v in row.items() if k not in {"seconds", "waited"}} for row in read_log(outdir)]


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_at_random_it_ends_with_the_very_same_weights(pair, tmp_path, kills):
    """With dropout, an average, a plateau and checkpoints on the way: all that a resumed run could forget."""
    told = {**TOLD, "pair": (pair,), "dropout": 0.2, "schedule": "plateau", "patience": 0, "keep_every": 2}
    told |= {"epochs": 6 + 2 * kills}
    said, code = Run(told, tmp_path / "whole").end()
    assert code == 0, said
    said = killed_and_resumed(told, tmp_path / "killed", kills, seed=kills)
    assert any(line.startswith("carrying on after epoch") for line in said)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in (*SAME, "epoch-0004/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert but_for_times(killed) == but_for_times(whole)
    assert len({row["lr"] for row in read_log(whole)}) > 1  # the plateau was met
    assert {p.name for p in killed.iterdir()} == {p.name for p in whole.iterdir()}


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_cleanly(pair, tmp_path, number):
    """As a batch scheduler sends it: exit code 4, one line; the same command carries on."""
    words = [str(tmp_path / "run"), "--pair", *pair, *flags({**TOLD, "epochs": 500})]
    process = program(words, tmp_path)
    wait_for(tmp_path / "out", "epoch   1/")
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 4
    told = (tmp_path / "err").read_text().strip()
    assert told == "error: interrupted; run the same command again to carry on"
    process = program(words, tmp_path)
    wait_for(tmp_path / "out", "carrying on after epoch")
    process.kill()
    process.join()


@pytest.mark.slow
def test_a_stop_of_all_processes_is_one_line(pair, tmp_path):
    """A terminal interrupts those that read, too; at any moment, also while they start."""
    words = [str(tmp_path / "run"), "--pair", *pair, *flags({**TOLD, "epochs": 500, "workers": 2})]
    command = [sys.executable, "-m", "train", *words]
    for first in ("network", "epoch   1/"):
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        process = subprocess.Popen(command, **quiet, start_new_session=True)
        for line in process.stdout:
            if line.startswith((first, "carrying on")):
                break
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate()
        assert process.returncode == 4
        assert told.strip() == "error: interrupted; run the same command again to carry on"


@pytest.mark.slow
def test_a_reader_that_is_killed_is_one_line(pair, tmp_path):
    """Wherever the run is just then."""
    run = Run({**TOLD, "pair": (pair,), "epochs": 500, "workers": 1}, tmp_path / "run")
    while not run.line().startswith("epoch   1/"):
        pass
    readers = [p for p in psutil.Process(run.process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    readers[0].kill()
    said, code = run.end()
    assert code == 1
    assert said[-1].startswith("OutOfMemoryError: processes that read crops live as long as the run")
    assert "\n" not in said[-1]


# --- several processes


@pytest.mark.parametrize(
    "more", [{"norm": "none"}, pytest.param({"freeze_norm": True}, marks=pytest.mark.slow)], ids=str
)
def test_two_processes_are_one(folders, tmp_path, more):
    """At equal global batch: the losses of all epochs, the scores, and the weights."""
    told = {**TOLD, **folders, **more, "epochs": 4, "average": 0.0}
    said, code = Run(told, tmp_path / "one").end()
    assert code == 0, said
    (first, code), (second, other_code) = together(2, told, tmp_path / "two")
    assert (code, other_code) == (0, 0), first
    assert any("2 processes" in line for line in first)
    assert second == []  # only the first prints

    one, two = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-4)
        assert float(a["mean_iou"]) == pytest.approx(float(b["mean_iou"]), abs=1e-3)
    results = [json.loads((tmp_path / d / "metrics.json").read_text()) for d in ("one", "two")]
    assert all(results[0][part]["pixels"] == results[1][part]["pixels"] for part in ("val", "test"))
    mine, theirs = (load_checkpoint(tmp_path / d / "last")[0].state_dict() for d in ("one", "two"))
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in mine)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        "torch.distributed.run --standalone --nproc-per-node 2 -m",
        # Its --cpu is one process, or MPI.
        "accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port PORT --module",
    ],
    ids=["torchrun", "accelerate"],
)
def test_a_launcher_starts_several(folders, tmp_path, launcher):
    """Its output is that of one; killed, it carries on."""
    told = {**TOLD, **folders, "norm": "none"}
    words = launcher.replace("PORT", free_port()).split()
    command = [sys.executable, "-m", *words, "train", str(tmp_path / "run"), *flags(told)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            process.terminate()
            break
    process.stdout.close()
    process.wait()
    assert not (tmp_path / "run" / "metrics.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("carrying on after epoch") == 1
    assert done.stdout.count("epoch   6") == 1
    said, code = Run(told, tmp_path / "one").end()
    assert code == 0, said
    one, two = (json.loads((tmp_path / d / "metrics.json").read_text()) for d in ("one", "run"))
    assert one["val"]["pixels"] == two["val"]["pixels"]
    assert one["val"]["mean_iou"] == pytest.approx(two["val"]["mean_iou"], abs=0.02)


@pytest.mark.slow
def test_two_processes_freeze_and_thaw_as_one(folders, tmp_path):
    """What is trainable changes between stages, and with it what processes exchange."""
    told = {**TOLD, **folders, "preset": "resnet18", "width": 4, "crop": 32, "epochs": 4, "freeze_epochs": 2}
    told |= {"freeze_lr": 0.01, "freeze_batch": 6, "freeze_norm": True, "average": 0.0}
    told.pop("depth")
    said, code = Run(told, tmp_path / "one").end()
    assert code == 0, said
    assert [code for _, code in together(2, told, tmp_path / "two")] == [0, 0]
    for a, b in zip(read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-4)


@pytest.mark.slow
def test_a_process_that_is_lost_is_one_line(folders, tmp_path):
    """The others do not end in a traceback."""
    first, second = start_together(2, {**TOLD, **folders, "epochs": 500}, tmp_path / "run")
    while not first.line().startswith("epoch   2/"):
        pass
    second.kill()
    said, code = first.end()
    assert code == 1
    assert said[-1].startswith("TilerError: processes of a run live as long as it does, process 0 of 2 lost")
    assert "\n" not in said[-1]


def test_what_one_process_refuses_all_do(folders, tmp_path):
    """None waits for it; here it finds other weights than the first."""
    told = {**TOLD, **folders, "norm": "none"}
    first, second = start_together(2, told, tmp_path / "run", [{}, {"weights": str(tmp_path / "none")}])
    for said, code in (first.end(), second.end()):
        assert code == 1
        assert said[-1:] == [f"InputError: a file of weights is there, got {tmp_path / 'none'}"]


def test_a_batch_that_does_not_divide_is_refused(folders, tmp_path):
    (said, code), (_, other) = together(2, {**TOLD, **folders, "batch": 3}, tmp_path / "run")
    assert (code, other) == (1, 1)
    assert said == [
        "UsageError: a batch divides evenly among processes and --accumulate, got 3 for 2 x 1; use 4"
    ]

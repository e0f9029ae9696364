"""Beyond one machine: real schedulers and workers, killed with real signals; one process' bytes each time."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

import networks
from rasters import write_raster
from refusals import refused
from tasks import fail_until, process_id, raise_signal, signal_of, write_until_unwanted
from tiler import __version__, errors, fingerprint
from tiler.batch.task import Task
from tiler.blocks import BlockGrid, BlockSet
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.cluster.client import LEAST_IN_FLIGHT
from tiler.cluster.connection import connected
from tiler.cluster.executor import DaskExecutor
from tiler.cluster.parts import PER_WORKER, Part, part_side, parts
from tiler.cluster.scheduler import Scheduler
from tiler.cluster.worker import SharedRun, compute_part
from tiler.errors import ClusterError, DamageError, InputError, MissingError, UsageError
from tiler.events import BlockStored, Noted
from tiler.options import RunOptions
from tiler.run import segment
from tiler.store import TornBlockError

pytest.importorskip("distributed")
dask_config = pytest.importorskip("dask").config

SIDE = 128
BLOCKS = 3 * 4
MODES = {
    "exact": {"tile": 128, "blend": "exact"},
    "hann": {"tile": 96, "overlap": 24, "blend": "hann", "output": "both"},
}
HERE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
SMALL_BLOCKS = f"import tiler.planning as p; p.BLOCK = {SIDE}; from tiler.cli.main import main; main()"
SEGMENT = [sys.executable, "-c", SMALL_BLOCKS, "segment"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that a small scene has many; workers learn it from the plan."""
    monkeypatch.setattr("tiler.planning.BLOCK", SIDE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene, a network, and its maps by one process."""
    folder = tmp_path_factory.mktemp("cluster")
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, 300, 430), np.uint8)
    write_raster(folder / "scene.tif", raw_CHW, tiled=True, **HERE)
    networks.unet(folder / "net.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiler.planning.BLOCK", SIDE)
        for mode, options in MODES.items():
            segment(folder / "scene.tif", folder / "net.onnx", folder / f"{mode}.tif", RunOptions(**options))
    return folder


class Dask:
    """A scheduler and its workers, as processes of their own."""

    def __init__(self, folder, stack: ExitStack, more=()) -> None:
        self._file = folder / "scheduler.json"
        self._stack, self._more = stack, more
        self.scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        while not self._file.exists() or not self._file.read_text().endswith("}"):
            time.sleep(0.02)
        self.address = json.loads(self._file.read_text())["address"]
        self.workers: list[subprocess.Popen] = []

    def add_worker(self, threads=1, more=()) -> subprocess.Popen:
        """With a nanny, as ``dask worker`` has it."""
        place = ["--local-directory", self._file.parent / "scratch", "--host", "127.0.0.1"]
        options = ["--nthreads", str(threads), "--nworkers", "1", *place, *more]
        self.workers.append(self._start("dask_worker", *options))
        return self.workers[-1]

    def wait(self) -> None:
        """Until all workers are there; after a kill they take a moment to come back."""
        with connected(self.address, lambda event: None) as client:
            while client.workers() < len(self.workers):
                time.sleep(0.05)

    def _start(self, name, *options) -> subprocess.Popen:
        common = ["--no-dashboard", "--scheduler-file", self._file, *self._more]
        line = [sys.executable, "-m", f"distributed.cli.{name}", *options, *common]
        # Workers import what tests send them.
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})
        self._stack.callback(stop, process)
        return process


def stop(process) -> None:
    """End a process and all that it started."""
    if process.poll() is None:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
    process.wait(20)


@pytest.fixture(scope="module")
def hired(tmp_path_factory):
    """A scheduler with two workers."""
    with ExitStack() as stack:
        cluster = Dask(tmp_path_factory.mktemp("dask"), stack)
        for _ in range(2):
            cluster.add_worker()
        yield cluster


@pytest.fixture
def dask(hired):
    """The same when both are there."""
    hired.wait()
    return hired


def run(place, output, mode="exact", observer=lambda event: None, **options):
    """Segment the scene."""
    options = {**MODES[mode], **options}
    return segment(place / "scene.tif", place / "net.onnx", output, RunOptions(**options), observer)


def assert_same(place, output, mode="exact") -> None:
    """The bytes of one process, and nothing of the run is left."""
    for suffix in ("", ".probabilities") if mode == "hann" else ("",):
        name = output.with_suffix(suffix + ".tif")
        assert name.read_bytes() == (place / f"{mode}.tif").with_suffix(suffix + ".tif").read_bytes()
    assert not list(output.parent.glob("*.run*"))


def workers_here() -> list[psutil.Process]:
    """Worker processes that this one has started, directly or not."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_two_local_workers_make_the_map_of_one_process(place, tmp_path):
    """To the byte; nobody else can reach them, and they are gone at the end."""
    listening = []

    def look(event):
        if isinstance(event, BlockStored) and not listening:
            for process in [psutil.Process(), *workers_here()]:
                listening.extend(c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN")

    report = run(place, tmp_path / "out.tif", observer=look, scheduler="local:2")
    assert report.blocks_computed == BLOCKS
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}
    assert_same(place, tmp_path / "out.tif")
    assert not workers_here()


@pytest.mark.parametrize("mode", MODES)
def test_two_workers_at_an_address_make_it_too(place, dask, tmp_path, mode):
    """One run after the other in the same workers."""
    assert run(place, tmp_path / "out.tif", mode, scheduler=dask.address).blocks_computed == BLOCKS
    assert_same(place, tmp_path / "out.tif", mode)


def test_views_of_tiles_are_computed_by_workers_too(place, dask, tmp_path):
    """With --tta the map is that of one process, however its blocks are shared out."""
    for name, more in (("alone", {}), ("shared", {"scheduler": dask.address})):
        report = run(place, tmp_path / f"{name}.tif", tta="all", **more)
        assert report.plan["views"] == 8
    assert (tmp_path / "shared.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()
    assert (tmp_path / "alone.tif").read_bytes() != (place / "exact.tif").read_bytes()


def working(dask) -> list[psutil.Process]:
    """Processes that compute for a scheduler: children of the nannies."""
    nannies = {worker.pid for worker in dask.workers}
    return [child for child in workers_here() if child.ppid() in nannies]


def kill_a_worker(place, dask, output, seed) -> None:
    """Run; at a random moment between two random blocks, kill a random worker with SIGKILL."""
    dask.wait()
    rng = random.Random(seed)  # noqa: S311 - seeded on purpose
    # A share of the pixels: how many blocks are stored at once depends on the workers that are there.
    mode, share, killed = rng.choice(list(MODES)), rng.uniform(0, 0.7), []

    def kill(event):
        if isinstance(event, BlockStored) and event.done >= share * event.total and not killed:
            time.sleep(rng.random() / 20)
            killed.append(rng.choice(working(dask)))
            killed[0].kill()

    run(place, output, mode, kill, scheduler=dask.address)
    assert killed
    assert_same(place, output, mode)


@pytest.mark.parametrize("seed", range(2))
def test_a_worker_is_killed(place, dask, tmp_path, seed):
    """Its tasks are done by others."""
    kill_a_worker(place, dask, tmp_path / "out.tif", seed)


@pytest.mark.slow
def test_workers_are_killed_twenty_times(place, dask, tmp_path):
    for seed in range(20):
        kill_a_worker(place, dask, tmp_path / f"{seed}.tif", 100 + seed)


def test_workers_come_while_the_run_goes_on(place, tmp_path):
    """It waits for the first and takes up the second."""
    with ExitStack() as stack:
        dask = Dask(tmp_path, stack)

        def hire(event):
            waits = isinstance(event, Noted) and "no workers at" in event.message
            if (waits and not dask.workers) or (isinstance(event, BlockStored) and len(dask.workers) == 1):
                dask.add_worker()

        run(place, tmp_path / "out.tif", "exact", hire, scheduler=dask.address)
        assert len(dask.workers) == 2
    assert_same(place, tmp_path / "out.tif")


def test_the_scheduler_is_killed(place, tmp_path):
    """One line; with another scheduler the same command carries on."""
    with ExitStack() as stack:
        first = Dask(tmp_path, stack)
        first.add_worker()

        def kill(event):
            if isinstance(event, BlockStored) and event.done > 3 * SIDE**2:
                first.scheduler.kill()

        with pytest.raises(ClusterError, match=r"lost the scheduler at tcp://.*run the same command again"):
            run(place, tmp_path / "out.tif", observer=kill, scheduler=first.address)
    assert (tmp_path / "out.tif.run").exists()
    report = run(place, tmp_path / "out.tif", scheduler="local:1")
    assert 0 < report.blocks_computed < BLOCKS
    assert_same(place, tmp_path / "out.tif")


STOPS = [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]


@pytest.mark.parametrize("number", STOPS)
def test_the_client_is_stopped(place, tmp_path, number):
    """Its own workers go with it, also by Ctrl-C, which they hear too; the same command carries on."""
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, 2500, 2200), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", raw_CHW, tiled=True, **HERE)
    files = [scene, place / "net.onnx", tmp_path / "out.tif"]
    line = [*SEGMENT, *files, "--tile", "128", "--scheduler", "local:2", "--log", "json"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True) as client:
        for said in client.stderr:
            if json.loads(said)["event"] == "BlockStored":
                break
        children = psutil.Process(client.pid).children(recursive=True)
        assert len(children) >= 2
        if number == signal.SIGINT:
            os.killpg(client.pid, number)
        else:
            client.send_signal(number)
        rest = client.communicate(timeout=60)[1].splitlines()
    said = [text for text in rest if text and not text.startswith("{")]
    if number != signal.SIGKILL:
        assert said == ["error: interrupted; run the same command again to carry on"]
        assert client.returncode == 4
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert [path.name for path in tmp_path.glob("out*")] == ["out.tif.run"]
    assert 0 < segment(*files, RunOptions(tile=128)).blocks_computed < 20 * 18
    segment(scene, place / "net.onnx", tmp_path / "whole.tif", RunOptions(tile=128))
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not list(tmp_path.glob("*.run*"))


def test_damage_in_a_worker_is_the_damage_of_one_process(place, dask, tmp_path):
    """The same kind of line; and the same map where it may be nodata."""
    raw_CHW = np.random.default_rng(0).integers(1, 255, (3, 300, 430), np.uint8)
    layout = {"tiled": True, "compress": "deflate", "blockxsize": 64, "blockysize": 64, **HERE}
    scene = write_raster(tmp_path / "scene.tif", raw_CHW, **layout)
    content = bytearray(scene.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    scene.write_bytes(content)
    lines, maps = [], []
    for name, scheduler in (("alone", None), ("cluster", dask.address)):
        files = scene, place / "net.onnx", tmp_path / f"{name}.tif"
        with pytest.raises(DamageError) as caught:
            segment(*files, RunOptions(tile=128, scheduler=scheduler))
        lines.append(str(caught.value))
        report = segment(*files, RunOptions(tile=128, scheduler=scheduler, on_error="nodata"))
        maps.append((files[2].read_bytes(), report.damaged))
    assert maps[0] == maps[1]
    assert maps[0][1]
    assert lines[0] == lines[1]


@pytest.fixture
def archive(tmp_path):
    """Six rasters, one of which is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        raw_CHW = rng.integers(1, 255, (3, 200 + number, 300), np.uint8)
        write_raster(folder / f"{number}.tif", raw_CHW, tiled=True, **HERE)
    (folder / "5.tif").write_text("no raster")
    return folder


def batch(capsys, archive, output, *options) -> tuple[int, str]:
    """The command; its exit code, and its last line on stderr."""
    line = ["batch", archive.parent / "net.onnx", output, archive, "--tile", "128", *options]
    code = run_command(command, [str(a) for a in line])
    return code, capsys.readouterr().err.strip().splitlines()[-1]


def test_an_archive_on_a_cluster(place, dask, archive, tmp_path, capsys):
    """Each raster is a task; files, failures and exit code are those of one process."""
    shutil.copy(place / "net.onnx", tmp_path)
    alone = batch(capsys, archive, tmp_path / "alone", "--workers", "0")
    assert alone[0] == 1
    for name in ("cluster", "killed"):
        if name == "killed":
            timer = threading.Timer(0.3, working(dask)[0].kill)
            timer.start()
        found = batch(capsys, archive, tmp_path / name, "--scheduler", dask.address)
        assert found == (1, alone[1].replace("alone", name))
        for number in range(5):
            made = (tmp_path / name / f"{number}.tif").read_bytes()
            assert made == (tmp_path / "alone" / f"{number}.tif").read_bytes()
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["totals"]["done"] + record["totals"]["already"] == 5
        assert not list((tmp_path / name).rglob("*.run"))
    timer.join()


def test_a_raster_that_always_kills_its_worker(dask, tmp_path, monkeypatch):
    """It has failed, and the others have not."""
    monkeypatch.setattr("tiler.cluster.executor.perform_task", signal_of)
    tasks = [Task("0", "net", "out", RunOptions()), Task("9", "net", "out", RunOptions())]
    executor = DaskExecutor(dask.address, gpu=False, notes=lambda event: None)
    outcomes = dict(executor.run(tasks, lambda task, event: None))
    assert outcomes[tasks[0]] == "alive"
    assert outcomes[tasks[1]].status == "failed"
    assert "workers died of one task" in outcomes[tasks[1]].reason


def test_workers_and_scheduler_exclude_each_other(place, tmp_path, capsys):
    line = ["batch", place / "net.onnx", tmp_path / "out", place, "--workers", "2", "--scheduler", "local:2"]
    refused(capsys, command, line, "--workers are of this machine", "choose one")


def test_what_nobody_waits_for_is_stopped(dask, tmp_path):
    """At its next event, so that the same command run again finds nobody at work."""
    logs = [tmp_path / "first", tmp_path / "second"]
    with connected(dask.address, lambda event: None) as cluster:
        answers = cluster.results(write_until_unwanted, logs)
        assert next(answers) == (logs[1], "enough")
        answers.close()
    size = -1
    while size != (size := logs[0].stat().st_size):
        time.sleep(0.5)


def test_a_task_that_always_kills_its_worker(dask):
    """It is given up with one line, exit 1; the others are done."""
    with connected(dask.address, lambda event: None) as cluster:
        answers = dict(cluster.results(raise_signal, [signal.SIGKILL, 0]))
    assert answers[0] == "alive"
    error = answers[signal.SIGKILL]
    assert isinstance(error, ClusterError)
    assert error.exit_code == 1
    assert "workers died of one task" in str(error)


def test_tasks_are_sent_in_waves(dask):
    """However many there are, few are in flight."""
    drawn = []
    items = (drawn.append(i) or 0 for i in range(300))
    with connected(dask.address, lambda event: None) as cluster:
        for answered, (_, answer) in enumerate(cluster.results(raise_signal, items), 1):
            assert answer == "alive"
            assert len(drawn) - answered <= LEAST_IN_FLIGHT
    assert answered == 300


def test_a_failure_that_may_pass_is_tried_again(dask, tmp_path):
    """Three times; others are not."""
    notes = []
    with connected(dask.address, notes.append) as cluster:
        ((_, gone),) = cluster.results(fail_until, [(tmp_path / "a", errors.OutputError, 2)])
        ((_, lasting),) = cluster.results(fail_until, [(tmp_path / "b", errors.OutputError, 9)])
        ((_, other),) = cluster.results(fail_until, [(tmp_path / "c", errors.DamageError, 9)])
    assert gone == "done"
    assert str(lasting) == "failure 3"
    assert str(other) == "failure 1"
    assert [note.message for note in notes] == [f"tried again: failure {i}" for i in (1, 2, 1, 2)]


def test_a_scheduler_that_does_not_answer(place, tmp_path, capsys, monkeypatch):
    """One line, nothing is left."""
    monkeypatch.setattr("tiler.cluster.connection.PATIENCE", "1s")
    files = [place / "scene.tif", place / "net.onnx", tmp_path / "out.tif"]
    line = ["segment", *files, "--scheduler", "tcp://127.0.0.1:9", "--quiet"]
    refused(capsys, command, line, "no Dask scheduler answers at tcp://127.0.0.1:9", code=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["local", "local:0", "local:x", "tcp://host", "http://host:1", "host:8786", "tcp://a b:1", ""]
)
def test_a_scheduler_that_is_none(text):
    with pytest.raises(UsageError, match=r"a scheduler is local:N, tcp://HOST:PORT or tls://HOST:PORT, got"):
        Scheduler.parse(text)
    with pytest.raises(UsageError, match=r"a scheduler is"):
        RunOptions(scheduler=text)


def test_shard_and_scheduler_exclude_each_other():
    with pytest.raises(UsageError, match=r"--scheduler and --shard .* choose one"):
        RunOptions(scheduler="local:2", shard=(1, 2))


def test_a_worker_of_another_version(place, dask, tmp_path, monkeypatch):
    """Both are named; nothing is left."""
    monkeypatch.setattr("tiler.cluster.client.__version__", "9.9")
    with pytest.raises(MissingError, match=rf"got gigatiler 9\.9 and {__version__} on worker tcp://"):
        run(place, tmp_path / "out.tif", scheduler=dask.address)
    assert not list(tmp_path.iterdir())


def test_a_worker_of_another_kind(place, dask, tmp_path, monkeypatch):
    """Its bytes would differ."""
    monkeypatch.setattr(fingerprint, "processor", lambda: "z80")
    with pytest.raises(UsageError, match=r'kind of processor .*"z80".*workers are of the client\'s kind'):
        run(place, tmp_path / "out.tif", scheduler=dask.address)
    assert not list(tmp_path.iterdir())


def test_a_worker_of_several_threads(place, tmp_path):
    """Processes share nothing; threads would share a network."""
    with ExitStack() as stack:
        dask = Dask(tmp_path, stack)
        dask.add_worker(threads=2)
        with pytest.raises(UsageError, match=r"a worker has one thread, got 2 on worker .*--nthreads 1"):
            run(place, tmp_path / "out.tif", scheduler=dask.address)


@pytest.mark.parametrize("gone", ["source", pytest.param("output", marks=pytest.mark.slow)])
def test_a_worker_that_does_not_see_a_path(place, dask, tmp_path, gone, monkeypatch):
    """As if it lay on the client's own disk."""
    shared = SharedRun("me", str(place / "scene.tif"), place / "net.onnx", tmp_path / "out.tif", RunOptions())
    if gone == "source":
        shared = replace(shared, source="/not/here.tif")
    task = partial(compute_part, shared)
    with connected(dask.address, lambda event: None) as cluster:
        ((_, error),) = cluster.results(task, [Part(0, 0, 1, 1)])
    assert isinstance(error, InputError)
    assert "on worker tcp://" in str(error)
    assert "same on all machines" in str(error) or "shared disk" in str(error)
    assert not list(tmp_path.iterdir())


def test_a_task_for_a_gpu_goes_where_one_is(tmp_path):
    """By the resource that the worker offers; workers of our own are refused."""
    with ExitStack() as stack:
        dask = Dask(tmp_path, stack)
        dask.add_worker()
        nanny = dask.add_worker(more=["--resources", "GPU=1"])
        dask.wait()
        with connected(dask.address, lambda event: None, gpu=True) as cluster:
            pids = {pid for _, pid in cluster.results(process_id, range(20))}
        (worker,) = (child.pid for child in psutil.Process(nanny.pid).children() if child in working(dask))
        assert pids == {worker}
    with pytest.raises(UsageError, match=r"--device cuda:0,1"), connected("local:2", print, gpu=True):
        pass


def test_two_clients_on_one_output(place, dask, tmp_path):
    """The second is told of the first."""
    tries = []

    def again(event):
        if isinstance(event, BlockStored) and not tries:
            with pytest.raises(UsageError, match=r"process .* is running it on a cluster already") as caught:
                run(place, tmp_path / "out.tif", scheduler=dask.address)
            tries.append(caught)
            with pytest.raises(UsageError, match=r"process .* is writing .*out\.tif"):
                run(place, tmp_path / "out.tif")

    run(place, tmp_path / "out.tif", observer=again, scheduler=dask.address)
    assert tries
    assert_same(place, tmp_path / "out.tif")


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.data())
def test_parts_share_out_what_is_missing(height, width, side, count, data):
    """Each missing block is in one part; no part is without."""
    grid = BlockGrid(height, width, side)
    size = grid.shape[0] * grid.shape[1]
    flags = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    missing = BlockSet(grid, np.array(flags).reshape(grid.shape))
    found = [part.of(missing) for part in parts(missing, count)]
    np.testing.assert_array_equal(sum((f.members_RC.astype(int) for f in found), 0), missing.members_RC)
    assert all(map(len, found))


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(1, 1e9), st.integers(0, 1000))
def test_parts_are_of_seconds_and_enough_for_all(height, width, rate, workers):
    grid = BlockGrid(height, width, 1024)
    side = part_side(grid, rate, workers)
    assert side >= 1
    assert side == 1 or grid.shape[0] * grid.shape[1] / side**2 >= PER_WORKER * max(1, workers) / 2.25


KINDS = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.TilerError)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_travel(kind):
    """From worker to client, with type, message and exit code, and whatever else they say."""
    more = {errors.OtherRunError: ("a model", False), errors.OtherPolygonsError: ("min_area",)}
    error = kind("the rule", *more.get(kind, ()))
    told = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(told), str(told), told.exit_code) == (kind, "the rule", kind.exit_code)
    assert vars(told) == vars(error)


def test_a_torn_block_travels():
    error = pickle.loads(pickle.dumps(TornBlockError(3, 4)))  # noqa: S301 - our own
    assert error.place == (3, 4)
    assert str(error) == str(TornBlockError(3, 4))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
def test_a_scheduler_that_speaks_tls(place, tmp_path, monkeypatch):
    """With a certificate of one's own; without one nobody gets in."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=tiler", "-keyout", key, "-out", cert]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names], check=True, capture_output=True
    )
    files = ["--protocol", "tls", "--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    monkeypatch.setattr("tiler.cluster.connection.PATIENCE", "2s")
    with ExitStack() as stack:
        dask = Dask(tmp_path, stack, files)
        dask.add_worker()
        assert dask.address.startswith("tls://")
        with pytest.raises(MissingError, match=r"tls://.* needs a certificate and a key"):
            run(place, tmp_path / "out.tif", scheduler=dask.address)
        with pytest.raises(MissingError, match=r"no Dask scheduler answers at tcp://"):
            run(place, tmp_path / "out.tif", scheduler=dask.address.replace("tls", "tcp"))
        tls = {"distributed.comm.tls.ca-file": str(cert)}
        tls |= {"distributed.comm.tls.client.cert": str(cert), "distributed.comm.tls.client.key": str(key)}
        with dask_config.set(tls):
            run(place, tmp_path / "out.tif", scheduler=dask.address)
    assert_same(place, tmp_path / "out.tif")

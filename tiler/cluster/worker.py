"""What a worker does: some blocks of a run computed and stored, or one raster of a batch segmented.

A worker keeps one network open from task to task, for blocks also the raster, and never more than one: its
memory is planned for one.
"""

from __future__ import annotations

import pickle
import signal
import socket
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import rasterio

from tiler import __version__
from tiler.backends.onnx import load_model
from tiler.batch.task import perform
from tiler.blocks import BlockSet
from tiler.compute import Work, compute
from tiler.errors import InputError, MissingError, UsageError
from tiler.events import Event, Noted
from tiler.fingerprint import fingerprint
from tiler.folder import RunFolder
from tiler.job import prepare
from tiler.planning import within
from tiler.stopwatch import Stopwatch
from tiler.store import BlockStore

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from tiler.batch.task import Outcome, Task
    from tiler.cluster.parts import Part
    from tiler.fingerprint import Fingerprint
    from tiler.job import Job
    from tiler.model import Model
    from tiler.options import RunOptions
    from tiler.planning import Plan

Kept = TypeVar("Kept")


class NotWantedError(BaseException):
    """Nobody waits for this task any more. Not an `Exception`: that would be a failure of its raster."""


@dataclass(frozen=True, slots=True)
class SharedRun:
    """A run that another process has begun. Paths are absolute and mean the same on every machine."""

    client: str
    """Name of that process: what is open for one is not used for another."""
    source: str
    model: Path
    output: Path
    options: RunOptions


@dataclass(frozen=True, slots=True)
class Done:
    """What a task has done."""

    blocks: int
    """That it computed; others were there."""
    pixels: int
    """Of these."""
    tiles: int
    seconds: dict[str, float]
    """Spent in each stage."""
    notes: tuple[str, ...]
    """What the user should know."""


@dataclass(slots=True, eq=False)
class OpenRun:
    """A run in this process: raster and network are open."""

    run: SharedRun
    job: Job = field(init=False)
    mark: Fingerprint = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.job = prepare(self.run.source, self.run.model, self.run.options)
        except InputError as error:
            raise InputError(f"{error} (on {here()}; a path means the same on all machines)") from None
        self.mark = fingerprint(self.job)

    def compute(self, part: Part) -> Done:
        """Store the blocks of a part that are not there."""
        job, stopwatch, notes = self.job, Stopwatch(), []

        def note(event: Event) -> None:
            check_wanted(event)
            if isinstance(event, Noted):
                notes.append(f"{event.message} (on {here()})")

        with RunFolder(self.run.output) as folder:
            plan = self._plan(folder)
            wanted = part.of(BlockSet.all(plan.blocks))
            plan = within(plan, part.window(plan.blocks), job.model)
            with rasterio.Env(GDAL_CACHEMAX=plan.cache):
                store = BlockStore(folder.path / "blocks", plan.blocks, job.finisher.planes)
                store.open()
                work = Work(job, plan, store, folder, note, stopwatch)
                compute(work, wanted)
        seconds = dict(stopwatch.seconds)
        return Done(work.blocks_computed, work.pixels_computed, work.backend.tiles, seconds, tuple(notes))

    def _plan(self, folder: RunFolder) -> Plan:
        try:
            return self.job.fitted(folder.join(self.mark).plan)
        except UsageError as error:
            raise type(error)(f"{error} (on {here()}; workers are of the client's kind)") from None


_lock = threading.Lock()
_open: dict[Hashable, OpenRun | Model] = {}
"""The one thing that is open, by what it was opened for."""


def call(version: str, pickled: bytes) -> Any:  # noqa: ANN401 - what the function returns
    """The task: a function and its argument, pickled by gigatiler of this version, and opened by no other.

    Raises
    ------
    MissingError
        if this worker's version is another one.
    UsageError
        if this worker does several tasks at once.
    """
    from distributed import get_worker

    if version != __version__:
        raise MissingError(
            f"client and workers are of one version, got gigatiler {version} and {__version__} on {here()}"
        )
    threads = get_worker().state.nthreads
    if threads != 1:
        raise UsageError(f"a worker has one thread, got {threads} on {here()}; start it with --nthreads 1")
    function, argument = pickle.loads(pickled)  # noqa: S301 - Dask unpickles what it is sent anyway
    return function(argument)


def compute_part(run: SharedRun, part: Part) -> Done:
    """Store the blocks of a part of a run.

    Raises
    ------
    TilerError
        as `tiler.segment` does.
    """
    with _lock:
        opened = _kept(run, lambda: OpenRun(run))
        try:
            return opened.compute(part)
        except BaseException:
            # What failed once is opened anew.
            _open.clear()
            raise


def perform_task(client: str, task: Task) -> Outcome:
    """Segment one raster of a batch.

    Raises
    ------
    TilerError
        if the network cannot be loaded.
    """
    options = replace(task.options, mask=None, mpp=None, overwrite=False)
    with _lock:
        model = _kept((client, task.model, options), lambda: load_model(task.model, task.options))
        return perform(task, model, check_wanted)


def _kept(key: Hashable, make: Callable[[], Kept]) -> Kept:
    """What was made for the key, or what is made for it now; what was made for another one goes first."""
    if key not in _open:
        _open.clear()
        _open[key] = make()  # type: ignore[assignment] # one of both kinds
    return _open[key]  # type: ignore[return-value] # as it was made for this key


def forget() -> None:
    """Close what is open."""
    with _lock:
        _open.clear()


def check_wanted(event: Event | None = None) -> None:
    """Stop a task whose client has cancelled it, or is no more; an observer.

    Raises
    ------
    NotWantedError
        if that is so.
    """
    from distributed import get_worker
    from distributed.worker import thread_state  # type: ignore[attr-defined] # its key has no other way

    del event
    task = get_worker().state.tasks.get(thread_state.key)
    # Resumed: it was cancelled and is wanted again.
    if task is None or task.state not in {"executing", "resumed"}:
        raise NotWantedError


def dask_setup(worker: object) -> None:
    """Make a worker deaf to Ctrl-C, which a terminal sends to all; the client stops it. Dask calls this."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def here() -> str:
    """The worker in which it is called, in words."""
    from distributed import get_worker

    return f"worker {get_worker().address}, {socket.gethostname()}"

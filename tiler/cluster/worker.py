"""What a worker does: some blocks of a run, computed and stored.

A worker keeps the raster and the network of one run open from task to task, and never more than one: its
memory is planned for one.
"""

from __future__ import annotations

import pickle
import signal
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import rasterio

from tiler import __version__
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
    from pathlib import Path

    from tiler.cluster.parts import Part
    from tiler.fingerprint import Fingerprint
    from tiler.job import Job
    from tiler.options import RunOptions
    from tiler.planning import Plan


@dataclass(frozen=True, slots=True)
class SharedRun:
    """A run that another process has begun. Paths are absolute and mean the same on every machine."""

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
_open: dict[bytes, OpenRun] = {}
"""The run that is open, by its pickled description."""


def compute_part(version: str, pickled: bytes, part: Part) -> Done:
    """The task.

    Parameters
    ----------
    version
        Of gigatiler where the task was made; ``pickled`` is only opened by the same one.
    pickled
        A `SharedRun`.
    part
        Which of its blocks.

    Raises
    ------
    TilerError
        as `tiler.segment` does.
    """
    check_worker(version)
    with _lock:
        if pickled not in _open:
            _open.clear()
            _open[pickled] = OpenRun(pickle.loads(pickled))  # noqa: S301 - Dask unpickles what it is sent anyway
        try:
            return _open[pickled].compute(part)
        except BaseException:
            # What failed once is opened anew.
            _open.clear()
            raise


def forget() -> None:
    """Close the run that is open."""
    with _lock:
        _open.clear()


def check_worker(version: str) -> None:
    """Refuse to work in a process that would not do as the client expects.

    Raises
    ------
    MissingError
        if it is of another version.
    UsageError
        if it runs several tasks at once.
    """
    from distributed import get_worker

    if version != __version__:
        raise MissingError(
            f"client and workers are of one version, got gigatiler {version} and {__version__} on {here()}"
        )
    threads = get_worker().state.nthreads
    if threads != 1:
        raise UsageError(f"a worker has one thread, got {threads} on {here()}; start it with --nthreads 1")


def dask_setup(worker: object) -> None:
    """Make a worker deaf to Ctrl-C, which a terminal sends to all; the client stops it. Dask calls this."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def here() -> str:
    """The worker in which it is called, in words."""
    from distributed import get_worker

    return f"worker {get_worker().address}, {socket.gethostname()}"

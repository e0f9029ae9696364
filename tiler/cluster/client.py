"""The client's side: tasks in waves, answers as they come, and what is lost said in one line.

A bounded number of tasks is in flight, so that memory and messages stay flat for a million of them.
"""

from __future__ import annotations

import logging
import pickle
import queue
import time
import uuid
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tiler import __version__
from tiler.backends.runtime import cores
from tiler.cluster.parts import part_side, parts
from tiler.cluster.scheduler import Scheduler
from tiler.cluster.worker import SharedRun, call, compute_part, forget
from tiler.errors import (
    ClusterError,
    DamageError,
    MissingError,
    OutOfMemoryError,
    OutputError,
    RemoteError,
    TilerError,
    UsageError,
    one_line,
)
from tiler.estimate import network_seconds
from tiler.events import BlockStored, Noted
from tiler.readers.address import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from tiler.blocks import BlockSet
    from tiler.compute import Work
    from tiler.ports import Observer

ATTEMPTS: Final = 3
"""How often a task is tried that fails for a reason that may pass."""
PASSING: Final = (RemoteError, OutputError, OutOfMemoryError)
LEAST_IN_FLIGHT: Final = 64
"""Also where no worker is yet: an adaptive cluster grows by what waits."""
IN_FLIGHT_PER_WORKER: Final = 4
BEAT: Final = 5.0
"""Seconds without an answer after which scheduler and workers are looked at."""
PATIENCE: Final = "10s"
"""For a scheduler to answer."""

Item = TypeVar("Item")


@dataclass(slots=True, eq=False)
class Cluster:
    """Workers that tasks are sent to."""

    scheduler: Scheduler
    observer: Observer
    gpu: bool
    """Whether each task takes one unit of the workers' resource GPU."""
    _client: Any
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Of this client in its tasks: answers to another one's are not ours."""
    _numbers: Iterator[int] = field(default_factory=count)
    _told: bool = False

    def workers(self) -> int:
        """How many there are now.

        Raises
        ------
        ClusterError
            if the scheduler is lost.
        """
        try:
            return len(self._client.nthreads())
        except (OSError, TimeoutError, RuntimeError, ValueError):
            raise self._lost() from None

    def results(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Item],
        sent: Callable[[Item], Any] = lambda item: item,
    ) -> Generator[tuple[Item, Any]]:
        """Call the function in some worker on what is sent of each item; items with answers, as they come.

        An answer is what the function returned, or the `TilerError` that it ended with.

        Raises
        ------
        ClusterError
            if the scheduler is lost.
        """
        waiting, needs = iter(items), {"GPU": 1} if self.gpu else None
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        flying: dict[str, tuple[Item, int, Any]] = {}

        def send(item: Item, attempt: int) -> None:
            key = f"tiler-{self.name}-{next(self._numbers)}"
            told = __version__, pickle.dumps((function, sent(item)))
            future = self._client.submit(call, *told, key=key, pure=False, resources=needs)
            flying[key] = item, attempt, future
            future.add_done_callback(done.put)

        most = self._most()
        try:
            while True:
                for item in islice(waiting, max(0, most - len(flying))):
                    send(item, 1)
                if not flying:
                    return
                try:
                    future = done.get(timeout=BEAT)
                except queue.Empty:
                    most = self._most()
                    continue
                item, attempt, _ = flying.pop(future.key)
                answer = self._answer(future)
                if isinstance(answer, PASSING) and attempt < ATTEMPTS:
                    self.observer(Noted(f"tried again: {answer}"))
                    send(item, attempt + 1)
                else:
                    yield item, answer
        finally:
            # Those that have begun do no harm; the others are not begun.
            with suppress(OSError, RuntimeError, ValueError):
                self._client.cancel([future for _, _, future in flying.values()], asynchronous=False)

    def _most(self) -> int:
        """Tasks to have in flight."""
        workers = self.workers()
        if not workers and not self._told:
            self.observer(Noted(f"no workers at {self.scheduler.address} yet: waiting for them"))
        self._told = not workers
        return max(LEAST_IN_FLIGHT, IN_FLIGHT_PER_WORKER * workers)

    def _answer(self, future: Any) -> Any:  # noqa: ANN401 - Dask has no types
        """What came of a task; what is neither an answer nor an error of ours is raised."""
        from distributed.scheduler import KilledWorker

        if future.status == "finished":
            return future.result()
        if future.status != "error":
            raise self._lost()
        error = future.exception()
        if isinstance(error, TilerError):
            return error
        if isinstance(error, KilledWorker):
            return ClusterError(
                f"{error.allowed_failures + 1} workers died of one task, the last at "
                f"{error.last_worker.address}; short memory is the usual reason: lower --memory or --batch, "
                "and run the same command again"
            )
        if isinstance(error, ImportError):
            return MissingError(f"a worker lacks what the client has: {error}; install gigatiler there")
        raise error

    def _lost(self) -> ClusterError:
        where = self.scheduler.address or "the workers of this machine"
        return ClusterError(f"lost the scheduler at {where}; blocks are kept: run the same command again")

    def compute(self, work: Work, wanted: BlockSet, source: str | Path) -> None:
        """Store every wanted block that is not there; ``source`` is what the run was called with.

        Raises
        ------
        TilerError
            as `tiler.compute.compute` does, or `ClusterError`.
        """
        missing = wanted.without(work.store.present())
        if not len(missing):
            return
        work.workers = max(self.workers(), 1)
        side = part_side(missing.grid, self._rate(work), work.workers)
        task = partial(compute_part, self._shared(work, source))
        work.stopwatch.begun = work.stopwatch.begun or time.perf_counter()
        done, total = wanted.pixels - missing.pixels, wanted.pixels
        for part, answer in self.results(task, parts(missing, side)):
            if isinstance(answer, TilerError):
                work.folder.keep = work.folder.keep or isinstance(answer, DamageError)
                raise answer
            work.add(answer)
            pixels = part.of(missing).pixels
            done += pixels
            for note in answer.notes:
                work.observer(Noted(note))
            work.observer(BlockStored(str(part.window(missing.grid)), pixels, done, total))
        self.forget()

    def forget(self) -> None:
        """Let the workers close what they have open."""
        with suppress(OSError, RuntimeError, ValueError):
            self._client.run(forget)

    def _rate(self, work: Work) -> float:
        """Pixels of the raster per second that one worker computes, roughly: timed here."""
        grid = work.plan.blocks
        seconds = network_seconds(work.job.model, work.plan)
        work.backend.release()
        return grid.height * grid.width / seconds / max(1, self.scheduler.workers)

    def _shared(self, work: Work, source: str | Path) -> SharedRun:
        """The run as a worker on another machine can open it."""
        options, own = work.job.options, self.scheduler.workers
        told = replace(
            options,
            scheduler=None,
            overwrite=False,
            mask=None if options.mask is None else str(Path(options.mask).absolute()),
            threads=options.threads or (max(1, cores() // own) if own else None),
        )
        return SharedRun(
            self.name,
            str(source if is_remote(source) else Path(source).absolute()),
            work.job.model.path.absolute(),
            work.folder.output.absolute(),
            told,
        )


@contextmanager
def connected(text: str, observer: Observer, gpu: bool = False) -> Iterator[Cluster]:
    """The cluster that ``--scheduler`` names; workers of our own are stopped at the end.

    Raises
    ------
    UsageError
        if workers of our own are to share the cards of this machine.
    MissingError
        if Dask is not installed, or no scheduler answers.
    """
    scheduler = Scheduler.parse(text)
    if gpu and scheduler.workers:
        raise UsageError(
            f"several cards of one machine need no scheduler, got {text} on a GPU; pass --device cuda:0,1 "
            "without it, or --device cpu"
        )
    try:
        import distributed
    except ImportError:
        raise MissingError('--scheduler needs Dask: pip install "gigatiler[dask]"') from None
    _silence()
    if scheduler.workers:
        with own_workers(scheduler.workers) as place, _client(distributed, scheduler, place) as client:
            yield Cluster(scheduler, observer, gpu, client)
    else:
        _check_keys(distributed, scheduler)
        with _client(distributed, scheduler, scheduler.address) as client:
            yield Cluster(scheduler, observer, gpu, client)


def _check_keys(distributed: Any, scheduler: Scheduler) -> None:  # noqa: ANN401 - Dask has no types
    """Dask would end in a traceback where there are none."""
    given = distributed.Security().get_connection_args("client")
    if scheduler.address.startswith("tls://") and given["ssl_context"] is None:
        raise MissingError(
            f"{scheduler.address} needs a certificate and a key; set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "..__CLIENT__CERT and ..__CLIENT__KEY"
        )


@contextmanager
def _client(distributed: Any, scheduler: Scheduler, place: Any) -> Iterator[Any]:  # noqa: ANN401
    try:
        client = distributed.Client(place, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        where = scheduler.address or "this machine"
        raise MissingError(
            f"no Dask scheduler answers at {where} ({one_line(error)}); start one with: dask scheduler"
        ) from None
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError, RuntimeError):
            client.close(timeout=2)


@contextmanager
def own_workers(number: int) -> Iterator[Any]:
    """Workers on this machine, one process and one thread each, that nobody else can reach.

    They die with this process, however it ends.
    """
    from distributed import LocalCluster

    cluster = LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=number,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
        memory_limit=0,
        preload=["tiler.cluster.worker"],
    )
    try:
        yield cluster
    finally:
        cluster.close(timeout=5)


def _silence() -> None:
    """What matters arrives as an error, in one line."""
    for name in ("distributed", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="distributed")

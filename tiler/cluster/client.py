"""The client's side: tasks in waves, answers as they come, and what is lost said in one line.

A bounded number of tasks is in flight, so that memory and messages stay flat for a million of them.
"""

from __future__ import annotations

import pickle
import queue
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tiler import __version__
from tiler.backends.runtime import cores
from tiler.cluster.parts import part_side, parts
from tiler.cluster.worker import SharedRun, call, compute_part, forget
from tiler.errors import (
    ClusterError,
    DamageError,
    MissingError,
    OutOfMemoryError,
    OutputError,
    RemoteError,
    TilerError,
)
from tiler.estimate import network_seconds
from tiler.events import BlockStored, Noted
from tiler.readers.address import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from tiler.blocks import BlockSet
    from tiler.cluster.scheduler import Scheduler
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
        waiting = iter(items)
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        flying: dict[str, tuple[Item, int, Any]] = {}

        def send(item: Item, attempt: int) -> None:
            key = f"tiler-{self.name}-{next(self._numbers)}"
            told = __version__, pickle.dumps((function, sent(item)))
            needs = {"GPU": 1} if self.gpu else None
            future = self._client.submit(call, *told, key=key, pure=False, resources=needs)
            flying[key] = item, attempt, future
            future.add_done_callback(done.put)

        most, looked = self._most(), time.monotonic()
        try:
            while True:
                for item in islice(waiting, max(0, most - len(flying))):
                    send(item, 1)
                if not flying:
                    return
                with suppress(queue.Empty):
                    item, attempt, future = flying.pop(done.get(timeout=BEAT).key)
                    answer = self._answer(future)
                    if isinstance(answer, PASSING) and attempt < ATTEMPTS:
                        self.observer(Noted(f"tried again: {answer}"))
                        send(item, attempt + 1)
                    else:
                        yield item, answer
                if time.monotonic() > looked + BEAT:
                    most, looked = self._most(), time.monotonic()
        finally:
            # The others are not begun; those that have begun stop at their next block.
            with suppress(OSError, RuntimeError, ValueError):
                self._client.cancel([future for _, _, future in flying.values()], asynchronous=False)

    def _most(self) -> int:
        """Tasks to have in flight."""
        workers = self.workers()
        if not workers and not self._told:
            gpu = " (with --resources GPU=1)" if self.gpu else ""
            self.observer(Noted(f"no workers at {self.scheduler.address} yet: waiting for them{gpu}"))
        self._told = not workers
        return max(LEAST_IN_FLIGHT, IN_FLIGHT_PER_WORKER * workers)

    def _answer(self, future: Any) -> Any:  # noqa: ANN401 - Dask has no types
        """What came of a task; an error that is not ours is raised."""
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except TilerError as error:
            return error
        except KilledWorker as error:
            return ClusterError(
                f"{error.allowed_failures + 1} workers died of one task, the last at "
                f"{error.last_worker.address}; short memory is the usual reason: lower --memory or --batch, "
                "and run the same command again"
            )
        except ImportError as error:
            return MissingError(f"a worker lacks what the client has: {error}; install gigatiler there")
        except (CancelledError, CommClosedError):
            raise self._lost() from None

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

"""Tasks performed in processes of their own: one per card, or as many as were asked for.

Where native code crashes, or the kernel ends a process for want of memory, one raster fails and another
process goes on with the next. Workers are killed when the batch is stopped, and end when it is killed:
what they stored stays.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final

from tiler import memory, signals
from tiler.backends.cuda import card_names, check_cards
from tiler.backends.onnx import load_model
from tiler.backends.runtime import cores
from tiler.batch.task import FAILED, Outcome, Task, perform
from tiler.device import Device
from tiler.errors import OutOfMemoryError, TilerError
from tiler.events import Event

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from tiler.batch.task import TaskObserver
    from tiler.options import RunOptions

SPAWN: Final = multiprocessing.get_context("spawn")
"""Never fork: the threads of GDAL and ONNX Runtime would not be there."""
KILLED: Final = -9
"""Exit code of a process that the kernel ended for want of memory, or a person."""
ORPHANED: Final = 4
"""Exit code of a worker whose batch is no more."""


@dataclass(slots=True, eq=False)
class Worker:
    """A process with a network on one device, and the task it is at."""

    device: str
    process: BaseProcess
    connection: Connection
    task: Task
    ready: bool = False
    """Whether it has loaded the network."""

    @classmethod
    def start(cls, device: str, task: Task) -> Worker:
        """Begin with a task, whose network is that of all which follow."""
        here, there = SPAWN.Pipe()
        with signals.held_back():
            process = SPAWN.Process(target=work, args=(there, _on(task, device)), daemon=True)
            process.start()
        # Else the end of the process would not end the connection.
        there.close()
        return cls(device, process, here, task)

    def give(self, task: Task) -> None:
        """Hand over the next task."""
        self.task = task
        # A process that is gone is noticed when it is listened to.
        with suppress(OSError):
            self.connection.send(_on(task, self.device))

    def hear(self) -> Event | Outcome | TilerError | None:
        """What it says next, None when it has loaded the network; if it is no more, how its task ended."""
        try:
            return self.connection.recv()  # type: ignore[no-any-return] # what `work` sends
        except (EOFError, OSError):
            self.process.join()
            outcome = crash(self.process.exitcode or 0)
            return outcome if self.ready else TilerError(f"no network was loaded: {outcome.reason}")

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self.process.exitcode is not None

    def stop(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self.connection.close()


@dataclass(slots=True, eq=False)
class Processes:
    """An executor with one worker per device; tasks are handed out one by one."""

    devices: Sequence[str]
    """Of each worker; several workers may be on the same one."""
    _workers: list[Worker] = field(init=False, default_factory=list)

    def run(self, tasks: Iterable[Task], observer: TaskObserver) -> Generator[tuple[Task, Outcome]]:
        """Perform each task in the first process that is free."""
        waiting = iter(tasks)
        try:
            for device, task in zip(self.devices, waiting, strict=False):
                self._workers.append(Worker.start(device, task))
            while self._workers:
                for connection in wait([worker.connection for worker in self._workers]):
                    worker = next(w for w in self._workers if w.connection is connection)
                    yield from self._heard(worker, waiting, observer)
        finally:
            for worker in self._workers:
                worker.stop()
            self._workers.clear()

    def _heard(
        self, worker: Worker, waiting: Iterator[Task], observer: TaskObserver
    ) -> Iterator[tuple[Task, Outcome]]:
        """Take note of what a worker says; it gets its next task before its outcome is looked at."""
        task, said = worker.task, worker.hear()
        if isinstance(said, TilerError):
            raise said
        if said is None:
            worker.ready = True
            return
        if isinstance(said, Event):
            observer(task, said)
            return
        following = next(waiting, None)
        if following is not None and not worker.gone:
            worker.give(following)
        else:
            self._workers.remove(worker)
            worker.stop()
            if following is not None:
                self._workers.append(Worker.start(worker.device, following))
        yield task, said


def crash(code: int) -> Outcome:
    """The outcome of a task whose process ended, by its exit code; below 0 that is a signal."""
    killed = code == KILLED
    how = f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
    hint = ", perhaps for want of memory; try --memory or fewer --workers" if killed else ""
    return Outcome(FAILED, f"the process at work on it ended with {how}{hint}", "Crash", environment=killed)


def work(connection: Connection, task: Task) -> None:
    """What a worker does: load the task's network, perform it and what comes next."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    try:
        model = load_model(task.model, task.options)
    except TilerError as error:
        connection.send(error)
        return
    except MemoryError as error:
        connection.send(OutOfMemoryError(f"not enough memory to load {task.model} ({error}); free some"))
        return

    def tell(event: Event) -> None:
        connection.send(event)

    connection.send(None)
    with suppress(EOFError):
        while True:
            connection.send(perform(task, model, tell))
            task = connection.recv()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - a worker has one
    parent.join()
    os._exit(ORPHANED)


def _on(task: Task, device: str) -> Task:
    return replace(task, options=replace(task.options, device=device))


def devices(options: RunOptions, workers: int | None) -> list[str]:
    """The device of each worker: one per card that is named, else one, unless told how many.

    Raises
    ------
    MissingError, UsageError
        if cards are not there, or are of several models.
    """
    device = Device.parse(options.device)
    if device.kind != "cuda":
        return [options.device] * (workers or 1)
    check_cards(device.cards, card_names())
    count = workers or len(device.cards)
    return [f"cuda:{number}" for number, _ in zip(cycle(device.cards), range(count), strict=False)]


def shared_out(options: RunOptions, workers: int) -> RunOptions:
    """A worker's share of cores and memory, where it was not told; neither changes a byte."""
    if workers < 2:
        return options
    return replace(
        options,
        threads=options.threads or max(1, cores() // workers),
        memory=options.memory or max(1, memory.available() // (2 * workers)),
    )

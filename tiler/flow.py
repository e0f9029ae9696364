"""The one place with threads: functions called ahead of their consumer, or aside from it."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

LOWEST: Final = 19
"""Of a thread's priorities."""
PATIENCE: Final = 5
"""So often a call that gave way may be waited for."""


@dataclass(slots=True, eq=False)
class Helpers(Generic[Result]):
    """Calls in other threads, which may give way to the consumer's.

    A network on a CPU waits for the slowest of its threads: one that shares its core for a tenth of the time
    holds up all. At the lowest priority helpers use the gaps between its layers. They do while a result is
    in stock, and until they have come late `PATIENCE` times: there they are behind other programs too, which
    may leave no gap.
    """

    polite: ThreadPoolExecutor
    plain: ThreadPoolExecutor
    late: int
    pending: deque[tuple[Future[Result], bool]] = field(default_factory=deque)
    """Calls in order, and whether each gives way."""

    def submit(self, function: Callable[[Item], Result], item: Item) -> None:
        """Call ``function(item)`` in one of them."""
        gives_way = self.late < PATIENCE and bool(self.pending) and self.pending[0][0].done()
        pool = self.polite if gives_way else self.plain
        self.pending.append((pool.submit(function, item), gives_way))

    def take(self) -> Result:
        """The result of the first call; waits for it."""
        future, gave_way = self.pending.popleft()
        self.late += gave_way and not future.done()
        return future.result()

    def cancel(self) -> None:
        """Drop what has not begun."""
        for future, _ in self.pending:
            future.cancel()


@contextmanager
def helpers(threads: int, *, give_way: bool) -> Iterator[Helpers[Any]]:
    """That many threads at work at most of each kind; none is left at the end."""
    with (
        ThreadPoolExecutor(threads, "tiler", _lower_priority) as polite,
        ThreadPoolExecutor(threads, "tiler") as plain,
    ):
        pool: Helpers[Any] = Helpers(polite, plain, 0 if give_way else PATIENCE)
        try:
            yield pool
        finally:
            pool.cancel()


def _lower_priority() -> None:
    """Of this thread, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)


def prefetch(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    depth: int,
    threads: int = 1,
    *,
    give_way: bool = False,
) -> Generator[Result]:
    """Yield ``function(item)`` for each item, in order, with up to ``depth`` calls running or waiting ahead.

    Items are drawn in the consumer's thread, calls run in ``threads`` others, at a lower priority if they
    ``give_way``; depth 0 is a plain loop. The first failure reaches the consumer unchanged. When the
    generator ends, by exhaustion, failure or ``close``, calls that have not begun are dropped and no thread
    is left.

    >>> list(prefetch(abs, [-1, 2, -3], depth=2))
    [1, 2, 3]
    """
    if depth == 0:
        yield from map(function, items)
        return
    with helpers(threads, give_way=give_way) as pool:
        for item in items:
            pool.submit(function, item)
            if len(pool.pending) > depth:
                yield pool.take()
        while pool.pending:
            yield pool.take()


def aside(function: Callable[[Callable[[], bool]], Result]) -> Result:
    """Call a function in another thread, so that what interrupts this one does not end up inside it.

    The function is given one that says whether it had better stop: because this thread was interrupted.

    >>> aside(lambda stopped: stopped())
    False
    """
    stop = Event()
    with ThreadPoolExecutor(1, thread_name_prefix="tiler") as pool:
        try:
            return pool.submit(function, stop.is_set).result()
        finally:
            stop.set()

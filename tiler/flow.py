"""The one place with threads: functions called ahead of their consumer, or aside from it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], depth: int, threads: int = 1
) -> Generator[Result]:
    """Yield ``function(item)`` for each item, in order, with up to ``depth`` calls running or waiting ahead.

    Items are drawn in the consumer's thread, calls run in ``threads`` others; depth 0 is a plain loop. The
    first failure reaches the consumer unchanged. When the generator ends, by exhaustion, failure or
    ``close``, calls that have not begun are dropped and no thread is left.

    >>> list(prefetch(abs, [-1, 2, -3], depth=2))
    [1, 2, 3]
    """
    if depth == 0:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="tiler") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


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

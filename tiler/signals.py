"""Signals to stop, and processes that are started here."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def held_back() -> Iterator[None]:
    """What is started meanwhile never hears SIGINT and SIGTERM: a terminal sends them to all at once.

    It is for this process to stop those that it started, or each of them would fail at its work.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started now, because it lets the signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

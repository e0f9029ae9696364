"""What GDAL logs while a file is read. It returns damaged JPEG as if nothing were wrong, and only says so."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG = logging.getLogger("rasterio._err")
_here = threading.local()


class _Collector(logging.Handler):
    """One for all threads: adding and removing handlers would make other threads' messages pass unseen."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message for the thread that logs it, if it watches."""
        seen = getattr(_here, "seen", None)
        if seen is not None:
            seen.append(" ".join(record.getMessage().split()))


_COLLECTOR = _Collector(logging.WARNING)


@contextmanager
def damage_watch() -> Iterator[list[str]]:
    """Collect what GDAL logs at warning level or above in this thread while the block runs.

    Raises
    ------
    UsageError
        if the program has switched warnings off altogether.
    """
    if _COLLECTOR not in _LOG.handlers:
        _LOG.addHandler(_COLLECTOR)
    # A program's logging configuration disables loggers that it does not know.
    _LOG.disabled = False
    if not _LOG.isEnabledFor(logging.WARNING):
        # Else a program that only wants to hear of errors would not hear of damage.
        _LOG.setLevel(logging.WARNING)
    if not _LOG.isEnabledFor(logging.WARNING):
        raise UsageError("damage is told by GDAL's warnings, got logging.disable(); enable warnings to read")
    seen: list[str] = []
    _here.seen = seen
    try:
        yield seen
    finally:
        _here.seen = None

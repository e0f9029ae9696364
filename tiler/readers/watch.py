"""What GDAL logs while a file is read: often the only trace of damage.

It returns damaged JPEG as if nothing were wrong, with a warning. Where it cannot read the table of a TIFF's
blocks, it returns zeros, with an error that rasterio passes on as mere information.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG: Final = logging.getLogger("rasterio._err")
_here = threading.local()
SIGNALLED: Final = "GDAL signalled an error"
"""How rasterio begins its record of an error, at the level of information."""


class _Ear(logging.Filter):
    """Hears every record for the thread that logs it; lets pass what would have been logged without it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._listeners = 0
        self._before = (logging.NOTSET, False)
        """The logger's own level, and whether it was disabled."""
        self._passing = logging.WARNING
        """The level from which records were logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the message if its thread watches."""
        seen = getattr(_here, "seen", None)
        trouble = record.levelno >= logging.WARNING or str(record.msg).startswith(SIGNALLED)
        if seen is not None and trouble:
            seen.append(_text(record))
        return record.levelno >= self._passing

    def begin(self) -> None:
        """Let records of errors reach this filter, whatever the program's configuration."""
        with self._lock:
            self._listeners += 1
            if self._listeners > 1:
                return
            self._before = _LOG.level, _LOG.disabled
            self._passing = logging.CRITICAL + 1 if _LOG.disabled else _LOG.getEffectiveLevel()
            # A program's logging configuration disables loggers that it does not know.
            _LOG.disabled = False
            _LOG.setLevel(min(self._passing, logging.INFO))
            _LOG.addFilter(self)

    def end(self) -> None:
        """Leave the logger as it was, when the last one has done."""
        with self._lock:
            self._listeners -= 1
            if not self._listeners:
                _LOG.removeFilter(self)
                level, _LOG.disabled = self._before
                _LOG.setLevel(level)


_EAR: Final = _Ear()


@contextmanager
def damage_watch() -> Iterator[list[str]]:
    """Collect the warnings and errors that GDAL logs in this thread while the block runs.

    Raises
    ------
    UsageError
        if the program has switched logging off altogether.
    """
    seen: list[str] = []
    outer = getattr(_here, "seen", None)
    _EAR.begin()
    try:
        if not _LOG.isEnabledFor(logging.INFO):
            raise UsageError(
                "damage is told by GDAL's log, got logging.disable(); silence loggers with setLevel() instead"
            )
        _here.seen = seen
        yield seen
    finally:
        _here.seen = outer
        _EAR.end()


def _text(record: logging.LogRecord) -> str:
    """GDAL's own words on one line, without rasterio's."""
    own = record.args[-1] if isinstance(record.args, tuple) and record.args else record.getMessage()
    return " ".join(str(own).split())

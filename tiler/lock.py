"""A lock that dies with its process: held alone by a run, or together by the shards of one.

It is the operating system's lock on a file (flock), so a killed process holds none. It is as good as the
file system: on one without flock there is no lock.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from pathlib import Path


class RunLock:
    """A lock file in the folder of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self.alone = False
        """Whether nobody else can hold it now."""

    def acquire(self, *, shared: bool = False, note: str = "") -> bool:
        """Take the lock, which this process does not hold, if it is free; never waits.

        Who holds it alone writes who it is, and a note, into the file.

        Raises
        ------
        FileNotFoundError
            if its folder is not there.
        OSError
            if the file system has no locks.
        """
        while True:
            with ExitStack() as stack:
                file = stack.enter_context(self.path.open("a+", encoding="utf-8"))
                if not _lock(file, shared):
                    return False
                # Else the folder was removed, and perhaps made again: that was a lock on nothing.
                if self._is_current(file):
                    self._file, self.alone = file, not shared
                    stack.pop_all()
                    break
        if self.alone:
            # Whoever is refused would like to know; on a full disk the lock counts without it.
            with suppress(OSError):
                file.truncate(0)
                file.write(json.dumps({**_this_process(), "note": note}))
                file.flush()
        return True

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file is not None:
            # On a full disk what was to be written is lost; the lock goes all the same.
            with suppress(OSError):
                self._file.close()
        self._file, self.alone = None, False

    def holder(self) -> str:
        """Who wrote the file last, in words."""
        said = self._said()
        if not {"process", "host", "started"} <= set(said):
            return "another process"
        return f"process {said['process']} on {said['host']}, started {said['started']}"

    def note(self) -> str:
        """What the holder noted."""
        return str(self._said().get("note", ""))

    def _said(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            said = json.loads(self.path.read_text(encoding="utf-8"))
            return said if isinstance(said, dict) else {}
        return {}

    def _is_current(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _lock(file: IO[str], shared: bool) -> bool:
    # Imported here, because it fails where there is no temporary folder, e.g. on a full disk.
    import portalocker
    from portalocker import LockFlags

    kind = LockFlags.SHARED if shared else LockFlags.EXCLUSIVE
    try:
        portalocker.lock(file, kind | LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise OSError(f"cannot lock {file.name}: {error}") from None
    return True


def _this_process() -> dict[str, str | int]:
    started = datetime.fromtimestamp(psutil.Process().create_time(), UTC).astimezone()
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "started": started.isoformat(" ", "seconds"),
    }

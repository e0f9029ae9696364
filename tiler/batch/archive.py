"""The output folder of a batch: its records, summaries, log and locks.

    run.json, summary.csv, summary.html    of the last batch; of shards what they have put together so far
    run-1-of-4.json                        of one shard
    errors.log                             tracebacks of errors that are not ours
    .batch/                                locks; thumbnails

Outputs are none of its business: a raster is done if its output says so.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tiler.batch.items import STATE
from tiler.batch.record import Record, merged, now, read_record, write_text
from tiler.batch.summary import to_csv, to_html
from tiler.durable import PARTIAL
from tiler.errors import OutputError, TilerError, UsageError
from tiler.fingerprint import differences
from tiler.lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiler.fingerprint import Fingerprint

SUMMARIES: Final = ("summary.csv", "summary.html")
LOG: Final = "errors.log"
INTERVAL: Final = 2.0
"""Seconds between two writes of the record, at least."""
SHARE: Final = 0.05
"""Of the time may go into writing it."""
PAUSE: Final = 0.05
PATIENCE: Final = 2.0
"""Seconds in which a shard that is about to share the lock will have done so."""


@dataclass(slots=True, eq=False)
class Archive:
    """An output folder, held by one batch or by the shards of one."""

    folder: Path
    shard: tuple[int, int] | None = None
    """(i, n): this process is one of several at work here."""
    binding: Fingerprint = field(default_factory=dict)
    """What all shards at work here have in common."""
    written: bool = field(init=False, default=False)
    """Whether the record has been."""
    _made: bool = field(init=False, default=False)
    """Whether the folder was not there before."""
    _next: float = field(init=False, default=0.0)
    """When the record may be written again, by `time.monotonic`."""

    @property
    def state(self) -> Path:
        """The folder of locks and thumbnails."""
        return self.folder / STATE

    def record_path(self, shard: tuple[int, int] | None) -> Path:
        """Of the batch, or of a shard."""
        return self.folder / ("run.json" if shard is None else f"run-{shard[0]}-of-{shard[1]}.json")

    def thumbnail(self, output: str) -> Path:
        """Where the picture of an output below this folder lies."""
        return (self.state / "thumbnails" / output).with_suffix(".jpg")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder where it is not there, and hold its lock.

        Raises
        ------
        UsageError
            if another batch is at work here, or the folder holds somebody else's files of our names.
        OutputError
            if it cannot be written to.
        """
        with ExitStack() as stack:
            try:
                self._made = not self.folder.is_dir()
                self.state.mkdir(parents=True, exist_ok=True)
                lock = RunLock(self.state / "lock")
                if self.shard is None:
                    self._hold(stack, lock)
                    # Only who holds the lock alone, because it goes with the folder.
                    stack.callback(self._tidy)
                else:
                    self._join(stack, lock)
                    number, count = self.shard
                    self._hold(stack, RunLock(self.state / f"shard-{number}-of-{count}.lock"))
                self._check()
            except TilerError:
                raise
            except OSError as error:
                raise OutputError(f"cannot write to {self.folder}: {error.strerror or error}") from None
            yield

    def _hold(self, stack: ExitStack, lock: RunLock) -> None:
        if not lock.acquire():
            raise UsageError(f"{lock.holder()} is at work in {self.folder}; wait for it, or stop it")
        stack.callback(lock.release)

    def _join(self, stack: ExitStack, lock: RunLock) -> None:
        """Share the lock with shards of the same network and options.

        Whoever finds nobody here notes in the lock what those that come later are held to.
        """
        last = time.monotonic() + PATIENCE
        while True:
            if lock.acquire(note=json.dumps(self.binding)):
                lock.release()
            if lock.acquire(shared=True):
                break
            # Another shard holds it alone for a moment only.
            if time.monotonic() > last:
                raise UsageError(f"{lock.holder()} is at work in {self.folder}; wait for it, or stop it")
            time.sleep(PAUSE)
        stack.callback(lock.release)
        # On a full disk nothing is noted.
        noted = lock.note()
        other = differences(json.loads(noted), self.binding) if noted else ""
        if other:
            raise UsageError(
                f"shards of a batch have the same network and options, and those at work in {self.folder} "
                f"have another {other}; wait for them, or stop them"
            )

    def _tidy(self) -> None:
        """Leave nothing if nothing was attempted."""
        if not self.written and not self.record_path(None).exists():
            with suppress(OSError):
                shutil.rmtree(self.state)
                if self._made:
                    self.folder.rmdir()

    def _check(self) -> None:
        """That what will be written over is ours; remove what killed processes were writing."""
        ours = read_record(self.record_path(None)) is not None or any(self.folder.glob("run-*-of-*.json"))
        for path in (self.folder / name for name in SUMMARIES):
            if path.exists() and not ours:
                raise UsageError(f"{path} is of no batch; choose another folder, or move it away")
        if self.shard is None:
            for path in self.folder.glob("*" + PARTIAL):
                path.unlink()

    def earlier(self) -> list[Record]:
        """What earlier batches recorded of this archive, the latest last."""
        parts = [self.record_path(self.shard)] if self.shard else sorted(self.folder.glob("run-*-of-*.json"))
        paths = (self.record_path(None), *parts)
        return [record for record in map(read_record, paths) if record is not None]

    def keep(self, record: Record) -> None:
        """Write the record and its summaries, unless they have just been written."""
        start = time.monotonic()
        if start >= self._next:
            self.write(record)
            now = time.monotonic()
            self._next = now + max(INTERVAL, (now - start) / SHARE)

    def write(self, record: Record) -> None:
        """Write the record and, but for a shard, its summaries.

        Raises
        ------
        OutputError
            if that fails.
        """
        record.write(self.record_path(self.shard))
        self.written = True
        if self.shard is None:
            self._summarise(record)

    def _summarise(self, record: Record) -> None:
        table, page = (self.folder / name for name in SUMMARIES)
        write_text(table, to_csv(record))
        write_text(page, to_html(record, lambda entry: self.thumbnail(entry.output)))

    def close(self, record: Record) -> None:
        """Write the record for the last time, and the summaries of all shards that have begun.

        Every shard does so when its own record says that it has ended, one after the other: so whichever is
        last puts all of them together.
        """
        self.write(record)
        if self.shard is None:
            # What shards of an earlier batch recorded is older than this.
            for path in self.folder.glob("run-*-of-*.json"):
                path.unlink()
            return
        count = self.shard[1]
        lock = RunLock(self.state / "merge.lock")
        while not lock.acquire():
            time.sleep(PAUSE)
        try:
            parts = [read_record(self.record_path((number, count))) for number in range(1, count + 1)]
            whole = merged(parts, record)
            whole.write(self.record_path(None))
            self._summarise(whole)
        finally:
            lock.release()

    def log(self, output: str, trace: str) -> None:
        """Keep a traceback."""
        with (self.folder / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{now()} {output}\n{trace}\n")

"""The run directory ``OUT.tif.run/``: what a run has done so far, so that a kill loses next to nothing.

    lock             held by whoever works here (`tiler.lock`)
    shard-1-of-2.lock, cluster.lock
                     held by each of several who share the first
    manifest.json    what the result depends on, and the plan
    blocks/          the result so far (`tiler.store`)
    labels.tif, probabilities.tif, finished-*
                     output files in the making, then verified, waiting for their names
    publishing       there while they get them

It goes when the output is in its place. Everything in it can be lost but the time it cost.
"""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from tiler.durable import sync_file, sync_folder, write_whole
from tiler.errors import InputError, OtherRunError, OutputError, TilerError, UsageError
from tiler.lock import RunLock
from tiler.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tiler.fingerprint import Fingerprint

PATIENCE: Final = 5.0
"""Seconds that a shard waits for somebody who does not say what for."""
PAUSE: Final = 0.05
BEGINNING: Final = "beginning"
FINISHING: Final = "finishing"
"""What the lock's holder notes in it while others had better wait than give up."""
SIDECARS: Final = (".aux.xml", ".ovr", ".msk")
"""What other programs put beside a GeoTIFF; of an old output they would lie about the new one."""
LEFTOVERS: Final = r"labels\.tif|probabilities\.tif|finished-.+"
OURS: Final = (
    rf"lock|shard-\d+-of-\d+\.lock|cluster\.lock|manifest\.json|blocks|publishing|{LEFTOVERS}|.+\.partial"
)
OURS_IN_BLOCKS: Final = r"zarr\.json|c|damage|.+\.partial"


@dataclass(slots=True, eq=False)
class RunFolder:
    """The run directory of one output, as a context manager that holds its lock."""

    output: Path
    shard: tuple[int, int] | None = None
    """(i, n): this process is one of several at work here."""
    cluster: bool = False
    """Whether the workers of a cluster work here too, see `join`."""
    path: Path = field(init=False)
    keep: bool = field(init=False, default=False)
    """Whether it stays also without a stored block."""
    _published: bool = field(init=False, default=False)
    _lock: RunLock = field(init=False)
    _own_lock: RunLock | None = field(init=False, default=None)
    """Of one who shares the other."""
    _manifest: Manifest | None = field(init=False, default=None)
    _ready: dict[Path, Path] = field(init=False, default_factory=dict)
    """Final name of each finished file, and its working name."""

    def __post_init__(self) -> None:
        self.path = self.output.with_name(self.output.name + ".run")
        self._lock = RunLock(self.path / "lock")
        if self.shard is not None:
            number, count = self.shard
            self._own_lock = RunLock(self.path / f"shard-{number}-of-{count}.lock")
        elif self.cluster:
            self._own_lock = RunLock(self.path / "cluster.lock")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Give the locks back; remove the directory if there is nothing in it worth keeping.

        Raises
        ------
        OutputError
            in place of an error of the disk that no stage has words for.
        """
        with suppress(OSError):
            if self.cluster and not self._lock.alone:
                # Its workers have left as a rule; then nobody is here.
                self._lock.release()
                self._lock.acquire()
            if self._lock.alone and (self._published or not (self.keep or self._has_blocks())):
                self._remove()
        self._release()
        # A closed pipe is about who listens to us, not about the disk.
        if isinstance(error, OSError) and not isinstance(error, (TilerError, BrokenPipeError)):
            place = error.filename or self.path
            raise OutputError(
                f"cannot use {place}: {error.strerror or error}; blocks are kept: run the same command again"
            ) from None

    @property
    def shared(self) -> bool:
        """Whether others may be at work here at the same time."""
        return self._own_lock is not None

    def _release(self) -> None:
        for lock in (self._own_lock, self._lock):
            if lock is not None:
                lock.release()

    def begin(
        self, fingerprint: Fingerprint, first: Callable[[], Manifest | None], overwrite: bool
    ) -> Manifest | None:
        """Take the lock and return the manifest: the one that is there, or a first one.

        None if ``first`` says that there is nothing to do.

        Raises
        ------
        UsageError
            if another process is at work here, what is here is of another run and not to be overwritten,
            or the folder cannot be written to.
        """
        last = time.monotonic() + PATIENCE
        try:
            while not self._enter(fingerprint, first, overwrite):
                if not self.shared or (time.monotonic() > last and not self._is_busy()):
                    raise UsageError(f"{self._holders()} is writing {self.output}; wait for it, or stop it")
                time.sleep(PAUSE)
        except TilerError:
            raise
        except FileExistsError:
            raise UsageError(f"{self.path} is no directory; move it away") from None
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot write to {self.output.parent}: {reason}") from None
        return self._manifest

    def _enter(self, fingerprint: Fingerprint, first: Callable[[], Manifest | None], overwrite: bool) -> bool:
        """Take the lock and settle the manifest; False if that may succeed in a moment."""
        self.path.mkdir(exist_ok=True)
        if not self.shared:
            if not self._lock.acquire():
                return False
            self._manifest = self._settled(fingerprint, first, overwrite)
            return True
        try:
            if self._join(fingerprint):
                return True
            if not self._lock.acquire(note=BEGINNING):
                return False
        except FileNotFoundError:
            # Whoever was here has finished and removed the directory.
            self._release()
            return False
        self._manifest = self._settled(fingerprint, first, overwrite)
        if self._manifest is None:
            return True
        self._lock.release()
        return False

    def _join(self, fingerprint: Fingerprint) -> bool:
        """Take the shared lock, if there is a run of this fingerprint to take part in."""
        if not self._lock.acquire(shared=True):
            return False
        if not (self.path / "manifest.json").exists() or self._difference(fingerprint):
            self._lock.release()
            return False
        if self._own_lock is not None and not self._own_lock.acquire():
            work = "at work on shard {}/{}".format(*self.shard) if self.shard else "running it on a cluster"
            raise UsageError(f"{self._own_lock.holder()} is {work} already; wait for it, or stop it")
        self._manifest = self._manifest_here()
        return True

    def join(self, fingerprint: Fingerprint) -> Manifest:
        """Take part in the run that another process has begun here; its manifest.

        Raises
        ------
        InputError
            if there is none.
        UsageError
            if it is another one.
        """
        last = time.monotonic() + PATIENCE
        # A folder that was made a moment ago on another machine may take a while to be seen.
        while True:
            with suppress(FileNotFoundError):
                if self._join(fingerprint):
                    return self._manifest_here()
                if (self.path / "manifest.json").exists() and (other := self._difference(fingerprint)):
                    raise UsageError(f"another {other}")
            if time.monotonic() > last:
                raise InputError(f"there is no {self.path} that others work in; it lies on a shared disk")
            time.sleep(PAUSE)

    def _is_busy(self) -> bool:
        """Whether a shard holds the lock alone, to begin the run or to finish it."""
        if self._lock.acquire(shared=True):
            # Only shards are here; the note is that of a process that is no more.
            self._lock.release()
            return False
        return self._lock.note() in {BEGINNING, FINISHING}

    def _settled(
        self, fingerprint: Fingerprint, first: Callable[[], Manifest | None], overwrite: bool
    ) -> Manifest | None:
        """The manifest here if it fits, else the first one of a new run. The lock is held alone."""
        if (self.path / "manifest.json").exists():
            other = self._difference(fingerprint)
            if not other:
                self.sweep()
                return self._manifest_here()
            # Where no block is stored yet, nothing is lost.
            if not overwrite and self._has_blocks():
                self.keep = True
                raise OtherRunError(
                    f"{self.path} was begun with another {other}; pass --overwrite to start anew, or repeat "
                    "the first command to carry on",
                    f"begun with another {other}",
                    other_input=False,  # what is lost is no map
                )
        self._clear()
        manifest = first()
        if manifest is not None:
            write_whole(self.path / "manifest.json", manifest.to_json().encode())
            sync_folder(self.path)
            sync_folder(self.path.parent)
        return manifest

    def _difference(self, fingerprint: Fingerprint) -> str:
        """In what the run that was begun here is another one; empty if it is the same."""
        try:
            return self._manifest_here().differences(fingerprint)
        except UsageError as error:
            return f"format ({error})"

    def _manifest_here(self) -> Manifest:
        return Manifest.from_json((self.path / "manifest.json").read_bytes())

    def _has_blocks(self) -> bool:
        return any(path.is_file() for path in (self.path / "blocks" / "c").rglob("*"))

    def sweep(self) -> None:
        """Remove what an earlier attempt to finish left; it is made anew. The lock is held alone."""
        for path in self.path.iterdir():
            if re.fullmatch(LEFTOVERS, path.name):
                path.unlink()

    def _strange(self) -> str:
        """The name of something here that is not ours; empty if there is none."""
        if self.path.is_symlink():
            return "files of another place"
        names = [p.name for p in self.path.iterdir() if not re.fullmatch(OURS, p.name)]
        blocks = self.path / "blocks"
        inner = blocks.iterdir() if blocks.is_dir() else ()
        return next(iter(names + [p.name for p in inner if not re.fullmatch(OURS_IN_BLOCKS, p.name)]), "")

    def _clear(self) -> None:
        """Remove what an earlier run left, unless it is not ours; the manifest first, the locks stay."""
        strange = self._strange()
        if strange:
            self.keep = True
            raise UsageError(f"{self.path} is no run directory: it holds {strange}; move it away")
        (self.path / "manifest.json").unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.name.endswith("lock"):
                path.unlink()

    def _remove(self) -> None:
        """Remove the directory, unless there is something in it that is not ours."""
        if not self._strange():
            self._clear()
            for path in self.path.iterdir():
                path.unlink()
            self.path.rmdir()

    def tidy(self, fingerprint: Fingerprint) -> None:
        """Remove what is left of a run whose output is in its place, unless somebody is at work here."""
        with suppress(OSError):
            if self.path.is_dir() and self._lock.acquire():
                whole = (self.path / "manifest.json").exists()
                # Another run that was begun here is not ours to remove.
                self._published = not (whole and self._has_blocks() and self._difference(fingerprint))
                self.keep = not self._published

    def _holders(self) -> str:
        """Who is at work here, in words."""
        for path in sorted(self.path.glob("*.lock")):
            lock = RunLock(path)
            if not lock.acquire(shared=True):
                return lock.holder()
            lock.release()
        return self._lock.holder()

    def take_over(self, fingerprint: Fingerprint) -> bool:
        """Wait until no other shard is at work here; False if one of them finished and the run is gone.

        Raises
        ------
        UsageError
            if another run has been begun here meanwhile.
        """
        self._release()
        try:
            while not self._lock.acquire(note=FINISHING):
                time.sleep(PAUSE)
        except FileNotFoundError:
            return False
        if not (self.path / "manifest.json").exists():
            return False
        other = self._difference(fingerprint)
        if other:
            self.keep = True
            raise UsageError(f"{self.path} was begun anew with another {other}; this run is given up")
        self.sweep()
        return True

    @property
    def publishing(self) -> bool:
        """Whether an earlier process was stopped while it named the output files."""
        return (self.path / "publishing").exists()

    def place(self, final: Path) -> Path:
        """A working name for a file that `publish` will rename to ``final``."""
        self._ready[final] = self.path / ("finished-" + final.name)
        return self._ready[final]

    def write(self, final: Path, content: bytes) -> None:
        """Put a small file where `publish` will find it."""
        try:
            # It is synced when it gets its name, as all are.
            self.place(final).write_bytes(content)
        except OSError as error:
            raise OutputError(
                f"cannot write {final}: {error.strerror}; free some space and run the same command again"
            ) from None

    def publish(self, outdated: Iterable[Path] = ()) -> None:
        """Give the finished files their names, the output itself last; the directory goes at the end.

        ``outdated`` goes first: it tells of the output that is replaced.
        """
        final = self.output
        try:
            for working in self._ready.values():
                sync_file(working)
            write_whole(self.path / "publishing", b"")
            for final in (*outdated, *self._ready):
                _remove_sidecars(final)
            for path in outdated:
                path.unlink(missing_ok=True)
            if self.output in self._ready:
                # An old output must not lie beside a new report if the machine stops in between.
                self.output.unlink(missing_ok=True)
            for final in sorted(self._ready, key=lambda path: path == self.output):
                self._ready[final].replace(final)
            sync_folder(self.output.parent)
        except OSError as error:
            raise OutputError(
                f"cannot write {final}: {error.strerror}; all blocks are kept: run the same command again"
            ) from None
        self._published = True


def _remove_sidecars(final: Path) -> None:
    """Those of a file that is about to be replaced."""
    if final.exists():
        for suffix in SIDECARS:
            final.with_name(final.name + suffix).unlink(missing_ok=True)

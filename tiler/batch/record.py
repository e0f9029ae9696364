"""What is known of an archive, as ``run.json``: how each raster went, with which network and options.

It is written whole, now and then, so that a killed batch leaves one that is at most some seconds old. It is
for people and for ``--retry-failed``; what is done is told by the outputs themselves.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from tiler.batch.task import ALREADY, DAMAGED, DONE, FAILED
from tiler.durable import write_whole
from tiler.errors import OutputError, UsageError
from tiler.report import ClassTally

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tiler.batch.task import Outcome
    from tiler.fingerprint import Fingerprint
    from tiler.report import Report

FORMAT: Final = 1
PENDING: Final = "pending"
RUNNING, ENDED, STOPPED = "running", "ended", "stopped"
OTHERWISE: Final = "not attempted yet: what is there was made with another network, or other options"
HARMLESS: Final = frozenset(
    ("batch", "memory", "threads", "shard", "scheduler", "overwrite", "check_seams", "on_error")
)
"""Options that change no byte of what is done."""
STATUSES: Final = (DONE, ALREADY, DAMAGED, FAILED, PENDING)


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(" ", "seconds").removesuffix("+00:00")


@dataclass(frozen=True, slots=True)
class Entry:
    """How one raster went, when it was last attempted."""

    source: str
    output: str
    """Below the output folder."""
    status: str = PENDING
    """pending: not attempted yet; else as of `tiler.batch.task.Outcome`."""
    reason: str = ""
    error: str = ""
    seconds: float = 0.0
    """Of the run that made the output, or of the attempt that failed."""
    pixels: int = 0
    """That the network was fed."""
    valid_pixels: int = 0
    megapixels_per_second: float = 0.0
    blocks_computed: int = 0
    """By the last run; 0 if it was done already."""
    classes: tuple[ClassTally, ...] = ()
    ended: str = ""
    """When the attempt ended, UTC."""
    renewed: bool = False
    """Whether a batch with ``--overwrite`` that has not ended made it: it is not to be made once more."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}, got {self.status!r}")

    def after(self, outcome: Outcome) -> Entry:
        """The entry when the raster was attempted."""
        attempted = replace(
            Entry(self.source, self.output),
            status=outcome.status,
            reason=outcome.reason,
            error=outcome.error,
            seconds=outcome.seconds,
            ended=now(),
        )
        return attempted if outcome.report is None else attempted.told(outcome.report)

    def told(self, report: Report) -> Entry:
        """With what the output's report says."""
        return replace(
            self,
            seconds=report.seconds,
            pixels=report.pixels,
            valid_pixels=report.valid_pixels,
            megapixels_per_second=report.megapixels_per_second,
            blocks_computed=0 if self.status == ALREADY else report.blocks_computed,
            classes=report.classes,
        )


@dataclass(slots=True)
class Record:
    """All entries of a batch, or of one shard of it."""

    model: dict[str, Any]
    """Path, SHA-256."""
    options: dict[str, Any]
    versions: dict[str, str]
    entries: dict[str, Entry]
    """By output, in the order of the archive."""
    shard: tuple[int, int] | None = None
    state: str = RUNNING
    """running; ended: everything was attempted that was to be; stopped: something ended it before."""
    started: str = field(default_factory=now)
    updated: str = ""

    @property
    def totals(self) -> dict[str, int]:
        """Number of rasters of each status."""
        statuses = [entry.status for entry in self.entries.values()]
        return {status: statuses.count(status) for status in STATUSES}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of all entries, in the network's order."""
        return tuple(dict.fromkeys(c.name for entry in self.entries.values() for c in entry.classes))

    @property
    def binding(self) -> Fingerprint:
        """Network and options, as far as they change a byte; as they are read from JSON."""
        options = {name: value for name, value in self.options.items() if name not in HARMLESS}
        told: Fingerprint = json.loads(json.dumps({"model": self.model["sha256"], "options": options}))
        return told

    @property
    def forgotten(self) -> Record:
        """The same rasters for a batch of another network, or of other options."""
        entries = {
            output: replace(Entry(entry.source, output), reason=OTHERWISE)
            for output, entry in self.entries.items()
        }
        return replace(self, state=RUNNING, entries=entries)

    def adopt(self, earlier: Record) -> None:
        """Take over what an earlier batch found out about the same rasters.

        What it made with another network or other options is not what this one is about.
        """
        alike = self.binding == earlier.binding
        going_on = earlier.state != ENDED and earlier.options.get("overwrite", False)
        for output, entry in self.entries.items():
            known = earlier.entries.get(output)
            if known is None or not _is_same(known.source, entry.source):
                continue
            if alike or known.status == FAILED:
                renewed = known.renewed and going_on
                self.entries[output] = replace(known, source=entry.source, renewed=renewed)
            else:
                self.entries[output] = replace(entry, reason=OTHERWISE)

    def to_json(self) -> str:
        """Indented JSON."""
        values = {"format": FORMAT, "totals": self.totals, **asdict(self)}
        return json.dumps({**values, "entries": list(values["entries"].values())}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The inverse of `to_json`.

        Raises
        ------
        ValueError, TypeError, LookupError
            if the text is no record of this version.
        """
        values = json.loads(text)
        if values.pop("format") != FORMAT or not isinstance(values.pop("totals"), dict):
            raise ValueError("it is of another format")
        entries = [
            Entry(**{**entry, "classes": tuple(ClassTally(**c) for c in entry["classes"])})
            for entry in values.pop("entries")
        ]
        shard = values.pop("shard")
        return cls(
            **values, shard=shard and (shard[0], shard[1]), entries={entry.output: entry for entry in entries}
        )

    def write(self, path: Path) -> None:
        """Put it at ``path``, whole.

        Raises
        ------
        OutputError
            if that fails.
        """
        self.updated = now()
        write_text(path, self.to_json() + "\n")


def _is_same(one: str, other: str) -> bool:
    """Whether two names are of one source; the same file may be named from here or from the root."""
    return one == other or os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100 - takes .. away too


def read_record(path: Path) -> Record | None:
    """The record at ``path``, None if there is none.

    Raises
    ------
    UsageError
        if what is there is none of ours.
    """
    try:
        return Record.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError):
        raise UsageError(
            f"{path} is no record of a batch of this version; choose another folder, or move it away"
        ) from None


def merged(records: Sequence[Record | None], own: Record) -> Record:
    """One record of all shards, of which some may not have begun; ``own`` is one of them.

    Rasters are dealt out in turn, and so they are put together. What shards of another network, or of other
    options, did is not what this batch is about.
    """
    begun = [r if r.binding == own.binding else r.forgotten for r in records if r is not None]
    whole = replace(own, shard=None, entries={})
    for entries in zip_longest(*(record.entries.values() for record in begun)):
        whole.entries.update({entry.output: entry for entry in entries if entry is not None})
    whole.started = min(record.started for record in begun)
    states = {record.state for record in begun} | ({RUNNING} if None in records else set())
    whole.state = next(state for state in (RUNNING, STOPPED, ENDED) if state in states)
    return whole


def write_text(path: Path, text: str) -> None:
    """Put text at ``path``, whole; bytes of file names that are no text are written as escapes."""
    try:
        write_whole(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder"
        ) from None

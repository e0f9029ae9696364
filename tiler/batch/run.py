"""A batch from start to end: every raster attempted, each outcome recorded, stopped at any moment."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tiler.batch.archive import Archive
from tiler.batch.record import ENDED, PENDING, STOPPED, Entry, Record
from tiler.batch.task import ALREADY, FAILED, Outcome, Task
from tiler.errors import InputError, OutputError, UsageError
from tiler.fingerprint import versions
from tiler.outputs import Outputs
from tiler.readers.address import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiler.batch.items import Item
    from tiler.batch.task import Executor
    from tiler.events import Event
    from tiler.options import RunOptions

PATIENCE: Final = 3
"""Rasters in a row that fail for want of disk, memory or a package before the others are left for later."""


class BatchObserver(Protocol):
    """An onlooker of a batch."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """These will be attempted."""

    def __call__(self, task: Task, event: Event) -> None:
        """Something happened to one under way."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """One has been attempted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be done."""

    model: str
    """Path of the network."""
    folder: Path
    """Of the outputs."""
    items: tuple[Item, ...]
    """The whole archive, also for a shard."""
    options: RunOptions
    """Of every raster, but for ``shard``, which is of the archive here."""
    skip_existing: bool = False
    """Whether rasters whose output is there are left alone unopened."""
    retry_failed: bool = False
    """Whether only those are attempted that failed when they were last attempted."""
    limit: int | None = None
    """Rasters that are attempted at most."""

    def __post_init__(self) -> None:
        if self.options.overwrite and self.skip_existing:
            raise UsageError("what is there is skipped or replaced, got --skip-existing with --overwrite")

    @property
    def part(self) -> tuple[Item, ...]:
        """The items of this shard; they are dealt out in turn."""
        number, count = self.options.shard or (1, 1)
        return self.items[number - 1 :: count]

    def task(self, item: Item, renewed: bool = False) -> Task:
        """An item with everything that it takes to perform it; what is renewed is not overwritten again."""
        told = {name: value for name in ("mpp", "mask") if (value := getattr(item, name)) is not None}
        overwrite = self.options.overwrite and not renewed
        options = replace(self.options, shard=None, overwrite=overwrite, **told)
        thumbnail = Archive(self.folder).thumbnail(item.output)
        return Task(item.source, self.model, str(self.folder / item.output), options, str(thumbnail))

    def record(self) -> Record:
        """Nothing attempted yet.

        Raises
        ------
        InputError
            if the network cannot be read.
        """
        try:
            with Path(self.model).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"cannot read the model {self.model}: {error.strerror}") from None
        entries = (Entry(name_of(item.source), item.output) for item in self.part)
        return Record(
            {"path": self.model, "sha256": digest},
            asdict(self.options),
            versions(),
            {entry.output: entry for entry in entries},
            self.options.shard,
        )


def run_batch(batch: Batch, executor: Executor, observer: BatchObserver) -> Record:
    """Attempt every raster; whenever and however it ends, what was found out is in the folder.

    Raises
    ------
    UsageError
        if the folder cannot be used, or nothing has failed that could be tried again.
    TilerError
        if the network cannot be loaded, or several rasters in a row failed for want of disk, memory or a
        package. One that fails otherwise is in the record.
    """
    record = batch.record()
    archive = Archive(batch.folder, batch.options.shard, record.binding)
    with archive.held():
        tasks = choose(batch, record)
        observer.begin(list(tasks))
        try:
            _attempt(tasks, record, archive, executor, observer)
            record.state = ENDED
        finally:
            if record.state != ENDED:
                record.state = STOPPED
            if record.state == ENDED or archive.written:
                archive.close(record)
    return record


def choose(batch: Batch, record: Record) -> dict[Task, str]:
    """What is to be attempted, with its places in the record, which adopts what earlier batches found out.

    Raises
    ------
    UsageError
        if only failures are to be attempted and no batch has been here, or none of these rasters.
    """
    earlier = Archive(batch.folder, batch.options.shard).earlier()
    if batch.retry_failed and not earlier:
        raise UsageError(f"--retry-failed goes by the last run.json, got none in {batch.folder}")
    for known in earlier:
        record.adopt(known)
    if batch.retry_failed and {entry.status for entry in record.entries.values()} == {PENDING}:
        raise UsageError(
            f"--retry-failed goes by the last run.json, and that in {batch.folder} knows of no attempt at "
            "these rasters with this network and these options; leave it out"
        )
    items = [item for item in batch.part if _wanted(batch, record, item)][: batch.limit]
    return {batch.task(item, record.entries[item.output].renewed): item.output for item in items}


def _wanted(batch: Batch, record: Record, item: Item) -> bool:
    """Whether to attempt it; what is skipped for its output has its report in the record."""
    entry = record.entries[item.output]
    if batch.retry_failed and entry.status != FAILED:
        return False
    outputs = Outputs(batch.folder / item.output, batch.options.output, batch.options.polygons)
    there = outputs.main.exists() and (outputs.polygons is None or outputs.polygons.exists())
    if not batch.skip_existing or not there:
        return True
    if entry.status in {PENDING, FAILED}:
        skipped = Outcome(ALREADY, "not opened, its output is there", report=outputs.stored())
        record.entries[item.output] = entry.after(skipped)
    return False


def _attempt(
    tasks: dict[Task, str],
    record: Record,
    archive: Archive,
    executor: Executor,
    observer: BatchObserver,
) -> None:
    def observed(task: Task, event: Event) -> None:
        observer(task, event)
        archive.keep(record)

    wanting = 0
    with closing(executor.run(tasks, observed)) as outcomes:
        for number, (task, outcome) in enumerate(outcomes, 1):
            output = tasks[task]
            entry = record.entries[output].after(outcome)
            renewed = record.options["overwrite"] and outcome.status != FAILED
            record.entries[output] = replace(entry, renewed=renewed)
            if outcome.trace:
                archive.log(output, outcome.trace)
            observer.ended(task, outcome)
            archive.keep(record)
            wanting = wanting + 1 if outcome.environment else 0
            if wanting == PATIENCE and number < len(tasks):
                raise OutputError(
                    f"{PATIENCE} rasters in a row failed for want of disk, memory or a package, the last for "
                    f"this: {outcome.reason}; {len(tasks) - number} are left: mend it and run the same "
                    "command again"
                )

"""One raster of an archive: what is to be done, doing it, and how it went. The seam of all executors.

A `Task` and its `Outcome` are plain values that can be sent to another process or machine.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from tiler.batch.thumbnail import draw_thumbnail, is_current
from tiler.errors import (
    MissingError,
    OtherPolygonsError,
    OtherRunError,
    OutputError,
    TilerError,
    UsageError,
    one_line,
)
from tiler.events import Event, Noted, Planned, ignore
from tiler.outputs import Outputs
from tiler.readers.address import name_of
from tiler.run import segment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tiler.model import Model
    from tiler.options import RunOptions
    from tiler.ports import Observer
    from tiler.report import Report

DONE: Final = "done"
ALREADY: Final = "already"
DAMAGED: Final = "damaged"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Task:
    """One raster to segment."""

    source: str
    """Path or address."""
    model: str
    """Path of the network."""
    output: str
    """Path of the result; its folder is made when it is not there."""
    options: RunOptions
    thumbnail: str = ""
    """Path of a small picture of the result, ``.jpg``; empty: none is drawn."""

    @property
    def name(self) -> str:
        """Of the source, as it may be shown: an address without its query, which may hold a signature."""
        return name_of(self.source)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended."""

    status: str
    """done; already: an earlier run had done it; damaged: done, with blocks of the source that became nodata;
    failed."""
    reason: str = ""
    """One line: why it failed, what is damaged, or why it was computed anew."""
    error: str = ""
    """Name of the exception; empty if it did not fail."""
    seconds: float = 0.0
    """Wall time of this attempt."""
    report: Report | None = None
    """Of the run, or of the earlier one; None if it failed."""
    environment: bool = False
    """Whether it failed for want of disk, memory or a package, as the next ones may."""
    trace: str = ""
    """The traceback of an error that is not ours."""


class TaskObserver(Protocol):
    """An onlooker of many tasks."""

    def __call__(self, task: Task, event: Event) -> None:
        """Take note; must not raise."""


class Executor(Protocol):
    """Where tasks are performed."""

    def run(self, tasks: Iterable[Task], observer: TaskObserver) -> Generator[tuple[Task, Outcome]]:
        """Each task with its outcome, as they end.

        Tasks are drawn when there is somebody to perform them. Closing the generator stops those under way,
        which the next run carries on.

        Raises
        ------
        TilerError
            if nothing can be performed at all: no network, no device.
        """


def perform(task: Task, model: Model, observer: Observer = ignore) -> Outcome:
    """Segment one raster, whatever happens; only an interrupt comes through.

    ``model`` is the task's network, loaded. An output that a run of ours made with other inputs or options is
    made anew; any other file at its names is refused.
    """
    start = time.perf_counter()
    try:
        outcome = _segmented(task, model, observer)
    except BrokenPipeError:
        # That is about who listens to us, not about this raster.
        raise
    except TilerError as error:
        outcome = failure(str(error), error)
    except MemoryError as error:
        outcome = failure(f"out of memory ({one_line(error) or 'no allocation'})", error)
    except Exception as error:  # noqa: BLE001 - the one boundary at which a bug costs one raster, not the night:
        # its type and message become the reason, its traceback goes to the log, and the batch fails.
        outcome = failure(f"{type(error).__name__}: {one_line(error)}; a bug: please report it", error)
        outcome = replace(outcome, trace=traceback.format_exc())
    return replace(outcome, seconds=round(time.perf_counter() - start, 3))


def failure(reason: str, error: BaseException) -> Outcome:
    """The outcome of a task that raised this."""
    wanting = isinstance(error, (OutputError, MissingError, MemoryError))
    return Outcome(FAILED, " ".join(reason.split()), type(error).__name__, environment=wanting)


def _segmented(task: Task, model: Model, observer: Observer) -> Outcome:
    seen: set[type[Event]] = set()

    def watched(event: Event) -> None:
        seen.add(type(event))
        observer(event)

    _make_folder(Path(task.output).parent)
    note = ""
    try:
        report = segment(task.source, model, task.output, task.options, watched)
    except OtherRunError as error:
        _check_owner(task, error)
        note = f"computed anew: it was {error.difference}"
        observer(Noted(f"{task.output} is {note}"))
        report = segment(task.source, model, task.output, replace(task.options, overwrite=True), watched)
    except OtherPolygonsError as error:
        note = f"polygons made anew: they were made with another {error.difference}"
        _remove_polygons(task)
        report = segment(task.source, model, task.output, task.options, watched)
    assert report is not None  # noqa: S101 - only shards of one raster leave work to others
    reason = "; ".join(filter(None, (_damage(report), note, _emptiness(report))))
    status = DAMAGED if report.damaged else DONE if Planned in seen else ALREADY
    outcome = Outcome(status, reason, report=report)
    outputs, thumbnail = Outputs(Path(task.output), task.options.output), Path(task.thumbnail)
    if task.thumbnail and not is_current(thumbnail, outputs.main):
        draw_thumbnail(task.source, outputs, thumbnail)
    return outcome


def _damage(report: Report) -> str:
    """What of the source could not be read, if anything."""
    if not report.damaged:
        return ""
    return f"{len(report.damaged)} damaged blocks are nodata, the first at {report.damaged[0].window}"


def _emptiness(report: Report) -> str:
    """That nothing came of it, if so: in a table of a thousand nobody would find it."""
    if report.valid_pixels:
        return ""
    glass = report.tissue is not None and not report.tissue["share"]
    return "all of it is nodata" + (": no tissue was found" if glass else "")


def _check_owner(task: Task, error: OtherRunError) -> None:
    """Refuse to replace what is not ours, or the map of another raster that has the same name."""
    outputs = Outputs(Path(task.output), task.options.output, task.options.polygons)
    stored = outputs.stored()
    if stored is None:
        return
    for path in outputs.strange(stored):
        raise UsageError(f"{path} exists and was not made with {task.output}; move it away")
    if not error.other_input:
        return
    if Path(stored.source["path"]).absolute() != Path(task.name).absolute():
        raise UsageError(
            f"{task.output} is of another raster, {stored.source['path']}; name this one's output in a CSV "
            "list, or pass --overwrite to replace it"
        )


def _remove_polygons(task: Task) -> None:
    """Those of a finished output, which are ours; the labels stay."""
    polygons = Outputs(Path(task.output), task.options.output, task.options.polygons).polygons
    assert polygons is not None  # noqa: S101 - they were found to be other ones
    try:
        polygons.unlink()
    except OSError as error:
        raise OutputError(f"cannot replace {polygons}: {error.strerror}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from None

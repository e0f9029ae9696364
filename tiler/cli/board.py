"""What a person or a program sees of a batch: a table that stays in its place, lines, JSON, or nothing."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from tiler.batch.pace import Pace
from tiler.batch.task import FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiler.batch.run import BatchObserver
    from tiler.batch.task import Outcome, Task
    from tiler.events import Event

INTERVAL: Final = 0.1
"""Seconds between two pictures of the table."""
MOST_ROWS: Final = 8
"""Rasters under way that are shown."""
UP_AND_CLEAR: Final = "\x1b[{}F\x1b[J"


class Silent:
    """Says nothing."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """Nothing."""

    def __call__(self, task: Task, event: Event) -> None:
        """Nothing."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Nothing."""


class JsonLines(Silent):
    """Each event as a line of JSON on stderr, with the raster that it is about."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """How many there are."""
        _json({"event": "Begun", "rasters": len(tasks)})

    def __call__(self, task: Task, event: Event) -> None:
        """As of segment, and the source."""
        _json({"event": type(event).__name__, "source": task.name, **asdict(event)})

    def ended(self, task: Task, outcome: Outcome) -> None:
        """How it went; the report was in its last event."""
        told = {k: v for k, v in asdict(outcome).items() if k not in {"report", "trace"}}
        _json({"event": "Attempted", "source": task.name, "output": task.output, **told})


class Lines(Silent):
    """One line per raster when it was attempted."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """Count them."""
        self.pace = Pace.of(tasks)

    def __call__(self, task: Task, event: Event) -> None:
        """Count blocks."""
        self.pace.note(task, event)

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Say how it went, with the rate so far and the time left."""
        self.pace.end(task, outcome)
        total = str(self.pace.total)
        seconds = self.pace.seconds_left
        left = "" if seconds is None else f", {_clock(seconds)} left"
        number = f"[{self.pace.attempted:>{len(total)}}/{total}{left}]"
        self.say(f"{number} {outcome.status:<7} {_plain(task.name)}{_detail(outcome)}")

    def say(self, line: str) -> None:
        """A line that stays."""
        click.echo(line, err=True)


class Table(Lines):
    """What is under way, drawn over itself; only failures, and what is worth a word, stay."""

    def __init__(self) -> None:
        self._height = 0
        self._next = 0.0

    def begin(self, tasks: Sequence[Task]) -> None:
        """Draw it."""
        super().begin(tasks)
        self._draw()

    def __call__(self, task: Task, event: Event) -> None:
        """Draw it anew, now and then."""
        super().__call__(task, event)
        if time.monotonic() >= self._next:
            self._draw()

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Above the table, what is worth a word."""
        self.pace.end(task, outcome)
        if outcome.reason:
            self._clear()
            self.say(f"{outcome.status} {_plain(task.name)}{_detail(outcome)}")
        if outcome.reason or time.monotonic() >= self._next or not self.pace.sizes:
            self._draw()

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns - 1
        rows = [_cut(line, columns) for line in self._rows()]
        self._clear()
        click.echo("\n".join(rows), err=True)
        self._height, self._next = len(rows), time.monotonic() + INTERVAL

    def _clear(self) -> None:
        if self._height:
            click.echo(UP_AND_CLEAR.format(self._height), nl=False, err=True)
        self._height = 0

    def _rows(self) -> list[str]:
        pace = self.pace
        counts = "  ".join(f"{name} {count:,}" for name, count in sorted(pace.counts.items()))
        left, seconds = pace.pixels_left, pace.seconds_left
        total = "" if left is None else f" of about {(pace.pixels + left) / 1e6:,.1f}"
        rest = "" if seconds is None else f"about {_clock(seconds)} left"
        shown = list(pace.shares.items())[:MOST_ROWS]
        return [
            f"{pace.attempted:,} of {pace.total:,} rasters   {counts}",
            f"{pace.pixels / 1e6:,.1f}{total} Mpx   {pace.speed:.2f} Mpx/s   {rest}",
            *(f"{share:>5.0%}  {_plain(task.name)}" for task, share in shown),
        ]


def batch_observer(log: str, quiet: bool) -> BatchObserver:
    """The onlooker that ``--log`` and ``--quiet`` ask for."""
    if log == "json":
        return JsonLines()
    if quiet:
        return Silent()
    return Table() if sys.stderr.isatty() else Lines()


def _json(values: dict[str, Any]) -> None:
    click.echo(json.dumps(values), err=True)


def _detail(outcome: Outcome) -> str:
    if outcome.status == FAILED or outcome.report is None:
        return f": {outcome.reason}" if outcome.reason else ""
    mega = f": {outcome.report.pixels / 1e6:,.1f} Mpx, {outcome.seconds:,.1f} s"
    return f"{mega}; {outcome.reason}" if outcome.reason else mega


def _plain(name: str) -> str:
    """A file's name that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _cut(line: str, columns: int) -> str:
    """The beginning and the end of a line that is too long."""
    if len(line) <= columns:
        return line.rstrip()
    head = columns // 3
    return f"{line[:head]}…{line[len(line) - (columns - head - 1) :]}"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock(75), _clock(7325)
    ('1:15', '2:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

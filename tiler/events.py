"""What happens during a run, for observers. Each event is plain data and prints as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    def to_json(self) -> str:
        """One line: the event's name and its fields."""
        return json.dumps({"event": type(self).__name__, **asdict(self)})


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """The plan is made; nothing is written yet."""

    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BlockStored(Event):
    """A block of the result is final and stored."""

    window: str
    pixels: int
    done: int
    """Pixels stored so far."""
    total: int


@dataclass(frozen=True, slots=True)
class Finishing(Event):
    """All blocks are there; the output file is being built."""

    path: str


@dataclass(frozen=True, slots=True)
class Polygonising(Event):
    """The labels are finished; polygons are being made of them."""

    path: str


@dataclass(frozen=True, slots=True)
class Publishing(Event):
    """All files are verified and get their names."""

    path: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The output is verified and in its place."""

    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """Something the user should know."""

    message: str


def ignore(event: Event) -> None:
    """The observer that does nothing."""
    del event

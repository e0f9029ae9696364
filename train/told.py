"""What a person can tell a run: fields of an options class that say how they are shown.

So an option, its default, its help and its place in the help stand in one line, and the command line and
the configuration file are made of the class.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
_KEY = "told"


@dataclass(frozen=True, slots=True)
class Told:
    """How an option is shown."""

    help: str
    """A line."""
    group: str
    """Its heading in the help."""
    choices: tuple[str, ...] = ()
    """All values there are; empty: any of its type."""
    metavar: str | None = None
    """What stands for its value in the help."""
    repeated: bool = False
    """Whether it is given once per value, not all in one."""


def told(
    default: T,
    text: str,
    group: str,
    *,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
    repeated: bool = False,
) -> T:
    """A field of an options class; its default and how it is shown."""
    shown = Told(text, group, choices, metavar, repeated)
    made: T = field(default=default, metadata={_KEY: shown})
    return made


def how_told(option: Field[Any]) -> Told:
    """How a field that `told` made is shown."""
    shown: Told = option.metadata[_KEY]
    return shown

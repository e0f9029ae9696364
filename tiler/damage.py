"""What of a source could not be read, collected while it is read."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiler.geometry import Window


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """A block of a file that cannot be decoded."""

    window: Window
    """In full-resolution pixels of the file."""
    reason: str


@dataclass(slots=True, eq=False)
class DamageLog:
    """Damaged windows of one source, each once; safe to use from several threads."""

    _found: dict[Window, Damage] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def add(self, damage: Damage) -> None:
        """Note a window; the first reason stays."""
        with self._lock:
            self._found.setdefault(damage.window, damage)

    @property
    def found(self) -> tuple[Damage, ...]:
        """All of it so far, in order."""
        with self._lock:
            return tuple(sorted(self._found.values()))

    def within(self, window: Window) -> tuple[Damage, ...]:
        """What intersects a window of full-resolution pixels, in order."""
        with self._lock:
            return tuple(sorted(d for d in self._found.values() if d.window.touches(window)))

"""The value in a target of a pixel whose class is not known."""

from __future__ import annotations

from typing import Final

IGNORE: Final = 255

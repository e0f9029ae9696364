"""Fonts for charts that have the letters of what is written in them: class names may be in any script."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OURS: Final = "DejaVu Sans"
"""Comes with matplotlib."""
BOXES: Final = "Last Resort"
"""Begins the name of a font that has a box for every letter."""
SHOWN: Final = 20
"""Letters in a line."""


@dataclass(frozen=True, slots=True)
class Lettering:
    """Fonts, and what they lack."""

    families: tuple[str, ...] = (OURS,)
    """Names; a letter is of the first that has it."""
    missing: str = ""
    """Letters that no font has, in order."""


def lettering(texts: Iterable[str]) -> Lettering:
    """Fonts that this machine has for some texts: as few as have all letters that any has."""
    letters = frozenset(letter for text in texts for letter in text if not letter.isspace())
    return Lettering() if all(map(str.isascii, letters)) else _searched(letters)


@lru_cache(maxsize=16)
def _searched(letters: frozenset[str]) -> Lettering:
    fonts = _fonts()
    families, missing = [OURS], letters - _had(fonts.pop(OURS), letters)
    while missing and fonts:
        had = {family: _had(path, missing) for family, path in fonts.items()}
        best = max(had, key=lambda family: (len(had[family]), "Sans" in family))
        if not had[best]:
            break
        families, missing = [*families, best], missing - had[best]
    return Lettering(tuple(families), "".join(sorted(missing)))


def _fonts() -> dict[str, str]:
    """Path of each family of upright letters, by name."""
    from matplotlib.font_manager import fontManager

    found = {
        font.name: font.fname
        for font in fontManager.ttflist
        if font.style == "normal" and font.weight == 400 and not font.name.startswith(BOXES)
    }
    return dict(sorted(found.items()))


def _had(path: str, letters: frozenset[str]) -> frozenset[str]:
    """Those of the letters that a font has; matplotlib may remember one that is gone."""
    from matplotlib.ft2font import FT2Font

    try:
        font: Any = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(letter for letter in letters if font.get_char_index(ord(letter)))


@contextmanager
def lettered(texts: Iterable[str]) -> Iterator[None]:
    """Charts that are made meanwhile have letters for these texts, and take them as they are.

    What no font has becomes a box, without a word: that is said before, see `lettering`.
    """
    from matplotlib import rc_context

    fonts: Any = {"font.family": list(lettering(texts).families), "text.parse_math": False}
    with rc_context(fonts), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def box_warning(texts: Iterable[str]) -> str | None:
    """One line if charts will lack letters of these texts."""
    missing = lettering(texts).missing
    if not missing:
        return None
    shown = missing[:SHOWN] + ("..." if len(missing) > SHOWN else "")
    return f"warning: charts show boxes for {shown}, which no font here has; install one that has"

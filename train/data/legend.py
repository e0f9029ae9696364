"""What labels mean: which value, colour or name is which class.

Classes are numbered in the order of their names, from 0. Nothing is guessed: a value that the legend does
not know is an error that shows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from tiler.errors import InputError, UsageError
from train.data.target import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_KNOWN: Final = "ignore"
"""In place of a class: neither learnt from nor counted."""
COLOUR: Final = re.compile("#[0-9a-fA-F]{6}")
LIMIT: Final = re.compile(r"(>|<=)\s*(\d+(?:\.\d+)?)")
SHOWN: Final = 12
"""Names in a message."""
FORMS: Final = "index, instances, >127, <=127, or pairs like 0=background,255=road or #ff0000=road"


class Coding(Protocol):
    """How a mask's raw values tell the class."""

    @property
    def bands(self) -> int:
        """Of the mask."""

    def code(self, raw_CN: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Class of each of N pixels.

        Raises
        ------
        InputError
            for a value that is not known, with the mask's name.
        """


@dataclass(frozen=True, slots=True)
class Table:
    """Each value, or colour, is a class of its own."""

    keys: tuple[int, ...]
    """Ascending; a colour is one number, 0xRRGGBB."""
    classes: tuple[int, ...]
    """One per key: a class, or `IGNORE`."""
    bands: int = 1
    """3 for colours."""
    rule: str = ""
    """In words, for messages."""

    def code(self, raw_CN: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Look each pixel up."""
        keys_N = raw_CN[0].astype(np.int64) if self.bands == 1 else packed(raw_CN)
        keys = np.array(self.keys)
        place_N = np.searchsorted(keys, keys_N).clip(max=len(keys) - 1)
        unknown_N = keys[place_N] != keys_N
        if unknown_N.any():
            first = int(keys_N[unknown_N][0])
            got = f"#{first:06x}" if self.bands == 3 else str(first)
            raise InputError(f"mask values are {self.rule}, got {got} in {name}; see --classes and --coding")
        return np.asarray(np.array(self.classes, np.uint8)[place_N])


@dataclass(frozen=True, slots=True)
class Threshold:
    """Two classes: what is above a limit, and the rest."""

    limit: float
    above: bool
    """Whether class 1 is above; else it is at or below the limit."""
    bands: int = 1

    def code(self, raw_CN: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Compare each pixel."""
        del name
        return np.asarray((raw_CN[0] > self.limit) == self.above, np.uint8)


@dataclass(frozen=True, slots=True)
class Instances:
    """0 is background, and every other value is an object of class 1."""

    bands: int = 1

    def code(self, raw_CN: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Merge the objects."""
        del name
        return np.asarray(raw_CN[0] != 0, np.uint8)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Values and names: of polygons, whose attribute may have both, not of masks, which have no names."""

    told: str
    """The coding."""
    bands: int = 1

    def code(self, raw_CN: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Refuse: which of them a mask goes by would be a guess."""
        del raw_CN
        raise InputError(
            f"--coding of a mask has values or colours alone, got {self.told!r} with names for {name}; leave "
            "them out, or tell the mask's own in the column coding of a --manifest"
        )


def packed(raw_3N: NDArray[Any]) -> NDArray[np.int64]:
    """Red, green and blue as one number each."""
    red, green, blue = raw_3N.astype(np.int64)
    return np.asarray(red << 16 | green << 8 | blue)


@dataclass(frozen=True, slots=True)
class Legend:
    """The classes, and how they are told apart in label files."""

    classes: tuple[str, ...]
    coding: str = "index"
    """``index``: values are class numbers. ``instances``: 0 is background, others are objects of class 1.
    ``>127`` or ``<=127``: what is class 1, the rest is class 0. Pairs ``VALUE=CLASS``, ``#RRGGBB=CLASS`` or,
    for vectors, ``NAME=CLASS`` (masks are then read by ``index``); a class may be ``ignore``. Keys are of one
    kind, but for vectors, whose names may be numbers."""
    outside: str = ""
    """Class of pixels in no polygon of vector labels; empty: the first, or none where classes may overlap."""
    independent: bool = False
    """Whether a pixel may be of several classes, or of none."""
    raster: Coding = field(init=False, repr=False, compare=False)
    """How masks are read."""

    def __post_init__(self) -> None:
        if NOT_KNOWN in self.classes:
            raise UsageError(f"{NOT_KNOWN!r} is no class, it says that the class is not known; see --classes")
        object.__setattr__(self, "raster", self._coding())
        self.number(self.outside or self.classes[0])

    def _coding(self) -> Coding:
        text = self.coding.strip()
        if text == "index":
            return _index(len(self.classes))
        if text != "instances" and not LIMIT.fullmatch(text):
            return self._pairs()
        if len(self.classes) != 2:
            raise UsageError(f"--coding {text} tells 2 classes apart, got {len(self.classes)} in --classes")
        limit = LIMIT.fullmatch(text)
        return Threshold(float(limit[2]), limit[1] == ">") if limit else Instances()

    def _pairs(self) -> Coding:
        classes = {key: self.number(name) for key, name in self.pairs().items()}
        if not classes:
            raise UsageError(f"--coding is {FORMS}; got {self.coding!r}")
        if all(map(COLOUR.fullmatch, classes)):
            return _table({int(key[1:], 16): value for key, value in classes.items()}, 3, self.coding)
        if all(map(str.isdecimal, classes)):
            return _table({int(key): value for key, value in classes.items()}, 1, self.coding)
        if any(key.startswith("#") for key in classes):
            raise UsageError(
                f"--coding has colours like #ff0000 alone, or none, got {self.coding!r}; write all keys alike"
            )
        return Mixed(self.coding) if any(map(str.isdecimal, classes)) else _index(len(self.classes))

    def pairs(self) -> dict[str, str]:
        """Class by value, colour or name, as the coding has them; empty if it has none."""
        if "=" not in self.coding or LIMIT.fullmatch(self.coding.strip()):
            return {}
        parts = [part.rpartition("=") for part in self.coding.split(",")]
        pairs = {key.strip(): name.strip() for key, _, name in parts}
        if len(pairs) < len(parts) or "" in pairs:
            raise UsageError(f"--coding names each value once, got {self.coding!r}; it is {FORMS}")
        return pairs

    def number(self, name: str) -> int:
        """Of a class, or `IGNORE`.

        Raises
        ------
        UsageError
            if there is none of that name.
        """
        if name == NOT_KNOWN:
            return IGNORE
        if name not in self.classes:
            raise UsageError(
                f"a class is one of {_few(self.classes)}, or {NOT_KNOWN}, got {name!r}; see --classes"
            )
        return self.classes.index(name)

    def named(self, text: str, source: str) -> int:
        """The class that a vector file calls by that text.

        Raises
        ------
        InputError
            if the legend does not know it.
        """
        told = self.pairs()
        if text in told:
            return self.number(told[text])
        if text in self.classes:
            return self.classes.index(text)
        if self.coding == "index" and text.isdecimal() and int(text) < len(self.classes):
            return int(text)
        known = _few((*told, *self.classes))
        raise InputError(
            f"labels are called {known}, got {text!r} in {source}; add it to --classes, "
            f"or --coding '{text}=CLASS' (or ={NOT_KNOWN})"
        )


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _index(classes: int) -> Table:
    numbers = (*range(classes), IGNORE)
    return Table(numbers, numbers, 1, f"the classes 0 to {classes - 1}, or {IGNORE} for not known")


def _table(classes: dict[int, int], bands: int, told: str) -> Table:
    keys = tuple(sorted(classes))
    return Table(keys, tuple(classes[key] for key in keys), bands, f"those of --coding {told}")

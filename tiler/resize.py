"""Whole pictures brought to one size, or to a share of their own: by a scale, stretched, or letterboxed.

A letterbox keeps the proportions and leaves bars. Training and segmenting go by the same places; what becomes
of pixels and labels there is in `tiler.readers.resized`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tiler.errors import UsageError
from tiler.geometry import Window, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZES: Final = re.compile(r"(letterbox|stretch):(\d+)(?:x(\d+))?")
FORMS: Final = "0.5 (a scale), stretch:96 or stretch:640x480 (width x height), or letterbox:512"


@dataclass(frozen=True, slots=True)
class Resize:
    """How a picture of any size becomes what is fed."""

    kind: str
    """``scale``, ``stretch`` or ``letterbox``."""
    factor: float = 1.0
    """Of a scale: new pixels per pixel along a side."""
    height: int = 0
    width: int = 0
    """Of the others: pixels of the result."""

    @property
    def keeps_scale(self) -> bool:
        """Whether pictures that are larger stay larger: those of one resolution stay of one."""
        return self.kind == "scale"

    @classmethod
    def parse(cls, text: str) -> Resize:
        """As on the command line.

        >>> Resize.parse("letterbox:512")
        Resize(kind='letterbox', factor=1.0, height=512, width=512)
        """
        if match := SIZES.fullmatch(text):
            kind, width, height = match.groups()
            made = cls(kind, 1.0, int(height or width), int(width))
            if made.height and made.width:
                return made
        elif re.fullmatch(r"\d*\.?\d+", text) and float(text) > 0:
            return cls("scale", float(text))
        raise UsageError(f"--resize is {FORMS}; got {text!r}")

    def place(self, height: int, width: int) -> Place:
        """Where a picture of that size goes.

        >>> Resize.parse("letterbox:100").place(50, 200).inner
        Window(top=37, left=0, bottom=62, right=100)
        """
        if self.kind == "scale":
            size = max(1, int(height * self.factor)), max(1, int(width * self.factor))
            return Place((height, width), size, Window(0, 0, *size))
        if self.kind == "stretch":
            return Place((height, width), (self.height, self.width), Window(0, 0, self.height, self.width))
        factor = min(self.height / height, self.width / width)
        inner = max(1, round(height * factor)), max(1, round(width * factor))
        top, left = (self.height - inner[0]) // 2, (self.width - inner[1]) // 2
        return Place((height, width), (self.height, self.width), Window(0, 0, *inner).shifted(top, left))


@dataclass(frozen=True, slots=True)
class Place:
    """A picture within what is fed."""

    before: tuple[int, int]
    """Height and width of the picture."""
    after: tuple[int, int]
    """Height and width of what is fed."""
    inner: Window
    """The picture's place in it; around are bars."""

    @property
    def bars(self) -> bool:
        """Whether there are any."""
        return self.inner.shape != self.after

    def under(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of what is fed under the centre of each pixel of the picture."""
        (height, width), (inner_height, inner_width) = self.before, self.inner.shape
        return nearest(height, inner_height) + self.inner.top, nearest(width, inner_width) + self.inner.left

"""Which bands of a file a network is fed, and which value in them is no data: typed, or as it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tiler.options import RunOptions
    from tiler.spec import ModelSpec

FILE: Final = "file"
"""As ``--nodata``: what the file says, whatever the model was trained with."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run and its model say of a file's pixels."""

    bands: tuple[int, ...] | None
    """Numbers from 1, in the order of the network's channels; None: all but alpha."""
    nodata: float | None
    """Value of pixels without data, over what the file says; None: what the file says."""
    as_trained: str = ""
    """What of this the model says and nobody typed, in words; empty: nothing."""

    @classmethod
    def of(cls, options: RunOptions, spec: ModelSpec) -> Reading:
        """What is typed goes first, each by itself."""
        bands, nodata, words = options.bands, options.nodata, []
        if bands is None and spec.source_bands:
            bands = spec.source_bands
            words.append(f"bands {in_words(bands)}")
        if nodata is None and spec.nodata is not None:
            nodata = spec.nodata
            words.append(f"nodata {nodata:g} over what the file says")
        return cls(bands, None if isinstance(nodata, str) else nodata, " and ".join(words))


def in_words(bands: tuple[int, ...]) -> str:
    """Band numbers as they are typed.

    >>> in_words((3, 2, 1))
    '3,2,1'
    """
    return ",".join(map(str, bands))

"""Colour tables: what the indices of a picture of few colours stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from rasterio.enums import ColorInterp

from tiler.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

COLOURS: Final = (1, 2, 3)
"""Bands of the red, the green and the blue."""
INDICES: Final = ("uint8", "uint16")
ALPHA: Final = 3
"""Column of a table."""


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """The colours of all indices that a band may hold."""

    index: int
    """Number of the band of indices, from 1."""
    colours_CN: NDArray[np.uint8]
    """Of each index, in the order of the bands that are wanted."""
    shown_N: NDArray[np.bool_]
    """False where an index has no colour, or a wholly transparent one."""

    @classmethod
    def of(cls, dataset: DatasetReader, bands: tuple[int, ...] | None, name: str) -> Palette | None:
        """That of a raster whose only band but for alpha is one of indices; else None.

        ``bands`` are 1 for red, 2 for green and 3 for blue, in any order; None: these three.

        Raises
        ------
        InputError
            if ``bands`` names another, or a colour is none.
        """
        indices = [i for i, kind in enumerate(dataset.colorinterp, 1) if kind is not ColorInterp.alpha]
        known = _known(dataset, indices[0]) if len(indices) == 1 else {}
        if not known:
            return None
        table_N4 = _table(known, dataset.dtypes[indices[0] - 1], name)
        bands = bands or COLOURS
        missing = [band for band in bands if band not in COLOURS]
        if missing:
            raise InputError(
                f"{name} has bands 1 to {len(COLOURS)}, the colours of its table, got {missing}; see --bands"
            )
        colours_CN = table_N4[:, [band - 1 for band in bands]].T.astype(np.uint8)
        return cls(indices[0], colours_CN, table_N4[:, ALPHA] != 0)

    @property
    def gaps(self) -> bool:
        """Whether an index may not be shown."""
        return not self.shown_N.all()

    def colours(self, indices_HW: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
        """Of pixels, one band after the other."""
        return np.take(self.colours_CN, indices_HW, axis=1)

    def shown(self, indices_HW: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
        """Whether pixels have a colour."""
        return np.take(self.shown_N, indices_HW)


def _known(dataset: DatasetReader, band: int) -> dict[int, tuple[int, ...]]:
    """The colours of a band of indices; none if it is no such band."""
    kind, dtype = dataset.colorinterp[band - 1], dataset.dtypes[band - 1]
    if kind is not ColorInterp.palette or dtype not in INDICES:
        return {}
    try:
        return dict(dataset.colormap(band))
    except ValueError:  # a VRT may say that there is a table, and have none
        return {}


def _table(known: dict[int, tuple[int, ...]], dtype: str, name: str) -> NDArray[np.int64]:
    """Red, green, blue and alpha of every index that the type can hold; zeros where there is none."""
    table_N4 = np.zeros((np.iinfo(dtype).max + 1, 4), np.int64)
    indices = [index for index in known if index < len(table_N4)]
    table_N4[indices] = [known[index] for index in indices]
    if not ((table_N4 >= 0) & (table_N4 <= 255)).all():
        raise InputError(f"colours are from 0 to 255, got others in the table of {name}; write it anew")
    return table_N4

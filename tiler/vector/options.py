"""What becomes of a label raster's polygons: format, smallest area, simplification."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from tiler.errors import MissingError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES: Final = {
    "gpkg": ".gpkg",
    "fgb": ".fgb",
    "parquet": ".parquet",
    "geojson": ".geojson",
    "qupath": ".qupath.geojson",
}
"""Of the file in each format."""
FORMATS: Final = tuple(SUFFIXES)
NEEDED: Final = ("shapely", "pyarrow", "pyogrio")
MOST_TOLERANCE: Final = 16.0
"""Pixels; the work per vertex grows with the square of the tolerance."""


@dataclass(frozen=True, slots=True)
class PolygonOptions:
    """How polygons are made and written."""

    format: str
    """One of `FORMATS`."""
    min_area: float = 0.0
    """Smaller polygons are left out. In the unit that areas are written in; see `tiler.vector.place`."""
    simplify: float = 0.0
    """Pixels by which boundaries may be moved; 0: none."""
    background: bool = False
    """Whether class 0 becomes polygons too."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"vector is one of {', '.join(FORMATS)}, got {self.format!r}")
        if not 0 <= self.min_area < float("inf"):
            raise UsageError(f"min-area is at least 0, got {self.min_area}")
        if not 0 <= self.simplify <= MOST_TOLERANCE:
            raise UsageError(f"simplify is 0 to {MOST_TOLERANCE:g} pixels, got {self.simplify}")

    def path(self, labels: Path) -> Path:
        """Where the polygons of a label raster go."""
        return labels.with_suffix(SUFFIXES[self.format])


def format_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises
    ------
    UsageError
        if it asks for none.

    >>> from pathlib import Path
    >>> format_of(Path("a.qupath.geojson")), format_of(Path("a.fgb"))
    ('qupath', 'fgb')
    """
    name = path.name.lower()
    # The longer suffix first.
    for kind, suffix in sorted(SUFFIXES.items(), key=lambda item: -len(item[1])):
        if name.endswith(suffix):
            return kind
    raise UsageError(f"polygons go to {', '.join(SUFFIXES.values())}, got {path}")


def check_installed() -> None:
    """Refuse to begin what cannot be ended.

    Raises
    ------
    MissingError
        if the extra ``vector`` is not installed.
    """
    for name in NEEDED:
        try:
            import_module(name)
        except ImportError:
            raise MissingError(f"polygons need {name}; pip install 'gigatiler[vector]'") from None


def check_path(path: Path) -> None:
    """Refuse a path that pyogrio takes for an address, or a place in an archive: it would use another file.

    Raises
    ------
    UsageError
        naming it.
    """
    from pyogrio.util import vsi_path

    if path.suffix not in {SUFFIXES["parquet"], SUFFIXES["geojson"]} and vsi_path(path) != str(path):
        raise UsageError(f"the path of a {path.suffix} has no ! or ; in it, got {path}; choose another name")

"""An image with its labels as a data set names them, before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tiler.errors import InputError, UsageError
from tiler.readers.polygons import GEOJSON, VECTOR
from train.data.binary import CLASS, NUMBER, ClassFiles, ObjectFolder
from train.data.labelled import Source
from train.data.maskfile import MaskFile
from train.data.polygons import LabelmeFile, VectorFile, read_json

if TYPE_CHECKING:
    from train.data.image import View
    from train.data.labels import LabelSource

PARTS: Final = ("train", "val", "test")
ANY: Final = ""
"""In place of a part: to be divided."""


@dataclass(frozen=True, slots=True)
class Item:
    """Paths, as a row of a manifest has them."""

    image: Path
    mask: str
    """Path of a mask, of vectors, of a folder of objects; with ``{class}`` or ``{number}``, of a mask per
    class."""
    part: str = ANY
    region: Path | None = None
    """A mask: 0 outside the region of interest."""
    coding: str = ""
    """Of this mask, over that of the run."""

    def __post_init__(self) -> None:
        if self.part not in (ANY, *PARTS):
            raise UsageError(f"a part is one of {', '.join(PARTS)}, got {self.part!r} for {self.image}")

    def source(self, view: View, field: str | None) -> Source:
        """Image and labels to be opened."""
        return Source(self.image, self.labels(field), view, self.region)

    def labels(self, field: str | None) -> LabelSource:
        """Of the kind that the path tells.

        Raises
        ------
        InputError
            if there are none.
        """
        if CLASS in self.mask or NUMBER in self.mask:
            return ClassFiles(self.mask)
        path = Path(self.mask)
        if path.is_dir():
            return ObjectFolder(path)
        if not path.is_file():
            raise InputError(f"every image has labels, {self.image} has none at {path}")
        if path.suffix.lower() not in VECTOR:
            return MaskFile(path, self.coding)
        if path.suffix.lower() in GEOJSON and _is_labelme(path):
            return LabelmeFile(path)
        return VectorFile(path, field)


def _is_labelme(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and "shapes" in content

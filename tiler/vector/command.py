"""Polygons of a label file that exists, to a file of their own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tiler.durable import PARTIAL, sync_file, sync_folder
from tiler.errors import OutputError, UsageError
from tiler.outputs import check_name, check_no_folder
from tiler.vector.labels import open_labels_file
from tiler.vector.make import make_polygons
from tiler.vector.options import check_installed, check_path
from tiler.vector.place import place_of

if TYPE_CHECKING:
    from pathlib import Path

    from tiler.vector.make import Made
    from tiler.vector.options import PolygonOptions


def polygons_of_file(
    path: Path,
    target: Path,
    options: PolygonOptions,
    names: tuple[str, ...] | None = None,
    overwrite: bool = False,
) -> tuple[Made, str]:
    """Write the polygons of a label raster; what was made, and the unit of areas.

    Raises
    ------
    UsageError
        if the file is no label raster, or ``target`` cannot be written.
    DamageError
        if a part of the raster cannot be read.
    OutputError
        if the file cannot be written.
    """
    check_installed()
    _check_target(path, target, overwrite)
    check_path(target)
    labels = open_labels_file(path, names)
    place = place_of(labels.info)
    # The suffix stays: GDAL goes by it.
    working = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}{target.suffix}")
    try:
        made = make_polygons(labels, place, working, target, options)
        sync_file(working)
        working.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        # GDAL may have left a journal beside it.
        for left in target.parent.iterdir():
            if left.name.startswith(working.name):
                left.unlink()
    return made, place.unit


def _check_target(path: Path, target: Path, overwrite: bool) -> None:
    check_name(target)
    check_no_folder(target)
    if target.exists() and path.exists() and target.samefile(path):
        raise UsageError(f"the output would replace the input {path}; choose another name")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; pass --overwrite to replace it")

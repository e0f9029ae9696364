"""Polygons of a label file that exists, to a file of their own."""

from __future__ import annotations

import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from tiler.durable import PARTIAL, sync_file, sync_folder
from tiler.errors import OutputError, UsageError
from tiler.lock import RunLock
from tiler.outputs import check_name, check_no_folder
from tiler.vector.labels import open_labels_file
from tiler.vector.make import make_polygons
from tiler.vector.options import check_installed, check_path
from tiler.vector.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tiler.vector.make import Made
    from tiler.vector.options import PolygonOptions
    from tiler.vector.place import Place

LOCK: Final = ".lock"


def polygons_of_file(
    path: Path,
    target: Path,
    options: PolygonOptions,
    names: tuple[str, ...] | None = None,
    overwrite: bool = False,
) -> tuple[Made, Place]:
    """Write the polygons of a label raster; what was made, and where it lies.

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
    place = place_of(labels.info, labels.pixels)
    try:
        with _working_name(target) as working:
            made = make_polygons(labels, place, working, target, options)
            sync_file(working)
            working.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    return made, place


@contextmanager
def _working_name(target: Path) -> Iterator[Path]:
    """Where the file is made; at the end all of it that is left goes, and what killed runs left."""
    for path in target.parent.iterdir():
        if PARTIAL in path.name and path.name.startswith(target.name) and path.name.endswith(LOCK):
            _sweep(path)
    # The suffix stays: GDAL goes by it.
    working = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}{target.suffix}")
    lock = RunLock(working.with_name(working.name + LOCK))
    # On a file system without locks nothing is swept.
    with suppress(OSError):
        while not lock.acquire():
            pass  # another one found it before it was held, and gives it back at once
    try:
        yield working
    finally:
        _remove(working)
        lock.release()


def _sweep(path: Path) -> None:
    """Remove what belongs to a lock, unless it is held."""
    lock = RunLock(path)
    with suppress(OSError):
        if lock.acquire():
            _remove(path.with_name(path.name.removesuffix(LOCK)))
    lock.release()


def _remove(working: Path) -> None:
    """Remove an unfinished file with its lock and GDAL's journals beside it."""
    for left in working.parent.iterdir():
        if left.name.startswith(working.name):
            left.unlink(missing_ok=True)


def _check_target(path: Path, target: Path, overwrite: bool) -> None:
    check_name(target)
    check_no_folder(target)
    if target.exists() and path.exists() and target.samefile(path):
        raise UsageError(f"the output would replace the input {path}; choose another name")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; pass --overwrite to replace it")

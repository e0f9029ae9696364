"""What an archive consists of: files, folders, globs and lists become items, each with its own output.

Nothing is opened here. The order and the names of outputs depend on the names of files only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from tiler.batch.listing import LISTS, read_list
from tiler.errors import UsageError
from tiler.outputs import SUFFIXES, Outputs
from tiler.readers.address import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RASTERS: Final = frozenset((".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".vrt"))
"""What is looked for in folders and by globs; a file that is named itself may end in anything."""
STATE: Final = ".batch"
"""The folder in the output folder that is ours: locks and thumbnails."""
WILD: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Item:
    """One raster of an archive."""

    source: str
    """Path or address."""
    output: str
    """Below the output folder, with slashes, ``.tif``."""
    mpp: float | None = None
    """Microns per pixel that the network is fed; None: as the options say."""
    mask: str | None = None
    """File of the mask; None: as the options say."""


def find_items(sources: Iterable[str], folder: Path, kind: str) -> tuple[Item, ...]:
    """Everything that the arguments name, each once.

    Parameters
    ----------
    sources
        Files, folders (searched to their bottom), globs (``**`` matches any number of folders), addresses,
        and lists (``.csv``, ``.txt``).
    folder
        Where outputs go: a file's under its own name, with the folders between it and the folder, or the
        fixed part of the glob, that was named. What lies in it is no source.
    kind
        One of `tiler.options.OUTPUTS`.

    Raises
    ------
    UsageError
        if an argument names nothing, or two items would have the same output.
    """
    items: dict[Item, None] = {}
    for source in sources:
        found = list(_named(source, folder)) if source else []
        if not found:
            raise UsageError(f"a source names at least one raster, got none in {source!r}; {_known()}")
        items.update(dict.fromkeys(found))
    _check_outputs(items, folder, kind)
    return tuple(items)


def _known() -> str:
    return "looked for are " + " ".join(sorted(RASTERS))


def _named(source: str, folder: Path) -> Iterator[Item]:
    path = Path(source)
    if is_remote(source):
        yield Item(source, _tif(PurePosixPath(source.partition("?")[0]).name))
    elif path.is_dir():
        yield from _below(path, "**/*", folder)
    elif path.suffix.lower() in LISTS:
        yield from _listed(path)
    elif WILD & set(source) and not path.exists():
        top = _fixed_part(path)
        yield from _below(top, str(path.relative_to(top)), folder)
    else:
        yield Item(source, _tif(path.name))


def _listed(path: Path) -> Iterator[Item]:
    for row in read_list(path):
        name = PurePosixPath(row.path.partition("?")[0] if is_remote(row.path) else Path(row.path).name).name
        yield Item(row.path, row.output or _tif(name), row.mpp, row.mask)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    return next(p for p in pattern.parents if not WILD & set(str(p)))


def _below(top: Path, pattern: str, folder: Path) -> Iterator[Item]:
    """Rasters below a folder that match, in order, named by where they lie; nothing hidden, no output."""
    out = folder.resolve()
    for path in sorted(top.glob(pattern), key=lambda p: p.parts):
        if path.suffix.lower() not in RASTERS or not path.is_file() or path.resolve().is_relative_to(out):
            continue
        below = path.relative_to(top)
        if not any(part.startswith(".") or part.endswith(".run") for part in below.parts):
            yield Item(str(path), _tif(below.as_posix()))


def _tif(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".tif")) if PurePosixPath(name).name else ""


def _check_outputs(items: Iterable[Item], folder: Path, kind: str) -> None:
    owners: dict[str, Item] = {}
    for item in items:
        _check_inside(item)
        for path in Outputs(folder / item.output, kind).all:
            other = owners.setdefault(os.path.normcase(path), item)
            if other is not item:
                raise UsageError(
                    f"every source has an output of its own, got {path} for both {other.source} and "
                    f"{item.source}; give one another name in the column output of a CSV list"
                )


def _check_inside(item: Item) -> None:
    path = PurePosixPath(item.output)
    outside = path.is_absolute() or Path(item.output).is_absolute() or ".." in path.parts
    if path.suffix.lower() not in SUFFIXES or outside or path.parts[0] == STATE:
        raise UsageError(
            f"an output is a path below the output folder that ends in .tif, got {item.output!r} for "
            f"{item.source}"
        )

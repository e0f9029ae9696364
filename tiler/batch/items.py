"""What an archive consists of: files, folders, globs and lists become items, each with its own output.

Nothing is opened here. The order and the names of outputs depend on the names of files only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from tiler.batch.listing import LISTS, read_list
from tiler.errors import UsageError
from tiler.events import Noted, ignore
from tiler.outputs import SUFFIXES, Outputs, is_result
from tiler.readers.address import is_remote, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tiler.options import RunOptions
    from tiler.ports import Observer

SLIDES: Final = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi")
RASTERS: Final = frozenset((".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", *SLIDES))
"""What is looked for in folders and by globs, and ``.vrt`` where it may be opened. A file that is named may
end in anything; of a DICOM slide any file opens all of it, so one has to be named."""
STATE: Final = ".batch"
"""The folder in the output folder that is ours: locks and thumbnails."""
WILD: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, and where nothing is."""

    suffixes: frozenset[str]
    out: Path
    """The output folder."""
    left_out: set[Path] = field(default_factory=set)
    """Results of ours that were found: nobody's sources."""

    def __str__(self) -> str:
        return (
            f"looked for is {' '.join(sorted(self.suffixes))} outside of {self.out}, but not results that "
            "have their .report.json beside them; a .dcm is named itself"
        )

    def below(self, top: Path, pattern: str) -> Iterator[Item]:
        """Rasters below a folder that match, in order, named by where they lie; nothing hidden."""
        for path in sorted(top.glob(pattern), key=lambda p: p.parts):
            below = path.relative_to(top)
            hidden = any(part.startswith(".") or part.endswith(".run") for part in below.parts)
            if path.suffix.lower() not in self.suffixes or hidden or not path.is_file():
                continue
            if path.resolve().is_relative_to(self.out):
                continue
            if is_result(path):
                self.left_out.add(path)
            else:
                yield Item(str(path), _tif(below.as_posix()))


@dataclass(frozen=True, slots=True)
class Item:
    """One raster of an archive."""

    source: str
    """Path or address."""
    output: str
    """Below the output folder, with slashes, ``.tif``."""
    mpp: float | None = None
    """Micrometres per pixel that the network is fed; None: as the options say."""
    mask: str | None = None
    """File of the mask; None: as the options say."""


def find_items(
    sources: Iterable[str], folder: Path, options: RunOptions, observer: Observer = ignore
) -> tuple[Item, ...]:
    """Everything that the arguments name, each once.

    Parameters
    ----------
    sources
        Files, folders (searched to their bottom), globs (``**`` matches any number of folders), addresses,
        and lists (``.csv``, ``.txt``).
    folder
        Where outputs go: a file's under its own name, with the folders between it and the folder, or the
        fixed part of the glob, that was named. What lies in it is no source.
    options
        They say which files an output has, and whether a VRT may be opened.
    observer
        Hears how many results of earlier runs were found and left out.

    Raises
    ------
    UsageError
        if an argument names nothing, or two items would have the same output.
    """
    search = Search(RASTERS | {".vrt"} if options.allow_vrt else RASTERS, folder.resolve())
    items: dict[Item, None] = {}
    for source in sources:
        found = list(_named(source, search)) if source else []
        if not found:
            raise UsageError(f"a source names at least one raster, got none in {source!r}; {search}")
        items.update(dict.fromkeys(found))
    _check_outputs(items, folder, options.output)
    if search.left_out:
        count = len(search.left_out)
        observer(Noted(f"{count} files are left out: reports beside them say that they are results"))
    return tuple(items)


def _named(source: str, search: Search) -> Iterator[Item]:
    path = Path(source)
    # Not by the path: it raises where a name is too long.
    if not is_remote(source) and os.path.isdir(source):  # noqa: PTH112
        yield from search.below(path, "**/*")
    elif not is_remote(source) and path.suffix.lower() in LISTS:
        rows = read_list(path)
        yield from (Item(row.path, row.output or _own_name(row.path), row.mpp, row.mask) for row in rows)
    elif not is_remote(source) and WILD & set(source) and not os.path.exists(source):  # noqa: PTH110
        top = _fixed_part(path)
        yield from search.below(top, str(path.relative_to(top)))
    else:
        yield Item(source, _own_name(source))


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    return next(p for p in pattern.parents if not WILD & set(str(p)))


def _own_name(source: str) -> str:
    return _tif(Path(name_of(source)).name)


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

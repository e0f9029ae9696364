"""Which image is in which part, as a table: nothing is moved, and every machine agrees.

A CSV with the columns image, mask, part, and where they are needed region and coding. Relative paths are
relative to the table. A part is train, val or test; a row without one is divided like a folder's images.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tiler.errors import InputError, UsageError, one_line
from train.data.item import Item
from train.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

NEEDED: Final = ("image", "mask", "part")
COLUMNS: Final = (*NEEDED, "region", "coding")


def read_manifest(path: Path) -> list[Item]:
    """The rows of a manifest.

    Raises
    ------
    InputError
        naming the line that cannot be used.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"a manifest is a CSV file, got {path}: {one_line(error)}") from None
    reader = csv.DictReader(io.StringIO(lines, newline=""), strict=True)
    try:
        header = reader.fieldnames or []
        if not set(NEEDED) <= set(header) <= set(COLUMNS):
            raise InputError(
                f"the columns of a manifest are {', '.join(NEEDED)}, and maybe region and coding, "
                f"got {', '.join(header) or 'none'} in {path}"
            )
        items = [_item(path, reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"a manifest is CSV, got {path}, line {reader.line_num}: {error}") from None
    if not items:
        raise InputError(f"a manifest names images, got none in {path}")
    return items


def _item(path: Path, line: int, row: dict[str, str]) -> Item:
    if None in row or None in row.values() or not (row["image"] and row["mask"]):
        raise InputError(f"a row of a manifest has an image and a mask, got another in {path}, line {line}")
    region = row.get("region")
    try:
        return Item(
            path.parent / row["image"],
            str(path.parent / row["mask"]),
            row["part"],
            path.parent / region if region else None,
            row.get("coding") or "",
        )
    except UsageError as error:
        raise InputError(f"{error}, in {path}, line {line}") from None


def write_manifest(path: Path, items: Iterable[Item]) -> None:
    """Write a table that `read_manifest` reads; paths below its folder are relative."""
    text, folder = io.StringIO(), path.parent.absolute()
    items = list(items)
    extra = [name for name in ("region", "coding") if any(getattr(item, name) for item in items)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*NEEDED, *extra])
    for item in items:
        region = "" if item.region is None else _shown(item.region, folder)
        told = {"region": region, "coding": item.coding}
        mask = _shown(Path(item.mask), folder)
        writer.writerow([_shown(item.image, folder), mask, item.part, *(told[name] for name in extra)])
    write_whole(path, text.getvalue().encode())


def _shown(path: Path, folder: Path) -> str:
    path = path.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)

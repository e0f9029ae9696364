"""Lists of rasters: a CSV table with a header, or a text file with a path per line."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tiler.errors import UsageError
from tiler.readers.address import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LISTS: Final = (".csv", ".txt")
COLUMNS: Final = ("path", "output", "mpp", "mask")


@dataclass(frozen=True, slots=True)
class Row:
    """What a list says of one raster."""

    path: str
    """Path or address; relative ones are relative to the list."""
    output: str = ""
    """Below the output folder; empty: named after the raster."""
    mpp: float | None = None
    """Micrometres per pixel; None: as the options say."""
    mask: str | None = None
    """Path; None: as the options say."""


def read_list(path: Path) -> list[Row]:
    """The rows of a list: ``.csv`` with some of the columns path, output, mpp and mask, or ``.txt``.

    In a ``.txt``, lines that begin with ``#`` are remarks; a file of such a name is written ``./#name``.

    Raises
    ------
    UsageError
        naming the line that cannot be used.
    """
    if path.exists() and not path.is_file():
        # A pipe would be waited for.
        raise UsageError(f"a list is a file, got a directory, device or pipe: {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the list {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"a list is UTF-8 text, got {path}: {error}") from None
    # Not `splitlines`, which also ends lines at characters that names may have.
    lines = list(io.StringIO(text, newline=""))
    if path.suffix.lower() == ".csv":
        return list(_table(path, lines))
    names = (line.strip() for line in lines)
    return [Row(_from(path, name)) for name in names if name and not name.startswith("#")]


def _table(path: Path, lines: list[str]) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        _check_header(path, header)
        reader.fieldnames = header
        for values in reader:
            yield _row(path, reader.line_num, values)
    except csv.Error as error:
        raise UsageError(f"a list is CSV, got {path}, line {reader.line_num}: {error}") from None


def _check_header(path: Path, header: list[str]) -> None:
    known = ", ".join(COLUMNS)
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or "path" not in header or len(set(header)) < len(header):
        got = ", ".join(header) or "nothing"
        raise UsageError(f"the first line of a CSV list names columns: path, of {known}; got {got} in {path}")


def _row(path: Path, line: int, values: dict[str, str]) -> Row:
    if None in values or None in values.values():
        raise UsageError(f"a line of a CSV list has a value per column, got another number in {path}:{line}")
    given = {name: value.strip() for name, value in values.items()}
    if not given["path"]:
        raise UsageError(f"a line of a CSV list has a path, got none in {path}, line {line}")
    mask = given.get("mask")
    return Row(
        _from(path, given["path"]),
        given.get("output", ""),
        _mpp(path, line, given.get("mpp", "")),
        _from(path, mask) if mask else None,
    )


def _mpp(path: Path, line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UsageError(f"mpp is micrometres per pixel above 0, got {text!r} in {path}, line {line}")
    return value


def _from(path: Path, name: str) -> str:
    """A name in a list, seen from here."""
    return name if is_remote(name) else str(path.parent / name)

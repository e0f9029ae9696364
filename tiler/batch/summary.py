"""The record as a table for programs (``summary.csv``) and a page for people (``summary.html``)."""

from __future__ import annotations

import base64
import csv
import io
import os
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tiler.batch.task import FAILED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiler.batch.record import Entry, Record
    from tiler.report import ClassTally

MOST_PICTURES: Final = 1000
"""Thumbnails that are put into the page, about 6 kB each; of larger archives the first ones."""
COLUMNS: Final = (
    "source",
    "output",
    "status",
    "reason",
    "pixels",
    "valid_pixels",
    "seconds",
    "megapixels_per_second",
    "blocks_computed",
    "ended",
)
STYLE: Final = """
:root { color-scheme: light dark }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
table { border-collapse: collapse; width: 100%; margin: 1em 0 }
th, td { text-align: left; vertical-align: top; padding: .4em .6em; border-bottom: 1px solid #8884 }
td { overflow-wrap: anywhere }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.status { font-weight: 600; white-space: nowrap }
.failed { color: #c22 } .damaged { color: #b70 } .pending { color: #888 }
.reason, .source { display: block }
.source { color: #888; font-size: smaller }
td:nth-child(2), td:nth-child(3) { min-width: 14em }
img { max-width: 12em; max-height: 9em; display: block }
"""


def to_csv(record: Record) -> str:
    """One line per raster; pixels and area of each class in columns of their own."""
    names = record.class_names
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{name} {what}" for name in names for what in ("pixels", "m2", "um2"))])
    for entry in record.entries.values():
        found = {c.name: c for c in entry.classes}
        areas = (value for name in names for value in _amounts(found.get(name)))
        writer.writerow([*(getattr(entry, column) for column in COLUMNS), *areas])
    return text.getvalue()


def _amounts(found: ClassTally | None) -> tuple[object, ...]:
    if found is None:
        return "", "", ""
    areas = (found.area_m2, found.area_um2)
    return found.pixels, *("" if area is None else round(area, 3) for area in areas)


def to_html(record: Record, thumbnail: Callable[[Entry], Path]) -> str:
    """A page without anything outside itself; ``thumbnail`` says where an entry's picture may lie."""
    failed = [entry for entry in record.entries.values() if entry.status == FAILED]
    others = [entry for entry in record.entries.values() if entry.status != FAILED]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>{escape(_headline(record))}</title><style>{STYLE}</style>",
        f"<h1>{escape(_headline(record))}</h1><p>{escape(_facts(record))}</p>",
    ]
    if failed:
        parts += ["<h2>Failed</h2><table><tr><th>raster<th>reason</tr>"]
        parts += [f"<tr><td>{escape(e.source)}<td>{escape(e.reason)}</tr>" for e in failed]
        parts += ["</table>"]
    parts += ["<h2>Others</h2><table>", _header(record)]
    left = MOST_PICTURES
    for entry in others:
        picture = _picture(thumbnail(entry)) if left and entry.pixels else ""
        left -= bool(picture)
        parts.append(_line(record, entry, picture))
    return "\n".join([*parts, "</table></html>", ""])


def _headline(record: Record) -> str:
    counts = ", ".join(f"{count:,} {status}" for status, count in record.totals.items() if count)
    return f"{len(record.entries):,} rasters: {counts or 'none'}"


def _facts(record: Record) -> str:
    pixels = sum(entry.pixels for entry in record.entries.values())
    seconds = sum(entry.seconds for entry in record.entries.values())
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return (
        f"{pixels / 1e6:,.1f} Mpx in {seconds:,.0f} s of work; {record.state}, begun {record.started}, as of "
        f"{record.updated} UTC; network {record.model['path']} ({record.model['sha256'][:12]}); {versions}"
    )


def _header(record: Record) -> str:
    names = "".join(f"<th class=number>{escape(name)}" for name in record.class_names)
    numbers = "".join(f"<th class=number>{name}" for name in ("Mpx", "s", "Mpx/s"))
    return f"<tr><th><th>raster<th>status{numbers}{names}</tr>"


def _line(record: Record, entry: Entry, picture: str) -> str:
    numbers = [""] * 3
    if entry.pixels:
        mega = f"{entry.pixels / 1e6:,.2f}", f"{entry.megapixels_per_second:,.2f}"
        numbers = [mega[0], f"{entry.seconds:,.1f}", mega[1]]
    found = {c.name: c for c in entry.classes}
    numbers += [_area(entry, found.get(name)) for name in record.class_names]
    return "".join(
        [
            f"<tr><td>{picture}<td><a href='{quote(os.fsencode(entry.output))}'>{escape(entry.output)}</a>",
            f"<span class=source>{escape(entry.source)}</span>",
            f"<td><span class='status {entry.status}'>{entry.status}</span>",
            f"<span class=reason>{escape(entry.reason)}</span>",
            *(f"<td class=number>{number}" for number in numbers),
            "</tr>",
        ]
    )


def _area(entry: Entry, found: ClassTally | None) -> str:
    if found is None:
        return ""
    share = f"{found.pixels / max(entry.valid_pixels, 1):.2%}"
    if found.area_um2 is not None:
        return f"{share}<br>{found.area_um2 / 1e6:,.3f} mm&sup2;"
    return share if found.area_m2 is None else f"{share}<br>{found.area_m2:,.0f} m&sup2;"


def _picture(path: Path) -> str:
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ""
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'

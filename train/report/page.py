"""``report.html``: one file with everything in it, for any screen, light or dark, without a network."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Final

from tiler.overlay import png
from train.report.pictures import jpeg, mask, overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tiler.spec import ClassSpec
    from train.report.pictures import Picture

STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 80ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; }
.chart { margin: 1rem 0; }
.sample { margin: 0 0 1.2rem; }
.four { display: grid; grid-template-columns: repeat(4, 1fr); gap: .4rem; }
.four img { width: 100%; image-rendering: pixelated; }
figcaption, .key { font-size: .85rem; }
.key span { display: inline-block; margin-right: 1em; }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .3em;
  border: 1px solid var(--line); }
@media (max-width: 40rem) { .four { grid-template-columns: repeat(2, 1fr); } }
@media (prefers-color-scheme: dark) {
  .chart { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; } }
"""


def page(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """The whole document, of (heading, HTML) pairs; a section without HTML is left out."""
    body = "".join(f"<h2>{escape(heading)}</h2>\n{html}\n" for heading, html in sections if html)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>\n"


def table(rows: list[list[str]]) -> str:
    """The first row is the head."""
    cells = [[escape(cell) if cell else "&ndash;" for cell in row] for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    rest = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in cells[1:])
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{rest}</table></div>\n'


def facts(told: Mapping[str, str]) -> str:
    """A line each."""
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in told.items())
    return f'<table class="facts">\n{"".join(rows)}</table>\n'


def chart(image: bytes, description: str) -> str:
    """A PNG of dark ink on white."""
    return f'<img class="chart" alt="{escape(description)}" src="{_inline(image, "png")}">\n'


def key(classes: tuple[ClassSpec, ...]) -> str:
    """Which colour is which class."""
    entries = (
        f'<span><i style="background:rgb{kind.color}"></i>{escape(kind.name)}</span>' for kind in classes
    )
    return f'<p class="key">{"".join(entries)}</p>\n'


def samples(pictures: list[Picture], classes: tuple[ClassSpec, ...]) -> str:
    """A row of four per sample."""
    return "".join(_sample(picture, classes) for picture in pictures)


def _sample(picture: Picture, classes: tuple[ClassSpec, ...]) -> str:
    drawn = overlay(picture.photo_3HW, picture.labels_QHW, classes)
    images = [
        ("image", _inline(jpeg(picture.photo_3HW), "jpeg")),
        ("label", _inline(png(mask(picture.truth_QHW, classes)), "png")),
        ("prediction", _inline(png(mask(picture.labels_QHW, classes)), "png")),
        ("overlay", _inline(jpeg(drawn), "jpeg")),
    ]
    four = "".join(
        f'<figure style="margin:0"><img alt="{name}" src="{source}"><figcaption>{name}</figcaption></figure>'
        for name, source in images
    )
    caption = f"{escape(picture.sample.name)}: IoU {picture.sample.score:.3f}"
    return f'<div class="sample"><div class="key">{caption}</div><div class="four">{four}</div></div>\n'


def _inline(image: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(image).decode('ascii')}"

"""Addresses of rasters: which they are, and what of them may be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from tiler.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def is_remote(path: str | Path) -> bool:
    """Whether a path is an address; one letter before the colon is a drive."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None


def address(path: str | Path) -> str:
    """An http or https address; `pathlib` takes one of its slashes.

    Raises
    ------
    InputError
        if it is of another kind, or holds a password.
    """
    scheme, _, rest = str(path).partition(":")
    # As a browser would write it: other letters than ASCII in %-signs.
    url = quote(f"{scheme.lower()}://{rest.lstrip('/')}", safe="%/:=&?~#+!$,;'@()*[]")
    if scheme.lower() not in {"http", "https"}:
        raise InputError(f"an address begins with http:// or https://, got {scheme}:; download the file")
    try:
        place = urlsplit(url).netloc
    except ValueError as error:
        raise InputError(f"an address is like https://host/scene.tif, got {path}: {error}") from None
    if "@" in place:
        raise InputError("an address holds no user name or password, got one; use a signed address")
    return url


def name_of(path: str | Path) -> str:
    """A path as it is, an address as it may be shown."""
    return shown(str(path)) if is_remote(path) else str(path)


def shown(url: str) -> str:
    """An address without its query, which may hold a signature.

    >>> shown("https://example.org/a.tif?token=secret")
    'https://example.org/a.tif'
    """
    return urlunsplit((*urlsplit(url)[:3], "", ""))

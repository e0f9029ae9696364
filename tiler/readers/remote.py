"""Rasters at an http or https address, read by GDAL in ranges; asked for with ``--allow-remote``.

A bad line is not a damaged file: failed reads are repeated a few times and then end the run, which can be
carried on; they never become nodata. The file's version is checked after every read, so that no result is
made of two versions.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from tiler.errors import RemoteError, one_line
from tiler.readers.address import shown
from tiler.readers.blockwise import UnreadableError
from tiler.readers.gdal import GdalRaster
from tiler.readers.source import UnopenedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import RasterInfo
    from tiler.readers.source import Source

Result = TypeVar("Result")

PAUSES: Final = (0.5, 2.0, 5.0)
"""Seconds before each further attempt."""
TIMEOUT: Final = 30.0
"""Seconds that a server may be silent."""


def remote_version(url: str) -> str:
    """What tells the file at an address from a changed one: its ETag, time of change and size.

    Raises
    ------
    RemoteError
        if the server does not say, after some attempts.
    """
    return _repeated(lambda: _headers(url), url)


def _headers(url: str) -> str:
    # A signed address is good for GET only, so HEAD is not asked.
    request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})  # noqa: S310 - http(s) by `address`
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            size = size or response.headers.get("Content-Length", "")
            tags = (response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), size)
    except urllib.error.HTTPError as error:
        with error:
            raise UnreadableError(one_line(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreadableError(one_line(error) or type(error).__name__) from None
    return " ".join(tag for tag in tags if tag)


def _repeated(call: Callable[[], Result], url: str) -> Result:
    for pause in PAUSES:
        try:
            return call()
        except UnreadableError:
            time.sleep(pause)
    try:
        return call()
    except UnreadableError as error:
        raise RemoteError(
            f"cannot read {shown(url)} ({error}), {len(PAUSES) + 1} attempts; run the same command again to "
            "carry on, or download the file if it is damaged"
        ) from None


def open_remote(source: Source, full: tuple[int, int] | None = None) -> GdalRaster:
    """A raster at an address.

    Raises
    ------
    RemoteError
        if it cannot be fetched, after some attempts.
    InputError
        if it can, and is no raster.
    """
    return _repeated(lambda: _opened(source, full), str(source.path))


def _opened(source: Source, full: tuple[int, int] | None) -> GdalRaster:
    try:
        return GdalRaster(source, full=full)
    except UnopenedError as error:
        if "not recognized" in str(error):
            raise
        raise UnreadableError(str(error)) from None


@dataclass(frozen=True, slots=True, eq=False)
class RemoteRaster:
    """A raster at an address, of one version."""

    raster: GdalRaster
    url: str
    version: str

    @property
    def info(self) -> RasterInfo:
        """Of the raster."""
        return self.raster.info

    def empty(self, window: Window) -> bool:
        """Not known."""
        del window
        return False

    def read(self, window: Window) -> Pixels:
        """The pixels of a window.

        Raises
        ------
        RemoteError
            if they cannot be fetched, or the file has changed since it was opened.
        """
        try:
            return self._once(window)
        except UnreadableError:
            time.sleep(PAUSES[0])
        return _repeated(lambda: self._again(window), self.url)

    def _again(self, window: Window) -> Pixels:
        # GDAL asks a server that is down for every block, so it is asked by ourselves first.
        self._check_version()
        return self._once(window)

    def _once(self, window: Window) -> Pixels:
        try:
            pixels = self.raster.read_once(window)
        except UnreadableError:
            # What the handle has fetched may be a part of what it should be.
            self.raster.forget_handle()
            raise
        self._check_version()
        return pixels

    def _check_version(self) -> None:
        if _headers(self.url) != self.version:
            raise RemoteError(
                f"{shown(self.url)} changed while it was read; start anew with --overwrite, or download it"
            )

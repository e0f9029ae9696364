"""The one checksum that a compressed TIFF may hold, and that nobody looks at.

Deflated blocks end with an Adler-32 of their pixels. libtiff stops when a block's pixels are complete and
never compares it, so 400 overwritten bytes in a block may come back as other pixels, without an error.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from rasterio.enums import Compression, Interleaving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rasterio.io import DatasetReader

PIECE: Final = 1 << 20
"""Bytes that are read or inflated at once."""
REMEMBERED: Final = 100_000
"""Blocks that are known to be sound; neighbouring tiles share some."""


@dataclass(slots=True, eq=False)
class BlockChecksums:
    """Compares the blocks of one file, or of one of its overviews, with their checksums."""

    path: Path
    bands: tuple[int, ...]
    """Those that have blocks of their own."""
    one_strip: bool
    """Whether all blocks are rows of one strip; see `tiler.readers.gdal`."""
    _sound: set[tuple[int, int]] = field(init=False, default_factory=set)

    @classmethod
    def of(cls, dataset: DatasetReader, bands: tuple[int, ...], one_strip: bool) -> BlockChecksums | None:
        """None if the file has none."""
        if dataset.driver != "GTiff" or dataset.compression is not Compression.deflate:
            return None
        separate = dataset.interleaving is Interleaving.band
        return cls(Path(dataset.name), bands if separate else bands[:1], one_strip)

    def wrong(self, dataset: DatasetReader, places: Iterable[tuple[int, int]]) -> str:
        """What is wrong with the blocks at these places (row, column); empty if nothing."""
        for place in {(0, 0)} if self.one_strip else places:
            if place in self._sound:
                continue
            for band in self.bands:
                reason = self._wrong_block(dataset, place, band)
                if reason:
                    return reason
            if len(self._sound) > REMEMBERED:
                self._sound.clear()
            self._sound.add(place)
        return ""

    def _wrong_block(self, dataset: DatasetReader, place: tuple[int, int], band: int) -> str:
        row, column = place
        names = (f"BLOCK_{what}_{column}_{row}" for what in ("OFFSET", "SIZE"))
        offset, size = (dataset.get_tag_item(name, "TIFF", bidx=band) for name in names)
        if offset is None:
            return ""  # a sparse file: the block was never written
        try:
            with self.path.open("rb") as file:
                file.seek(int(offset))
                return _inflated(file, int(size))
        except (OSError, zlib.error) as error:
            return str(error)


def _inflated(file: BinaryIO, size: int) -> str:
    """Inflate a block piece by piece, so that one that grows without end takes no memory."""
    stream, left = zlib.decompressobj(), size
    while left > 0 and not stream.eof:
        piece = file.read(min(PIECE, left))
        left = left - len(piece) if piece else 0
        while piece and not stream.eof:
            stream.decompress(piece, PIECE)
            piece = stream.unconsumed_tail
    return "" if stream.eof else "the block is cut short"

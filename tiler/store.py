"""Blocks of a result on disk: each is there and sound, or it is not there.

A zarr array (format 3: zstd, then a CRC-32C over what zstd made), one chunk per block, so that any tool can
look at a run that is under way. Two things are added: every chunk is synced before it gets its name, and
damaged windows of the source lie beside the blocks they touch, so that a resumed run still knows them.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import os
import re
from contextlib import suppress
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from tiler.damage import Damage
from tiler.durable import PARTIAL, sync_folder, write_whole
from tiler.errors import OutputError
from tiler.geometry import Window
from tiler.kernels import NODATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from zarr.core.array_spec import ArrayConfigParams
    from zarr.core.buffer import Buffer

    from tiler.blocks import BlockGrid
    from tiler.ports import Block

CONFIG: Final[ArrayConfigParams] = {"write_empty_chunks": True}
"""Else a block of nothing but nodata would never be there. Not stored with the array, so given every time."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LEVEL: Final = 1
"""Of zstd: labels shrink hardly more at higher ones."""


class TornBlockError(OutputError):
    """A block is there but not as it was written."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"block {row}, {column} does not read back as written; is the disk sound?")
        self.place = row, column

    def __reduce__(self) -> tuple[type[TornBlockError], tuple[int, int]]:
        """Between processes it goes by its place."""
        return TornBlockError, self.place


@functools.lru_cache(maxsize=16)
def _description(grid: BlockGrid, planes: int) -> bytes:
    """The array's metadata as zarr writes them."""
    (rows, columns), side = grid.shape, grid.side
    files: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(files),
        shape=(planes, rows * side, columns * side),
        chunks=(planes, side, side),
        dtype="uint8",
        compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
        fill_value=NODATA,
    )
    return bytes(files["zarr.json"].to_bytes())


class SyncedStore(LocalStore):
    """A folder of chunks in which each is on the disk before it has its name."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a chunk or the array's description."""
        self._check_writable()
        path = self.root / key
        if not self.root.is_dir():
            # Whoever removed it does not want it back.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root))
        path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(write_whole, path, value.as_buffer_like())


class BlockStore:
    """The blocks of one run, in a folder of its own."""

    def __init__(self, folder: Path, grid: BlockGrid, planes: int) -> None:
        self.grid = grid
        self._folder = folder
        self._damage = folder / "damage"
        self._array: Any = None
        self.planes = planes

    def open(self) -> None:
        """Find the blocks of an earlier run, or begin with none.

        What zarr says of the array follows from the run's plan, so it is written anew where it is not there
        or not as it should be; blocks of another array fail their checksums or their size.

        Raises
        ------
        OutputError
            if the folder cannot be used.
        """
        try:
            self._damage.mkdir(parents=True, exist_ok=True)
            description, path = _description(self.grid, self.planes), self._folder / "zarr.json"
            if not path.is_file() or path.read_bytes() != description:
                write_whole(path, description, sync=False)
            # The configuration is not stored with the array.
            self._array = zarr.open_array(SyncedStore(self._folder), mode="r+").with_config(CONFIG)
        except OSError as error:
            raise OutputError(f"cannot write to {self._folder}: {error.strerror or error}") from None

    def present(self, among_RC: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which blocks are there (rows, columns); whether they are sound shows when they are read.

        Only rows that hold a block of ``among_RC`` are looked at; None: all.
        """
        present_RC = np.zeros(self.grid.shape, np.bool_)
        rows_R = np.ones(len(present_RC), np.bool_) if among_RC is None else np.any(among_RC, axis=1)
        for row in np.flatnonzero(rows_R).tolist():
            folder = self._chunk(row, 0).parent
            with suppress(FileNotFoundError), os.scandir(folder) as entries:
                columns = (int(entry.name) for entry in entries if entry.name.isdecimal())
                present_RC[row, [column for column in columns if column < self.grid.shape[1]]] = True
        return present_RC

    def write(self, block: Block, damage: Sequence[Damage] = ()) -> None:
        """Store a block, and before it the damaged windows of the source that lie in it.

        Raises
        ------
        OutputError
            if the disk is full or fails.
        """
        row, column = self.grid.place(block.window)
        try:
            if damage:
                text = json.dumps([[*astuple(d.window), d.reason] for d in damage])
                write_whole(self._note(row, column), text.encode())
                sync_folder(self._damage)
            self._array[self._chunk_slices(row, column)] = self._whole(block.planes_QHW)
        except OSError as error:
            raise OutputError(
                f"cannot store the block at {block.window}: {error.strerror or error}; stored ones are kept: "
                + ("free some space and " if error.errno in FULL else "")
                + "run the same command again"
            ) from None

    def read(self, row: int, column: int) -> NDArray[np.uint8]:
        """The planes of a block (Q, H, W).

        Raises
        ------
        TornBlockError
            if it is not there, or not as it was written.
        """
        height, width = self.grid.window(row, column).shape
        if not self._chunk(row, column).is_file():
            raise TornBlockError(row, column)
        try:
            planes_QHW = np.asarray(self._array[self._chunk_slices(row, column)])
        except (ValueError, RuntimeError, OSError):
            # The checksum, the decompressor or the disk says no: computing it again is the cure for all.
            raise TornBlockError(row, column) from None
        return planes_QHW[:, :height, :width]

    def drop(self, row: int, column: int) -> None:
        """Forget a block, so that it is computed again."""
        for path in (self._chunk(row, column), self._note(row, column)):
            path.unlink(missing_ok=True)

    def drop_torn(self) -> int:
        """Forget every block that does not read back; how many they were."""
        torn = 0
        for row, column in np.argwhere(self.present()):
            try:
                self.read(int(row), int(column))
            except TornBlockError:
                self.drop(int(row), int(column))
                torn += 1
        return torn

    def damage(self) -> tuple[Damage, ...]:
        """The damaged windows of the source in all blocks that are there; each once, in order."""
        return tuple(sorted({damage for note in self._notes() for damage in note}))

    def _notes(self) -> Iterator[list[Damage]]:
        for path in sorted(self._damage.iterdir()):
            if not re.fullmatch(r"\d+\.\d+\.json", path.name):
                continue
            row, column = map(int, path.stem.split("."))
            try:
                entries = json.loads(path.read_text())
                note = [Damage(Window(*map(int, entry[:4])), str(entry[4])) for entry in entries]
            except (ValueError, TypeError, LookupError):
                # Without its damage a block cannot be trusted.
                self.drop(row, column)
                continue
            if self._chunk(row, column).exists():
                yield note

    def sweep(self) -> None:
        """Remove what killed processes were writing. Nobody else may be writing now."""
        for path in self._folder.rglob("*" + PARTIAL):
            path.unlink(missing_ok=True)

    def _chunk(self, row: int, column: int) -> Path:
        return self._folder / "c" / "0" / str(row) / str(column)

    def _note(self, row: int, column: int) -> Path:
        return self._damage / f"{row}.{column}.json"

    def _chunk_slices(self, row: int, column: int) -> tuple[slice, slice, slice]:
        side = self.grid.side
        return slice(None), slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)

    def _whole(self, planes_QHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A block at the border, filled up to a whole chunk."""
        height, width = planes_QHW.shape[1:]
        margins = ((0, 0), (0, self.grid.side - height), (0, self.grid.side - width))
        return np.pad(planes_QHW, margins, constant_values=NODATA)

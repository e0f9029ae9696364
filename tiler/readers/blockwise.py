"""Reading a file whose blocks may be damaged: window by window, and around damage block by block.

So what is damaged is a matter of the file's own blocks, not of the windows in which it happens to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiler.damage import Damage
from tiler.errors import DamageError
from tiler.geometry import Window
from tiler.pixels import Pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiler.damage import DamageLog
    from tiler.ports import RasterInfo
    from tiler.readers.layout import BlockShape


class UnreadableError(Exception):
    """Pixels could not be read, for whatever reason; what that means is for the caller to say."""


class Blockwise:
    """What rasters of files have in common; they say how a window is read once, without a verdict."""

    __slots__ = ()
    info: RasterInfo
    damage: DamageLog | None
    """Where damaged blocks are noted, which then are not valid; None: damage is an error."""
    full: tuple[int, int] | None
    """Height and width of the full resolution, if this is a coarser one."""
    _blocks: BlockShape
    _bad: dict[Window, str]
    """Blocks of the file that are known to be damaged, and why."""

    def read_once(self, window: Window) -> Pixels:
        """The pixels of a window, or `UnreadableError`: no second attempt, no verdict."""
        raise NotImplementedError

    def forget_handle(self) -> None:
        """Close this thread's handle, because it is not to be trusted after a failure."""
        raise NotImplementedError

    def read(self, window: Window) -> Pixels:
        """The pixels of a window.

        Raises
        ------
        DamageError
            if a block of the file that it touches cannot be decoded, and ``damage`` is None.
        MemoryError
            if there is no memory for it.
        """
        if self._bad and any(block in self._bad for block in self._under(window)):
            return self._read_around(window)
        try:
            return self.read_once(window)
        except UnreadableError as error:
            self.forget_handle()
            if self.damage is not None and self._blocks.independent:
                return self._read_around(window)
            # Where rows are decoded from those above, damage may lie above the window.
            decoded = window if self._blocks.independent else Window(0, 0, window.bottom, self.info.width)
            block, reason = next(self._damaged(decoded), (window, str(error)))
            raise self._error(block, reason) from None

    def _under(self, window: Window) -> Iterator[Window]:
        return self._blocks.under(window, self.info.height, self.info.width)

    def _damaged(self, window: Window) -> Iterator[tuple[Window, str]]:
        """The blocks of the file under a window that cannot be decoded, each tried by itself."""
        for block in self._under(window):
            try:
                self.read_once(block)
            except UnreadableError as error:
                self.forget_handle()
                yield block, str(error)

    def _read_around(self, window: Window) -> Pixels:
        """The pixels of a window without those of damaged blocks, which are not valid.

        Blocks are read whole, so that whether one is damaged does not depend on the window.
        """
        info = self.info
        raw_CHW = np.zeros((info.bands, *window.shape), info.dtype)
        valid_HW = np.zeros(window.shape, np.bool_)
        for block in self._under(window):
            if block in self._bad:
                continue
            try:
                pixels = self.read_once(block)
            except UnreadableError as error:
                self.forget_handle()
                self._note(block, str(error))
                continue
            part = block.intersection(window)
            inside = part.shifted(-block.top, -block.left).slices
            place = part.shifted(-window.top, -window.left).slices
            raw_CHW[:, *place], valid_HW[place] = pixels.raw_CHW[:, *inside], pixels.valid_HW[inside]
        return Pixels(raw_CHW, valid_HW)

    def _note(self, block: Window, reason: str) -> None:
        here = self.info.height, self.info.width
        full = self.full or here
        assert self.damage is not None  # noqa: S101 - else damage is an error
        self._bad[block] = reason
        whole = Window(0, 0, *full)
        self.damage.add(Damage(block.scaled(here, full).intersection(whole), reason))

    def _error(self, block: Window, reason: str) -> DamageError:
        cure = "restore the file and start anew, or carry on with --on-error nodata"
        if not self._blocks.independent:
            cure = f"restore the file: beyond damage a {self._blocks.driver} cannot be read"
        return DamageError(f"{self.info.name} is damaged at {block}: {reason}; {cure}")

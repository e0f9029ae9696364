"""TensorBoard, for those who have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tiler.errors import MissingError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch.utils.tensorboard import SummaryWriter


class Board(Protocol):
    """Where curves and pictures are shown while a run goes on."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add a point to a curve; NaN is left out."""

    def image(self, name: str, pixels_3HW: NDArray[np.uint8], step: int) -> None:
        """Add a picture."""

    def close(self) -> None:
        """Write what is not written yet."""


def check_board() -> None:
    """Refuse if there can be no board.

    Raises
    ------
    MissingError
        if TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401 - whether it is there
    except ImportError:
        raise MissingError(
            "TensorBoard is not installed; pip install 'gigatiler[tensorboard]', or leave --tensorboard away"
        ) from None


def open_board(folder: Path) -> Board:
    """A board that writes into a folder, which ``tensorboard --logdir`` shows.

    Raises
    ------
    MissingError
        if TensorBoard is not installed.
    """
    check_board()
    from torch.utils.tensorboard import SummaryWriter as Writer

    return _TorchBoard(Writer(str(folder)))


class _TorchBoard:
    """PyTorch's writer."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def scalar(self, name: str, value: float, step: int) -> None:
        if value == value:  # noqa: PLR0124 - NaN differs from itself
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, pixels_3HW: NDArray[np.uint8], step: int) -> None:
        self._writer.add_image(name, pixels_3HW, step)

    def close(self) -> None:
        self._writer.close()

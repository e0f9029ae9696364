"""The seams: what the engine needs from rasters, networks, outputs and onlookers.

Adapters (`readers`, `backends`, `sinks`) implement these; stages only ever see them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from tiler.events import Event
    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.resize import Place


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What is known of a raster before a pixel is read."""

    name: str
    """Path or label, for messages."""
    height: int
    width: int
    bands: int
    """Number of bands that `Raster.read` returns."""
    dtype: np.dtype[Any]
    crs: CRS | None = None
    transform: Affine | None = None
    """Pixel corner coordinates to CRS coordinates; None when the raster is not georeferenced."""
    ground: tuple[float, float] | None = None
    """Size of a pixel on the ground, or on a slide, at the raster's centre, metres: (along a row, along a
    column)."""
    to_level0: Affine | None = None
    """Pixel corner coordinates of this plane of a slide to level-0 pixel coordinates within the slide's
    bounds; None: the raster is no slide."""
    shrink: float = 1.0
    """Stored pixels that are read per pixel, when it is resampled from finer ones."""
    gaps: bool = True
    """Whether a pixel may be invalid, as far as is known."""
    colours: bool = False
    """Whether the file holds indices, and the bands are their colours."""
    validity: str = ""
    """How invalid pixels are told: by an alpha band, a mask, or values of nodata."""
    files: tuple[str, ...] = ()
    """Everything that the pixels come from: the file, its sidecars, the sources of a VRT; or an address."""
    reader: str = ""
    """What reads the file, with its version."""
    picture: Place | None = None
    """Where the whole picture lies in this plane, if it was resized as in training; None: it was not."""
    note: str = ""
    """How these pixels were made, when they are not the file's own, e.g. how it was resampled."""


class Raster(Protocol):
    """One plane of pixels at one resolution."""

    @property
    def info(self) -> RasterInfo:
        """Size, dtype and georeferencing."""

    def read(self, window: Window) -> Pixels:
        """The pixels of a window that lies inside the raster. Called from several threads at once.

        Raises
        ------
        DamageError
            if any pixel of the window cannot be decoded.
        """

    def empty(self, window: Window) -> bool:
        """Whether it is known without reading that no pixel of a window is valid."""


class Mask(Protocol):
    """Where a result is wanted."""

    def read(self, window: Window) -> NDArray[np.bool_]:
        """True where wanted, of a window that lies inside the raster. Called from several threads at once."""


class Backend(Protocol):
    """A network with its weights loaded."""

    @property
    def most_workers(self) -> int:
        """Calls at once that it can be prepared for; each batch has the same result in any of them."""

    @property
    def workers(self) -> int:
        """Calls at once that it is prepared for."""

    def predict(self, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """Scores, K channels per pixel, as (N, K, H, W): a new array."""

    def reserve(self, size: int, workers: int) -> None:
        """Prepare for so many calls at once that use up to ``size`` bytes; without it they may use more."""

    def release(self) -> None:
        """Give back memory kept for the next call; another call may follow all the same."""


class Sink(Protocol):
    """Where finished blocks go."""

    def write(self, block: Block) -> None:
        """Store one block. Every block of the grid comes exactly once, from one thread."""


class Observer(Protocol):
    """An onlooker: progress bars, logs, reports."""

    def __call__(self, event: Event) -> None:
        """Take note; must not raise."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A rectangle of the result, final."""

    window: Window
    planes_QHW: NDArray[np.uint8]
    """Label planes, then probability planes (see `tiler.finish`); 255 is nodata in all of them."""

"""A network ready to run, with what is known about it. No knowledge of how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from tiler.ports import Backend
    from tiler.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A loaded network."""

    path: Path
    sha256: str
    """Of the file, hexadecimal."""
    spec: ModelSpec
    origins: dict[str, str]
    """Where each field of ``spec`` came from: proven (from the graph), metadata, option, graph or default."""
    backend: Backend
    device: str
    """What it runs on, in words."""
    dtype: np.dtype[Any]
    """Of its input."""
    channels: int
    """K, scores per pixel."""
    shape: tuple[int | None, int | None, int | None]
    """Batch, height and width where the graph fixes them."""
    bytes_per_pixel: float
    """Memory that the network needs per input pixel while it runs, estimated from its graph."""
    needs: int | None = None
    """Halo in pixels with which tiles are proven to equal the whole image; None: not proven."""
    inexact: tuple[str, ...] = ()
    """Why tiles of it do not equal the whole image, or are not known to."""

"""Arrays saved by NumPy or PyTorch as rasters: (H, W), or with bands."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.errors import InputError, MissingError, one_line
from tiler.readers.array import ArrayRaster

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tiler.geometry import Window
    from tiler.pixels import Pixels
    from tiler.ports import Raster, RasterInfo

NUMPY: Final = ".npy"
TORCH: Final = (".pt", ".pth")
SUFFIXES: Final = (NUMPY, *TORCH)
COLOURS: Final = 4
"""Bands at most of a tensor that has them last: no picture is as narrow."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedRaster:
    """A raster with a name for messages."""

    raster: Raster
    name: str

    @property
    def info(self) -> RasterInfo:
        """The raster's own, but for the name."""
        return replace(self.raster.info, name=self.name)

    def empty(self, window: Window) -> bool:
        """As the raster knows it."""
        return self.raster.empty(window)

    def read(self, window: Window) -> Pixels:
        """The raster's own pixels."""
        return self.raster.read(window)


def open_array(path: Path, dtypes: tuple[str, ...], bands: tuple[int, ...] | None = None) -> NamedRaster:
    """Map an array into memory; ``bands`` are chosen by numbers from 1. Float pixels that are NaN are nodata.

    NumPy's have the axes (H, W) or (H, W, C); PyTorch's (H, W), (C, H, W), or (H, W, C) of 1 to 4 bands.

    Raises
    ------
    InputError
        if the file is no such array, or of another type.
    MissingError
        if it is PyTorch's, and PyTorch is not here.
    """
    array_CHW = _numpy(path) if path.suffix.lower() == NUMPY else _torch(path)
    if array_CHW.dtype.name not in dtypes:
        raise InputError(
            f"pixels are {', '.join(dtypes)}, got {array_CHW.dtype} in {path}; save it as one of these"
        )
    missing = [band for band in bands or () if not 1 <= band <= len(array_CHW)]
    if missing:
        raise InputError(f"{path} has bands 1 to {len(array_CHW)}, got {missing}; see --bands")
    chosen_CHW = array_CHW if bands is None else array_CHW[[band - 1 for band in bands]]
    return NamedRaster(ArrayRaster(chosen_CHW), str(path))


def _numpy(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot open {path} as an array: {one_line(error)}") from None
    if not isinstance(array, np.ndarray) or array.ndim not in {2, 3} or not array.size:
        raise InputError(f"an array has the axes (H, W) or (H, W, C), got {np.shape(array)} in {path}")
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _torch(path: Path) -> NDArray[Any]:
    try:
        import torch

        from train.models.weights import UNREADABLE
    except ModuleNotFoundError as error:
        raise MissingError(f"{path} needs {error.name}; pip install 'gigatiler[train]'") from None
    try:
        # Nothing but tensors and numbers is unpickled; files of old are no zip, and cannot be mapped.
        tensor = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UNREADABLE as error:
        raise InputError(f"cannot open {path} as a tensor: {one_line(error)}") from None
    shape = tuple(getattr(tensor, "shape", ()))
    if not isinstance(tensor, torch.Tensor) or len(shape) not in {2, 3} or not tensor.numel():
        raise InputError(
            f"a file of pixels is one tensor of the axes (H, W) or (C, H, W), "
            f"got {shape or type(tensor).__name__} in {path}"
        )
    try:
        array = tensor.detach().numpy()
    except (RuntimeError, TypeError) as error:  # sparse, quantised, or of a type that NumPy does not have
        raise InputError(f"pixels are a plain tensor, got another in {path}: {one_line(error)}") from None
    if array.ndim == 2:
        return np.asarray(array[None])
    last = shape[2] <= COLOURS < shape[0]
    return np.asarray(array.transpose(2, 0, 1) if last else array)

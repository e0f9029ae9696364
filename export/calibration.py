"""What the network is shown to learn the range of its activations: real tiles, one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from export.sample import BLACK, sample
from tiler.tiles import network_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tiler.model import Model
    from tiler.ports import Raster

CELLS: Final = 32
"""Tiles that are shown, of all rasters together: 2 Mpx where the network leaves their size open."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime has no types
    """Batches by name, as ONNX Runtime asks for them; used up by one calibration."""

    name: str
    """Of the network's input."""
    batches: Iterator[NDArray[Any]]
    """Each (N, C, H, W)."""

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch; None after the last."""
        batch_NCHW = next(self.batches, None)
        return None if batch_NCHW is None else {self.name: batch_NCHW}


def calibration_batches(model: Model, rasters: Sequence[Raster]) -> Iterator[NDArray[Any]]:
    """Tiles from all over the rasters, as many from each, fed as segmenting feeds them.

    A network whose batch is fixed is shown as many copies.

    Raises
    ------
    InputError
        if one of the rasters is too small or holds no data.
    """
    each = -(-CELLS // len(rasters))
    for raster in rasters:
        for _, pixels in sample(raster, model, BLACK, each):
            input_CHW = network_input(pixels, model.spec, model.dtype)
            yield np.repeat(input_CHW[None], model.shape[0] or 1, axis=0)

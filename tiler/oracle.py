"""Whole-image inference: the network run once on the whole raster, filled and padded as tiles are.

The independent statement of what tiling must reproduce. It needs memory for everything at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.geometry import Window
from tiler.pixels import Pixels, fill_invalid, fill_values, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.ports import Backend, Raster
    from tiler.spec import ModelSpec


def whole_image_scores(
    raster: Raster, backend: Backend, spec: ModelSpec, dtype: np.dtype[Any]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores (K, H, W) and which pixels are valid (H, W)."""
    height, width = raster.info.height, raster.info.width
    pixels: Pixels = raster.read(Window(0, 0, height, width))
    filled_CHW = fill_invalid(pixels, fill_values(spec, pixels.raw_CHW.dtype))
    stride = spec.stride or 1
    padded_CHW = np.pad(filled_CHW, ((0, 0), (0, -height % stride), (0, -width % stride)), mode="reflect")
    input_CHW = padded_CHW if dtype.kind == "u" else normalise(padded_CHW, spec)
    scores_KHW = backend.predict(input_CHW.astype(dtype)[None])[0]
    return scores_KHW[:, :height, :width], pixels.valid_HW

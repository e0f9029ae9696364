"""Raw pixels: which of them are valid, what stands in for the others, and how a network is fed.

The one definition of all three, used for segmenting, for training and by the whole-image oracle.
Shapes: C bands, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from tiler.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A rectangle of a raster as stored, and which of its pixels hold data."""

    raw_CHW: NDArray[Any]
    """In the raster's own dtype and units."""
    valid_HW: NDArray[np.bool_]
    """False where the pixel is nodata, masked, transparent or not finite in any band."""


def checked_pixels(raw_CHW: NDArray[Any], valid_HW: NDArray[np.bool_]) -> Pixels:
    """Pixels whose ``valid_HW`` is also False wherever a band is NaN or infinite."""
    if np.issubdtype(raw_CHW.dtype, np.floating):
        valid_HW = valid_HW & np.isfinite(raw_CHW).all(axis=0)
    return Pixels(raw_CHW, valid_HW)


def fill_values(spec: ModelSpec, dtype: DTypeLike) -> NDArray[Any]:
    """Per band, in the raster's dtype: what invalid pixels are filled with.

    The spec's own ``fill``, else the spec's mean in raw units, rounded and clipped to the dtype.
    """
    bands = len(spec.bands)
    mean = np.array(spec.mean or (0.0,) * bands) / np.array(spec.scale or (1.0,) * bands)
    values_C = np.array(spec.fill) if spec.fill else mean
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(np.dtype(dtype))
        values_C = np.clip(np.rint(values_C), limits.min, limits.max)
    return values_C.astype(dtype)


def fill_invalid(pixels: Pixels, fill_C: NDArray[Any]) -> NDArray[Any]:
    """The raw pixels with every invalid one replaced by its band's fill; the input is not modified."""
    if pixels.valid_HW.all():
        return pixels.raw_CHW
    return np.where(pixels.valid_HW, pixels.raw_CHW, fill_C[:, None, None])


def factors(spec: ModelSpec) -> NDArray[np.float32]:
    """Per band what raw pixels are multiplied by, and what is then subtracted: shape (2, C)."""
    bands = len(spec.bands)
    std_C = np.array(spec.std or (1.0,) * bands)
    scale_C, mean_C = np.array(spec.scale or (1.0,) * bands), np.array(spec.mean or (0.0,) * bands)
    return np.stack([scale_C / std_C, mean_C / std_C]).astype(np.float32)


def normalise(raw_CHW: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Scale, centre and divide each band: ``(raw * scale - mean) / std``, as float32."""
    scale_C, shift_C = factors(spec)
    out_CHW = raw_CHW.astype(np.float32)
    out_CHW *= scale_C[:, None, None]
    out_CHW -= shift_C[:, None, None]
    return out_CHW

"""Hue, saturation and value of red, green and blue, by kornia."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv

if TYPE_CHECKING:
    from numpy.typing import NDArray


def changed(raw_3HW: NDArray[np.uint8], hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    """The hue turned by a share of the colour wheel, the others multiplied; 0 to 255, not rounded."""
    hsv_13HW = rgb_to_hsv(torch.from_numpy(raw_3HW.astype(np.float32) / 255)[None])
    hsv_13HW[:, 0] = (hsv_13HW[:, 0] + 2 * math.pi * hue) % (2 * math.pi)
    hsv_13HW[:, 1] = (hsv_13HW[:, 1] * saturation).clamp(0, 1)
    hsv_13HW[:, 2] = (hsv_13HW[:, 2] * value).clamp(0, 1)
    return np.asarray(hsv_to_rgb(hsv_13HW)[0].numpy() * 255)

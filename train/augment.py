"""Random flips, quarter turns and mild changes of light, the same for pixels and target.

What is drawn depends on (seed, epoch, step) alone, so a resumed run draws what an unbroken one does.
Pixels are normalised: about zero mean and unit variance in each band, any number of bands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import kornia.augmentation as K  # noqa: N812 - its own documentation's name for it
import numpy as np
import torch
from kornia.constants import DataKey
from torch import Tensor

BAND_SHIFT = 0.15
"""Standard deviation of a shift drawn per image and band: a cast of colour."""


@dataclass(frozen=True, slots=True, eq=False)
class Augment:
    """Varies a batch."""

    seed: int
    geometry: Any = field(init=False, repr=False)
    light: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "geometry", _geometry())
        object.__setattr__(self, "light", _light())

    @torch.no_grad()
    def __call__(
        self, pixels_NCHW: Tensor, target_NHW: Tensor, epoch: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """New tensors; the target keeps its values, 255 among them."""
        entropy = np.random.SeedSequence([self.seed, epoch, step])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(entropy.generate_state(1)[0]))
            pixels_NCHW, target_N1HW = self.geometry(pixels_NCHW, target_NHW[:, None].float())
            pixels_NCHW = self.light(pixels_NCHW)
            shift_NC11 = BAND_SHIFT * torch.randn(*pixels_NCHW.shape[:2], 1, 1)
        return pixels_NCHW + shift_NC11.to(pixels_NCHW.device), target_N1HW[:, 0].long()


def _geometry() -> K.AugmentationSequential:
    # Nearest for the pixels too: under flips and quarter turns it is exact, and bilinear is not quite.
    return K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomRotation90(times=(0, 3), resample="nearest", p=1.0),
        data_keys=["input", "mask"],
        extra_args={DataKey.MASK: {"resample": "nearest", "align_corners": True}},
    )


def _light() -> K.AugmentationSequential:
    # Never clipped: normalised pixels are not confined to [0, 1].
    return K.AugmentationSequential(
        K.RandomContrast(contrast=(0.8, 1.25), clip_output=False, p=0.8),
        K.RandomBrightness(brightness=(0.75, 1.25), clip_output=False, p=0.8),
    )

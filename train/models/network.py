"""What every network says about itself.

It takes pixels (N, C, H, W) and returns logits (N, K, H', W'); while it is trained with deep supervision, a
tuple of them, one per head. H' and W' are `Network.out_size` of H and W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from train.models.geometry import Geometry


class Network(nn.Module):
    """Base of all networks; what they say of sizes follows from their options."""

    options: Any
    """One of `train.models.options`; determines all but the weights."""

    @property
    def geometry(self) -> Geometry:
        """Its sizes and its halo."""
        found: Geometry = self.options.geometry
        return found

    @property
    def in_channels(self) -> int:
        """Bands, C."""
        return int(self.options.in_channels)

    @property
    def classes(self) -> int:
        """K."""
        return int(self.options.classes)

    @property
    def stride(self) -> int:
        """Total down-sampling: tile origins are multiples of it, in input pixels."""
        return self.geometry.stride

    @property
    def halo(self) -> int:
        """Input pixels that a tile carries on each side of its core, a multiple of the stride."""
        return self.geometry.halo

    @property
    def margin(self) -> int:
        """Input pixels on each side that get no score: 0 but for convolutions without padding."""
        return self.geometry.margin

    @property
    def scale(self) -> int:
        """Scores per input pixel along an axis."""
        return self.geometry.scale

    @property
    def inexact(self) -> tuple[str, ...]:
        """Why tiles do not equal the whole image, a line each; empty if they do."""
        reasons: tuple[str, ...] = self.options.inexact
        return reasons

    @property
    def exact(self) -> bool:
        """Whether tiles with `halo` equal the whole image."""
        return not self.inexact

    def out_size(self, n: int) -> int:
        """Scores along a side of ``n`` pixels.

        Raises
        ------
        UsageError
            if the network does not take that size; names the nearest that it takes.
        """
        return self.geometry.out_size(n)

    def check_size(self, pixels_NCHW: Tensor) -> None:
        """Refuse sizes that it does not take; while it is traced, sizes are not known."""
        if not torch.compiler.is_compiling():
            for n in pixels_NCHW.shape[2:]:
                self.out_size(n)

    def encoder_modules(self) -> Iterator[nn.Module]:
        """What came with weights of its own and is frozen at first; nothing if it has no such part."""
        return iter(())

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of `encoder_modules`."""
        for module in self.encoder_modules():
            yield from module.parameters()


def parameters(net: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in net.parameters())

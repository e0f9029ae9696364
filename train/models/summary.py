"""How large a network is, and what one image costs; worked out without computing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from train.models.build import build
from train.models.network import parameters

if TYPE_CHECKING:
    from train.models.network import Network


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a network and one image of that size."""

    side: int
    """Rows and columns, pixels."""
    parameters: int
    """Trainable values."""
    gflops: float
    """1e9 floating-point operations of all convolutions; a multiplication and an addition count as two."""
    activations: int
    """Bytes of what layers return in float32, but for those that work in place: about what training keeps."""

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters; at {self.side} x {self.side} px {self.gflops:.4g} GFLOPs "
            f"(a multiply-add counts as 2), {self.activations / 1e6:,.0f} MB of activations"
        )


def summary(net: Network, side: int) -> Summary:
    """Count parameters, operations and activations.

    Parameters
    ----------
    net
        In any mode; counted as in evaluation.
    side
        Of a square image, pixels; a size that the network takes.

    Raises
    ------
    UsageError
        if it does not take that size.
    """
    net.out_size(side)
    with torch.device("meta"):  # shapes without values
        bare = build(net.options).eval()
    total = 0

    def add(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:  # noqa: ANN401 - as torch has it
        nonlocal total
        total += 4 * output.numel()

    for module in bare.modules():
        if not any(module.children()) and not getattr(module, "inplace", isinstance(module, nn.Identity)):
            module.register_forward_hook(add)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        bare(torch.empty(1, net.in_channels, side, side, device="meta"))
    return Summary(side, parameters(net), counter.get_total_flops() / 1e9, total)

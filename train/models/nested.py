"""UNet++: a U-Net whose skips pass blocks on their way (Zhou et al., 2018, arXiv:1807.10165).

Block (i, j) lies i levels down and sees all blocks of its level before it, and the one below. Those with
i + j at most L make a network of depth L, with a head of its own on (0, L): so a trained network can be
pruned, without training again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from tiler.errors import UsageError
from train.models.layers import Style, double_conv, interpolation
from train.models.network import Network

if TYPE_CHECKING:
    from torch import Tensor

    from train.models.options import NestedOptions


class NestedUNet(Network):
    """Bands in, one logit per class and pixel out; with deep supervision one per head while training."""

    options: NestedOptions

    def __init__(self, options: NestedOptions) -> None:
        super().__init__()
        self.options = options
        style, depth = Style.of(options), options.depth
        wide = [options.width * 2**level for level in range(depth + 1)]
        self.node = nn.ModuleDict()
        for i, j in grid(depth):
            above = options.in_channels if i == 0 else wide[i - 1]
            inside = j * wide[i] + wide[i + 1] if j else above
            self.node[f"{i}_{j}"] = double_conv(inside, wide[i], wide[i], style)
        self.pool, self.grow = nn.MaxPool2d(2), interpolation(options.up)
        self.head = nn.ModuleList(
            nn.Conv2d(wide[0], options.classes, 1) for _ in range(depth if options.supervision else 1)
        )

    def forward(self, pixels_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits (N, K, H, W); in training mode with deep supervision a tuple of ``depth`` of them."""
        self.check_size(pixels_NCHW)
        rows = self._rows(pixels_NCHW)
        if not self.options.supervision:
            last: Tensor = self.head[0](rows[-1])
            return last
        if self.training:
            return tuple(head(x) for head, x in zip(self.head, rows, strict=True))
        if self.options.answer == "average":
            heads = [head(x) for head, x in zip(self.head, rows, strict=True)]
            return torch.stack(heads).mean(dim=0)
        best: Tensor = self.head[-1](rows[-1])
        return best

    def _rows(self, pixels_NCHW: Tensor) -> list[Tensor]:
        """The first row's blocks (0, 1) to (0, depth)."""
        made: dict[tuple[int, int], Tensor] = {}
        for i, j in grid(self.options.depth):
            if j:
                x = torch.cat([*(made[i, k] for k in range(j)), self.grow(made[i + 1, j - 1])], dim=1)
            else:
                x = self.pool(made[i - 1, 0]) if i else pixels_NCHW
            made[i, j] = self.node[f"{i}_{j}"](x)
        return [made[0, j] for j in range(1, self.options.depth + 1)]


def grid(depth: int) -> list[tuple[int, int]]:
    """The blocks in an order in which each comes after what it sees.

    >>> grid(1)
    [(0, 0), (1, 0), (0, 1)]
    """
    return [(i - j, j) for i in range(depth + 1) for j in range(i + 1)]


def with_head(net: Network, head: str) -> Network:
    """A network that answers with one head, or with the average of all.

    Parameters
    ----------
    net
        In any mode; shares its weights with the result.
    head
        ``1`` to the depth: the network is pruned to what that head needs; or ``average``.

    Raises
    ------
    UsageError
        if the network has no such head.
    """
    if not isinstance(net, NestedUNet) or not net.options.supervision:
        raise UsageError(
            f"a head is chosen of a UNet++ trained with deep supervision, got {head!r} for a "
            f"{type(net).__name__} with one head"
        )
    known = ["average", *map(str, range(1, net.options.depth + 1))]
    if head not in known:
        raise UsageError(f"a head of this network is one of {', '.join(known)}, got {head!r}")
    if head == "average":
        chosen = NestedUNet(replace(net.options, answer="average"))
        chosen.load_state_dict(net.state_dict(), assign=True)
        return chosen.train(net.training)
    depth = int(head)
    pruned = NestedUNet(replace(net.options, depth=depth, supervision=False, answer="last"))
    state, kept = net.state_dict(), f"head.{depth - 1}."
    taken = {name: state[name.replace("head.0.", kept)] for name in pruned.state_dict()}
    pruned.load_state_dict(taken, assign=True)
    return pruned.train(net.training)

"""A network averaged over its last steps: calmer and better than any single one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from train.models.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class Average:
    """Follows another network, step by step. It is what is validated and kept."""

    net: Network
    share: float
    """By how much it moves per step, in (0, 1]; 1: it is the other network."""

    @classmethod
    def of(cls, net: Network, steps: float) -> Average:
        """One that forgets within about so many steps."""
        return cls(copy.deepcopy(net), 1 / max(1.0, steps))

    @property
    def smooth(self) -> bool:
        """Whether it is another than the network it follows."""
        return self.share < 1

    @torch.no_grad()
    def follow(self, net: Network) -> None:
        """Move a little towards the network; what is counted, not measured, is taken over."""
        now = net.state_dict()
        for name, value in self.net.state_dict().items():
            if value.is_floating_point() and self.smooth:
                value.lerp_(now[name], self.share)
            else:
                value.copy_(now[name])

"""How weights begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import nn

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Fill = Callable[[Tensor], object]

NORMAL: Final = 0.02
"""Deviation of ``normal``, and gain of ``xavier`` and ``orthogonal``, as the seeds' listings have them."""

INITS: Final = ("default", "normal", "xavier", "kaiming", "orthogonal")


def initialise(net: nn.Module, kind: str) -> None:
    """Draw the weights of all convolutions anew, from torch's generator; biases become 0, norms 1 and 0.

    Parameters
    ----------
    net
        Changed in place.
    kind
        ``default`` leaves PyTorch's own. ``normal``: deviation 0.02. ``xavier``: normal, gain 0.02.
        ``kaiming``: deviation sqrt(2 / N) for N values that come in, as the U-Net paper has it.
        ``orthogonal``: gain 0.02.

    Raises
    ------
    UsageError
        if there is no such kind.
    """
    fills: dict[str, Fill] = {
        "normal": lambda w: nn.init.normal_(w, 0.0, NORMAL),
        "xavier": lambda w: nn.init.xavier_normal_(w, NORMAL),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, NORMAL),
    }
    if kind not in INITS:
        raise UsageError(f"weights begin as one of {', '.join(INITS)}, got {kind!r}")
    if kind == "default":
        return
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fills[kind](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

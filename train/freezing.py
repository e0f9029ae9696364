"""Layers that stay as they are: those of an encoder, and the statistics of batch norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.modules.batchnorm import _BatchNorm

from tiler.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from train.models.network import Network


def check_freezable(net: Network) -> None:
    """Refuse to freeze what is not there.

    Raises
    ------
    UsageError
        if the network has no encoder of its own.
    """
    if not list(net.encoder_parameters()):
        raise UsageError(
            "--freeze-epochs needs a network with an encoder that has weights of its own, got one without; "
            "choose such a --preset, or leave it out"
        )


def set_frozen(net: Network, frozen: bool) -> None:
    """Make the encoder's parameters trainable or not."""
    for parameter in net.encoder_parameters():
        parameter.requires_grad_(not frozen)


def set_training(net: Network, *, frozen: bool, norms_frozen: bool) -> None:
    """Training mode, but for batch norms whose statistics stay as they are.

    Parameters
    ----------
    net
        The network itself, not a wrapper.
    frozen
        Batch norms of the encoder are frozen.
    norms_frozen
        All batch norms are frozen.
    """
    net.train()
    parts = list(net.encoder_modules()) if frozen else []
    for root in [net] if norms_frozen else parts:
        for norm in batch_norms(root):
            norm.eval()


def batch_norms(root: nn.Module) -> list[nn.Module]:
    """All in a module."""
    return [m for m in root.modules() if isinstance(m, _BatchNorm)]

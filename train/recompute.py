"""Less memory for more time: activations inside blocks are computed again when gradients need them.

After Chen et al., "Training deep nets with sublinear memory cost" (2016, arXiv:1604.06174), by
`torch.utils.checkpoint`. Results are the same to the bit, dropout and batch-norm statistics among them.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def recompute_blocks(net: nn.Module) -> None:
    """From now on, keep of each block its input alone while training. Works in place; call it once.

    Raises
    ------
    UsageError
        if the network has no blocks.
    """
    found = blocks(net)
    if not found:
        raise UsageError(
            f"--recompute needs a network with blocks of convolutions, got {type(net).__name__}; leave it out"
        )
    for block in found:
        # The name `forward` of this one object, so that names in checkpoints stay as they are.
        block.forward = partial(_recomputed, block, block.forward)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The smallest modules that hold two convolutions or more and are called as one."""
    found = []
    for module in net.children():
        inner = blocks(module)
        called = not isinstance(module, (nn.ModuleList, nn.ModuleDict))
        found += inner or ([module] if called and _convolutions(module) >= 2 else [])
    return found


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(m, CONVOLUTIONS) for m in module.modules())


def _recomputed(block: nn.Module, forward: Any, *inputs: Any) -> Any:  # noqa: ANN401 - as the block has it
    if not block.training:
        return forward(*inputs)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), _statistics_kept(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass sees the same batch: it must not count twice in the running statistics."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked

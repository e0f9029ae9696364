"""The optimisers, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.nn import Parameter
    from torch.optim import Optimizer

OPTIMIZERS: Final = ("adamw", "adam", "sgd", "rmsprop")


@dataclass(frozen=True, slots=True)
class OptimizerOptions:
    """How weights follow gradients."""

    optimizer: str = "adamw"
    """One of `OPTIMIZERS`. ``adam`` adds the decay to the gradient, ``adamw`` takes it off the weights."""
    lr: float = 0.005
    """Peak learning rate."""
    weight_decay: float = 0.01
    decay_all: bool = True
    """Whether biases and the weights of normalisation decay too."""
    momentum: float = 0.9
    """Of ``sgd`` and ``rmsprop``; of the Adams the first beta."""
    beta2: float = 0.999
    """Second beta of the Adams; share of the old in the mean square of ``rmsprop`` (there 0.99 is usual)."""
    nesterov: bool = False
    """Momentum of ``sgd`` that looks ahead."""
    lr_batch: int = 0
    """Batch for which ``lr`` holds: with another one it is scaled in proportion. 0: it is not."""
    lr_least: float = 0.0
    """Least peak after scaling."""
    lr_most: float = math.inf
    """Largest peak after scaling."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"--optimizer is one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"--lr is above 0, got {self.lr}")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"--weight-decay is at least 0, got {self.weight_decay}")
        for name in ("momentum", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"--{name} is at least 0 and below 1, got {getattr(self, name)}")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            raise UsageError(
                f"--nesterov goes with sgd and momentum, got {self.optimizer} and {self.momentum}"
            )
        if self.lr_batch < 0:
            raise UsageError(f"--lr-batch is at least 0, got {self.lr_batch}")
        if not 0 <= self.lr_least <= self.lr_most:
            raise UsageError(f"--lr-least is 0 to --lr-most, got {self.lr_least} and {self.lr_most}")
        if not self.lr_batch and (self.lr_least or self.lr_most != math.inf):
            raise UsageError("--lr-least and --lr-most bound what --lr-batch scales, got no --lr-batch")

    def peak(self, batch: int) -> float:
        """The learning rate for a global batch of that size.

        >>> OptimizerOptions(lr=1e-4, lr_batch=16, lr_least=1e-4, lr_most=1e-4).peak(batch=2)
        0.0001
        """
        if not self.lr_batch:
            return self.lr
        return min(max(self.lr * batch / self.lr_batch, self.lr_least), self.lr_most)


def make_optimizer(params: Iterable[Parameter], options: OptimizerOptions) -> Optimizer:
    """The optimiser that the options name, over the parameters; its learning rate is ``options.lr``."""
    from torch import optim

    shared: dict[str, Any] = {"lr": options.lr}
    betas = (options.momentum, options.beta2)
    groups = _groups(list(params), options)
    if options.optimizer == "sgd":
        return optim.SGD(groups, momentum=options.momentum, nesterov=options.nesterov, **shared)
    if options.optimizer == "rmsprop":
        return optim.RMSprop(groups, momentum=options.momentum, alpha=options.beta2, **shared)
    kind = optim.AdamW if options.optimizer == "adamw" else optim.Adam
    return kind(groups, betas=betas, **shared)


def _groups(params: list[Parameter], options: OptimizerOptions) -> list[dict[str, Any]]:
    """One group, or those that decay and those that do not: biases and scales have one axis."""
    if options.decay_all:
        return [{"params": params, "weight_decay": options.weight_decay}]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]

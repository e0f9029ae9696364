"""One step of the optimizer: forward, loss, backward, clip, step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from tiler.errors import OutOfMemoryError
from train.freezing import set_frozen, set_training
from train.losses.make import make_loss
from train.optimizers import make_optimizer
from train.schedules import make_schedule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from train.data.crops import Sample
    from train.machine import Machine
    from train.options import TrainOptions
    from train.schedules import Schedule
    from train.stages import Stage


@dataclass(slots=True, eq=False)
class Learner:
    """A network with what changes its weights."""

    options: TrainOptions
    machine: Machine
    net: Any
    """A network of `train.models`, bare."""
    optimizer: Optimizer = field(init=False)
    schedule: Schedule = field(init=False)
    stage: Stage = field(init=False)
    model: nn.Module = field(init=False)
    """`net`, on the device and in the precision that were asked for."""
    _loss: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Channels last in memory: the convolutions of a CPU are a third faster with it.
        self.net.to(self.machine.device, memory_format=torch.channels_last)
        optimizer = make_optimizer(self.net.parameters(), self.options.optimizer_options())
        self.optimizer = self.machine.accelerator.prepare_optimizer(optimizer)
        self._loss = make_loss(self.options.loss_options())
        self.schedule = self._schedule(self.options.stages[0])

    def enter(self, stage: Stage) -> None:
        """Go on as this stage has it."""
        self.stage = stage
        set_frozen(self.net, stage.frozen)
        self.optimizer.zero_grad()
        self.model = self.machine.wrap(self.net)
        state = self.schedule.state()
        self.schedule = self._schedule(stage)
        self.schedule.load(state)

    def _schedule(self, stage: Stage) -> Schedule:
        return make_schedule(self.options.schedule_options(), stage.steps, self.options.epochs)

    def begin(self) -> None:
        """Be ready for an epoch: evaluation may have left the network in another mode."""
        set_training(self.net, frozen=self.stage.frozen, norms_frozen=self.options.freeze_norm)

    def learn(self, sample: Sample, step: int) -> Tensor:
        """Learn from a slice of a batch; returns the loss of the whole batch before, without a gradient.

        Raises
        ------
        OutOfMemoryError
            if the GPU's memory is too small.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr * self.schedule.factor(step)
        try:
            total = self._accumulate(sample)
        except torch.OutOfMemoryError:
            raise OutOfMemoryError(
                f"a batch fits into the GPU's memory, {self.stage.batch} crops of {self.options.crop} px do "
                "not; use --recompute, a larger --accumulate, or a smaller --batch or --crop"
            ) from None
        if self.options.clip:
            self.machine.accelerator.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _accumulate(self, sample: Sample) -> Tensor:
        """Gradients of the mean loss of all pieces of a slice."""
        pieces = list(zip(*(tensor.chunk(self.options.accumulate) for tensor in sample), strict=True))
        total = torch.zeros((), device=self.machine.device)
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            with nullcontext() if last else self.machine.no_sync(self.model):
                loss = self.loss(*(tensor.to(self.machine.device) for tensor in piece)) / len(pieces)
                self.machine.backward(loss)
            total += loss.detach()
        return total

    def loss(self, pixels_NCHW: Tensor, target: Tensor, weight_NHW: Tensor) -> Tensor:
        """Mean over the heads of the network."""
        if self.net.scale > 1:
            pixels_NCHW = functional.avg_pool2d(pixels_NCHW, self.net.scale)
        heads = self.model(pixels_NCHW.contiguous(memory_format=torch.channels_last))
        heads = heads if isinstance(heads, tuple) else (heads,)
        margin = self.net.margin * self.net.scale
        target, weight_NHW = inside(target, margin), inside(weight_NHW, margin)
        losses = [self._loss(logits_NKHW, target, weight_NHW) for logits_NKHW in heads]
        return torch.stack(losses).mean()


def inside(image: Tensor, margin: int) -> Tensor:
    """An image (..., H, W) without its margin; one number for all pixels (..., 1, 1) stays."""
    if margin == 0 or image.shape[-2:] == (1, 1):
        return image
    return image[..., margin:-margin, margin:-margin]

"""The device, the precision and the processes of a run.

Started alone, a run is one process. Started by ``torchrun`` or ``accelerate launch`` it is as many as were
asked for: each learns from its slice of every batch and evaluates its share of the images, and what is said
and written is said and written by the first.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import distributed

from tiler.errors import MissingError, OutOfMemoryError, TilerError, UsageError, one_line
from tiler.grid import round_up
from train.allocator import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from train.options import TrainOptions

T = TypeVar("T")
PATIENCE: Final = timedelta(days=1)
"""How long a process waits for another, which may evaluate a large raster alone. PyTorch: ten minutes."""


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """Where a run computes."""

    accelerator: Accelerator

    def __str__(self) -> str:
        several = f", {self.world} processes" if self.world > 1 else ""
        return f"on {self.device.type}{several}"

    @classmethod
    def start(cls, options: TrainOptions) -> Machine:
        """The device and precision that were asked for, or an error: never a slower one in silence.

        Raises
        ------
        MissingError, UsageError
            if this machine has not got them.
        """
        check_device(options)
        torch.backends.cudnn.deterministic = True
        # It keeps one state per process, and would refuse a second run of another precision in a notebook.
        AcceleratorState._reset_state()  # noqa: SLF001 - there is no public way
        patient = InitProcessGroupKwargs(timeout=PATIENCE)
        cpu, precision = on_cpu(options), options.precision
        if cpu:
            keep_freed_memory()
        started = cls(Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[patient]))
        if options.threads is not None:  # of several processes accelerate sets it, too
            torch.set_num_threads(options.threads)
        check_slices(options, started.world)
        return started

    @property
    def device(self) -> torch.device:
        """Of this process."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """For all processes to come here."""
        self.accelerator.wait_for_everyone()

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Those of this process: each is in exactly one, so that nothing is counted twice."""
        return items[self.rank :: self.world]

    def summed(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Counts of all processes together."""
        if self.world == 1:
            return counts
        total = torch.from_numpy(counts).to(self.device)
        distributed.all_reduce(total)
        return total.cpu().numpy()

    def gathered(self, items: list[Any]) -> list[Any]:
        """Those of all processes, in the order of the processes."""
        return items if self.world == 1 else list(gather_object(items))

    def agreed(self, work: Callable[[], T]) -> T:
        """Do what each process may refuse: what one refuses all do, so that the first says it and none waits.

        Raises
        ------
        TilerError
            that of the first process that has one.
        """
        try:
            made, refused = work(), None
        except TilerError as error:
            made, refused = None, error
        for refusal in self.gathered([refused]):
            if refusal is not None:
                raise refusal
        return cast("T", made)

    @contextmanager
    def holding_together(self) -> Iterator[None]:
        """Make one line of another process that is lost.

        Raises
        ------
        TilerError
            if one is.
        """
        try:
            yield
        except RuntimeError as error:  # a plain one from gloo
            if self.world == 1 or not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
                raise
            raise TilerError(
                f"processes of a run live as long as it does, process {self.rank} of {self.world} lost "
                f"another ({one_line(error)}); see what that one said, and run again to carry on"
            ) from None

    def agree(self, net: nn.Module) -> None:
        """Give all processes the network of the first: batch norms have seen other samples in each."""
        if self.world > 1:
            for value in net.state_dict().values():
                distributed.broadcast(value, 0)

    def only_first(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """`say` in the first process, silence in the others."""
        return say if self.first else _silent

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as it is trained here: on the device, in the precision, its gradients averaged.

        Wrap again after what is trainable has changed: only what is trainable now is averaged.
        """
        bare = self.accelerator.unwrap_model(net, keep_fp32_wrapper=False)
        wrapped: nn.Module = self.accelerator.prepare_model(bare)
        return wrapped

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """While gradients only add up, processes need not exchange them."""
        context: AbstractContextManager[None] = self.accelerator.no_sync(model)
        return context

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients, for a loss that is that of all processes together.

        Each process holds the gradient of its own part; wrapped networks average, and a sum is meant.
        """
        self.accelerator.backward(loss * self.world)


@contextmanager
def memory_enough() -> Iterator[None]:
    """Make one line of a lack of memory on a CPU; PyTorch raises a plain RuntimeError.

    Raises
    ------
    OutOfMemoryError
        if there is one.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, TilerError) or "alloc" not in str(error):
            raise
        raise OutOfMemoryError(
            f"a network and its crops fit into memory, got none for them ({one_line(error)}); "
            "use a smaller --crop, --batch or --width, and fewer --workers"
        ) from None


def on_cpu(options: TrainOptions) -> bool:
    """Whether the run is one without a GPU."""
    return options.device == "cpu" or not torch.accelerator.is_available()


def check_device(options: TrainOptions) -> None:
    """Refuse what only a GPU can do where there is none."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "--device cuda needs a CUDA GPU and a PyTorch built for it, found none; use --device cpu"
        )
    if on_cpu(options) and options.precision == "fp16":
        raise UsageError("--precision fp16 needs a GPU, got a CPU; use no or bf16")
    if on_cpu(options) and options.sync_norm:
        raise UsageError(
            "--sync-norm needs GPUs, PyTorch has no synchronised batch norm for a CPU; "
            "use --norm none or --freeze-norm"
        )


def check_slices(options: TrainOptions, world: int) -> None:
    """Refuse a batch that does not divide into equal slices."""
    for stage in options.stages:
        if stage.batch % (world * options.accumulate):
            raise UsageError(
                f"a batch divides evenly among processes and --accumulate, got {stage.batch} for {world} x "
                f"{options.accumulate}; use {round_up(stage.batch, world * options.accumulate)}"
            )


def _silent(_: str) -> None:
    pass

"""The epochs of a run, and what is carried from one to the next.

Everything random is a function of (seed, epoch, number), and the state on disk is replaced as a whole after
each epoch. So a run that is killed and started again ends with the very weights of an unbroken one.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from tqdm import tqdm

from tiler.errors import OutOfMemoryError, TilerError, UsageError, one_line
from train.average import Average
from train.checkpoint import load_checkpoint, load_state, recover, save_checkpoint
from train.data.crops import Keys, crop_loader
from train.learner import Learner
from train.progress import Progress, score
from train.record import Epoch, draw_curve, write_lines, write_log
from train.report.tensorboard import open_board
from train.together import evaluate_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from torch.utils.data import DataLoader

    from tiler.metrics import Scores
    from tiler.spec import ModelSpec
    from train.data.crops import Crops
    from train.data.labelled import Part
    from train.machine import Machine
    from train.models.network import Network
    from train.options import TrainOptions
    from train.report.tensorboard import Board
    from train.stages import Stage

SAME: Final = 1e-6
"""Of a deviation: by how much two machines may disagree about the mean of the same pixels."""


@dataclass(slots=True, eq=False)
class Loop:
    """Trains epoch after epoch, from wherever an earlier run left it."""

    options: TrainOptions
    machine: Machine
    net: Network
    spec: ModelSpec
    crops: Crops
    val: Sequence[Part]
    """What chooses the best epoch."""
    labels: dict[str, str]
    """As `Survey` has them: a run is carried on with the same."""
    outdir: Path
    progress: Progress = field(default_factory=Progress, init=False)
    average: Average = field(init=False)
    """Of `net`, validated and kept."""
    learner: Learner = field(init=False)
    board: Board | None = field(default=None, init=False)
    """TensorBoard, in the first process, if it was asked for."""

    def __post_init__(self) -> None:
        self.net.to(self.machine.device)
        self.average = Average.of(self.net, self.options.average * self.options.steps)
        self.learner = Learner(self.options, self.machine, self.net)

    @property
    def stopped(self) -> bool:
        """Whether the score has not risen for as many evaluations as ``early_stop`` says."""
        patience = self.options.early_stop
        return bool(patience) and self.progress.since_best >= patience

    def run(self, say: Callable[[str], None], *, progress: bool) -> None:
        """All stages, from the first epoch that is not finished."""
        if self.options.tensorboard and self.machine.first:
            self.board = open_board(self.outdir / "tensorboard")
        for stage in self.options.stages:
            self._run_stage(stage, say, progress)
        if self.stopped:
            say(f"stopped early: no better since epoch {self.progress.best_epoch}")
        if self.board is not None:
            self.board.close()

    def _run_stage(self, stage: Stage, say: Callable[[str], None], progress: bool) -> None:
        self.learner.enter(stage)
        keys, loader = self.loader(stage)
        hidden = None if progress and self.machine.first else True  # None: unless on a terminal
        while len(self.progress.epochs) in stage.epochs and not self.stopped:
            keys.epoch = epoch = len(self.progress.epochs)
            batches = tqdm(loader, f"epoch {epoch + 1}", total=stage.steps, leave=False, disable=hidden)
            with readers_alive():
                self._epoch(epoch, Awaited(batches))
            say(self.progress.epochs[-1].line(self.options.epochs, self.options.classes))

    def loader(self, stage: Stage) -> tuple[Keys, DataLoader[Any]]:
        """The slices of all batches of an epoch; the keys are told which epoch."""
        keys = Keys(stage.steps * stage.batch, stage.batch, self.machine.rank, self.machine.world)
        return keys, crop_loader(self.crops, keys, self.options.workers)

    def _epoch(self, epoch: int, batches: Awaited) -> None:
        began = time.perf_counter()
        loss = self.learn(epoch, batches)
        lr = self.learner.optimizer.param_groups[0]["lr"]
        self.machine.agree(self.average.net)
        confusion = self._evaluate(epoch)
        iou, mean = [math.nan] * len(self.options.classes), math.nan
        if confusion is not None:
            iou, mean = confusion.iou.tolist(), confusion.mean_iou
        seconds = time.perf_counter() - began
        self.progress.epochs.append(Epoch(epoch + 1, loss, lr, tuple(iou), mean, seconds, batches.seconds))
        self._save()

    def learn(self, epoch: int, batches: Awaited) -> float:
        """All steps of an epoch; returns their mean loss."""
        torch.manual_seed(epoch_seed(self.options.seed, epoch, self.machine.rank))
        self.learner.begin()
        stage, total = self.learner.stage, torch.zeros((), device=self.machine.device)
        for step, sample in enumerate(batches):
            total += self.learner.learn(sample, epoch * stage.steps + step)
            if self.average.smooth:
                self.average.follow(self.net)
        if not self.average.smooth:
            self.average.follow(self.net)
        loss = float(total) / stage.steps
        if not math.isfinite(loss):
            raise TilerError(
                f"training diverged in epoch {epoch + 1}: its loss is {loss}; lower --lr and --overwrite"
            )
        return loss

    def _evaluate(self, epoch: int) -> Scores | None:
        """The validation part, every process its share; None between evaluations."""
        if (epoch + 1) % self.options.eval_every and epoch + 1 < self.options.epochs:
            return None
        found = evaluate_together(self.machine, self.average.net, self.val, self.crops.library, self.spec)
        confusion = found.confusion
        value = score(confusion, self.options.best_by, self.options.classes)
        self.progress.scores[epoch + 1] = value
        self.learner.schedule.observe(value)
        return confusion

    def _save(self) -> None:
        """Keep the epoch that was just finished: for a resumed run, and for people."""
        self.machine.wait()
        if not self.machine.first:
            return
        done, average = len(self.progress.epochs), self.average.net
        if self.progress.best_epoch == done:
            save_checkpoint(self.outdir / "best", average, self.spec)
        if self.options.keep_every and done % self.options.keep_every == 0:
            save_checkpoint(self.outdir / f"epoch-{done:04}", average, self.spec)
        scaler = self.machine.accelerator.scaler
        state = {
            "average": average.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "schedule": self.learner.schedule.state(),
            "progress": self.progress.to_state(),
            "labels": self.labels,
        }
        save_checkpoint(self.outdir / "last", self.net, self.spec, state)
        if self.board is not None:
            show(self.board, self.progress.epochs[-1], self.options.classes)
        write_log(self.outdir / "log.csv", self.progress.epochs, self.options.classes)
        write_lines(self.outdir / "log.jsonl", self.progress.epochs, self.options.classes)
        draw_curve(self.outdir / "curve.png", self.progress.epochs, self.options.classes)

    def resume(self, say: Callable[[str], None]) -> None:
        """Take up what an earlier run left, if it finished an epoch.

        Raises
        ------
        UsageError
            if that run learnt from other pixels or labels.
        """
        last = self.outdir / "last"
        if self.machine.first:
            cut = {folder.with_suffix("") for folder in self.outdir.glob("epoch-*.*")}
            for folder in (last, self.outdir / "best", *cut):
                recover(folder)
        self.machine.wait()
        if not last.exists():
            return
        weights, before = load_checkpoint(last)
        state = load_state(last)
        check_same_data(before, self.spec)
        check_same_labels(state.get("labels", {}), self.labels)  # older runs did not note them
        self.net.load_state_dict(weights.state_dict())
        self.average.net.load_state_dict(state["average"])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.schedule.load(state["schedule"])
        if state["scaler"] is not None and self.machine.accelerator.scaler is not None:
            self.machine.accelerator.scaler.load_state_dict(state["scaler"])
        self.progress = Progress.from_state(state["progress"])
        say(f"carrying on after epoch {len(self.progress.epochs)}")


def check_same_data(before: ModelSpec, now: ModelSpec) -> None:
    """Refuse other pixels in the training part: of other files, what was tested on may be learnt from.

    Raises
    ------
    UsageError
        if their mean or deviation differs.
    """
    both = zip(before.mean + before.std, now.mean + now.std, now.std * 2, strict=False)
    apart = any(abs(one - other) > SAME * deviation for one, other, deviation in both)
    if apart or before.bands != now.bands:
        raise UsageError(
            "a run is carried on with the data that it began with, the training part holds other pixels now; "
            "bring back what was there, or --overwrite to start anew"
        )


def check_same_labels(before: dict[str, str], now: dict[str, str]) -> None:
    """Refuse other labels in any part: scores of epochs would not be of one thing.

    Raises
    ------
    UsageError
        naming the first part that has others.
    """
    for part, digest in before.items():
        if now[part] != digest:
            raise UsageError(
                f"a run is carried on with the labels that it began with, the {part} part has others now, or "
                "they are read otherwise; bring back what was there, or --overwrite to start anew"
            )


def show(board: Board, epoch: Epoch, names: tuple[str, ...]) -> None:
    """Points of an epoch on the curves of TensorBoard."""
    points = {"loss": epoch.loss, "lr": epoch.lr, "val/mean_iou": epoch.mean_iou}
    points |= {f"val/iou/{name}": iou for name, iou in zip(names, epoch.iou, strict=True)}
    for name, value in points.items():
        board.scalar(name, value, epoch.number)


@dataclass(slots=True, eq=False)
class Awaited:
    """Items, and how long each kept its taker waiting."""

    items: Iterable[Any]
    seconds: float = field(default=0.0, init=False)

    def __iter__(self) -> Iterator[Any]:
        items = iter(self.items)
        while True:
            began = time.perf_counter()
            item = _next(items)
            self.seconds += time.perf_counter() - began
            if item is None:
                return
            yield item


def _next(items: Iterator[Any]) -> Any:  # noqa: ANN401 - whatever they are
    """One more, or None; what goes wrong in a process that reads is one line, as in this one.

    Raises
    ------
    TilerError
        as that process raised it.
    OutOfMemoryError
        if it was killed.
    """
    try:
        return next(items, None)
    except TilerError as error:
        # PyTorch puts the traceback before what was said.
        said = str(error).splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
        raise type(error)(said) from None
    except (ConnectionError, EOFError) as error:
        raise _reader_ended(error) from None


@contextmanager
def readers_alive() -> Iterator[None]:
    """Make one line of a reading process that is killed; PyTorch raises it wherever this one happens to be.

    Raises
    ------
    OutOfMemoryError
        if it was.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise _reader_ended(error) from None


def _reader_ended(error: Exception) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"processes that read crops live as long as the run, got one that was ended ({one_line(error)}), "
        "maybe for want of memory; use fewer --workers, or 0, and run again to carry on"
    )


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Of dropout in one process: no epoch begins with what another has left of a generator."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])

"""Steps per second of `train`, beside a plain loop in the manner of milesial/Pytorch-UNet.

    python benchmarks/training.py [--rounds 7] [--markdown FILE]

The same network with the same weights, batch and crop, on the same pictures, on the CPU, with the same
optimiser and loss but for the last row, where ours are the defaults; each in a process of its own. Rounds of
both take turns, and the ratio is the median over rounds. The plain loop reads whole pictures and crops them,
and keeps nothing between epochs. Ours reads, crops, augments (where it says so), clips and counts as always.
Waiting is the share of our rounds in which the network waited for data.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import torch
from machine import describe
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from train.loop import Awaited, Loop
from train.machine import Machine
from train.models.network import parameters
from train.recipes import with_recipe
from train.run import new_loop, new_network

if TYPE_CHECKING:
    from train.options import TrainOptions

PICTURES, SIDE, BANDS = 32, 512, 3


def make_pictures(folder: Path) -> None:
    """Pictures as PNG: bright and dark squares under noise, and their masks."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(PICTURES):
        mask_HW = np.kron(rng.random((SIDE // 32, SIDE // 32)) < 0.3, np.ones((32, 32))).astype(np.uint8)
        raw_CHW = (60 + 100 * mask_HW + rng.integers(0, 60, (3, SIDE, SIDE))).astype(np.uint8)
        for kind, values_CHW in (("images", raw_CHW), ("masks", mask_HW[None])):
            profile = {"driver": "PNG", "count": len(values_CHW), "height": SIDE, "width": SIDE}
            with rasterio.open(folder / kind / f"{i}.png", "w", dtype="uint8", **profile) as dataset:
                dataset.write(values_CHW)


# --- the plain loop


class Pictures(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A random crop of each picture, as floats from 0 to 1."""

    def __init__(self, folder: Path, crop: int, count: int) -> None:
        self.images, self.crop, self.count = sorted((folder / "images").iterdir()), crop, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[i % len(self.images)]
        with rasterio.open(image) as dataset:
            raw_CHW = dataset.read()
        with rasterio.open(image.parents[1] / "masks" / image.name) as dataset:
            mask_HW = dataset.read(1)
        top, left = np.random.randint(0, SIDE - self.crop + 1, 2)  # noqa: NPY002 - as plain loops do
        cut = np.s_[..., top : top + self.crop, left : left + self.crop]
        return torch.from_numpy(raw_CHW[cut] / np.float32(255)), torch.from_numpy(
            mask_HW[cut].astype(np.int64)
        )


def dice_loss(logits_NKHW: torch.Tensor, target_NHW: torch.Tensor) -> torch.Tensor:
    """One minus the Dice of all classes at once."""
    share_NKHW = functional.softmax(logits_NKHW, dim=1)
    truth_NKHW = functional.one_hot(target_NHW, logits_NKHW.shape[1]).permute(0, 3, 1, 2).float()
    overlap = 2 * (share_NKHW * truth_NKHW).sum()
    return 1 - (overlap + 1e-6) / (share_NKHW.sum() + truth_NKHW.sum() + 1e-6)


@dataclass(eq=False)
class Plain:
    """Some forty lines, as in many repositories."""

    net: nn.Module
    folder: Path
    options: TrainOptions

    @classmethod
    def make(cls, folder: Path, options: TrainOptions) -> Plain:
        """With the network that ours begins with."""
        return cls(new_network(options, BANDS, str), folder, options)

    def __post_init__(self) -> None:
        self.net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.RMSprop(
            self.net.parameters(), lr=1e-5, weight_decay=1e-8, momentum=0.999, foreach=True
        )
        pictures = Pictures(self.folder, self.options.crop, self.options.crops_per_epoch)
        self.loader = DataLoader(pictures, batch_size=self.options.batch, shuffle=True)

    def epoch(self) -> tuple[float, float]:
        """Seconds of an epoch, and of waiting, which it does not count."""
        self.net.train()
        began, total = time.perf_counter(), 0.0
        for pixels_NCHW, target_NHW in self.loader:
            logits_NKHW = self.net(pixels_NCHW.to(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits_NKHW, target_NHW) + dice_loss(logits_NKHW, target_NHW)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            total += loss.item()
        return time.perf_counter() - began, 0.0


# --- ours


@dataclass(eq=False)
class Ours:
    """The loop of `train`, an epoch at a time."""

    loop: Loop
    done: int = 0

    @classmethod
    def make(cls, folder: Path, options: TrainOptions) -> Ours:
        """As `tiler train` does."""
        return cls(new_loop(options, folder, Machine.start(options), str)[0])

    def __post_init__(self) -> None:
        (self.stage,) = self.loop.options.stages
        self.loop.learner.enter(self.stage)
        self.keys, self.loader = self.loop.loader(self.stage)

    def epoch(self) -> tuple[float, float]:
        """Seconds of an epoch, and those of them in which the network waited for data."""
        began = time.perf_counter()
        batches = Awaited(self.loader)
        self.keys.epoch = self.done
        self.loop.learn(self.done, batches)
        self.done += 1
        return time.perf_counter() - began, batches.seconds


# --- both, in processes of their own: ours sets how its process keeps memory


def begin(side: type[Plain | Ours], folder: Path, options: TrainOptions) -> None:
    """What this process trains from now on."""
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    global _epoch  # noqa: PLW0603 - a process has no other place for what it keeps between calls
    _epoch = side.make(folder, options).epoch


def epoch() -> tuple[float, float]:
    """An epoch of it."""
    return _epoch()


def process(side: type[Plain | Ours], folder: Path, options: TrainOptions) -> ProcessPoolExecutor:
    """One process that trains."""
    return ProcessPoolExecutor(1, get_context("spawn"), begin, (side, folder, options))


def row(folder: Path, name: str, rounds: int, told: dict[str, Any]) -> str:
    """One line of the table."""
    files = {"images": str(folder / "images"), "masks": str(folder / "masks"), "classes": ("a", "b")}
    options = with_recipe({**files, "device": "cpu", "epochs": rounds + 1, "best_by": "mean-iou", **told})
    with process(Plain, folder, options) as plain, process(Ours, folder, options) as ours:
        # The first is for warming up.
        turns = [(plain.submit(epoch).result(), ours.submit(epoch).result()) for _ in range(rounds + 1)][1:]
    times = [(theirs, seconds) for (theirs, _), (seconds, _) in turns]
    ratio = statistics.median(a / b for a, b in times)
    steps = options.crops_per_epoch / options.batch
    speeds = [steps / statistics.median(column) for column in zip(*times, strict=True)]
    waiting = sum(waited for _, (_, waited) in turns) / sum(seconds for _, seconds in times)
    net = new_network(options, BANDS, str)
    return (
        f"| {name} | {parameters(net):,} | {options.batch} x {options.crop} px | {speeds[0]:.2f} "
        f"| {speeds[1]:.2f} | **{ratio:.2f}** | {waiting:.1%} |"
    )


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--markdown", type=Path)
    told = parser.parse_args()
    milesial = {"preset": "milesial", "crop": 256, "batch": 2, "crops_per_epoch": 16}
    augmented = {"flip_horizontal": 0.5, "quarter_turns": 1.0, "contrast": 0.25, "brightness": 0.25}
    rows = {
        "milesial, width 16": {**milesial, "width": 16},
        "milesial, width 32": {**milesial, "width": 32},
        "milesial, width 16, our augmentation": {**milesial, "width": 16, **augmented},
        "ours, defaults": {"crops_per_epoch": 64},
    }
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    lines = [
        "| network and options | parameters | batch | plain, steps/s | ours, steps/s | ratio | waiting |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder))
        for name, options in rows.items():
            lines.append(row(Path(folder), name, told.rounds, options))
            print(lines[-1], flush=True)
    if told.markdown:
        intro = (__doc__ or "").partition("\n\n")
        text = "\n\n".join(("# Training", intro[2].partition("\n\n")[2].strip(), "\n".join(lines)))
        when = datetime.now(UTC).date().isoformat()
        told.markdown.write_text(f"{text}\n\n{describe()}; PyTorch {torch.__version__}; {when}.\n")


if __name__ == "__main__":
    main()

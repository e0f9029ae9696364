"""A training run from data to tested network, top to bottom.

Everything random is a function of (seed, epoch, step), and the state on disk is replaced as a whole after
each epoch. So a run that is killed and started again ends with the very weights of an unbroken one.
It knows nothing of ONNX (`export`) or of the command line (`train.cli`).
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import Accelerator
from tqdm import tqdm

from tiler.errors import MissingError, TilerError, UsageError
from tiler.spec import ModelSpec, default_classes
from tiler.toml import read_toml
from train.checkpoint import load_checkpoint, load_state, recover, save_checkpoint
from train.data.augment import Augment
from train.data.crops import Crops, Keys, crop_loader
from train.data.labelled import Library
from train.data.options import DataOptions
from train.data.split import split_data
from train.data.survey import survey
from train.evaluate import evaluate
from train.loss import segmentation_loss
from train.models.network import parameters
from train.models.options import UNetOptions
from train.models.unet import UNet
from train.record import Epoch, draw_curve, score_table, scores, write_log
from train.writing import write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.optim import Optimizer

    from tiler.ports import RasterInfo
    from train.data.split import Split
    from train.data.survey import Survey
    from train.options import TrainOptions

OURS: Final = ("best", "last", "log.csv", "curve.png", "metrics.json", "options.toml")
"""What a run writes, and what ``overwrite`` removes, in this order: the last one tells that it is a run's."""
WARM_UP: Final = 0.1
"""Share of all steps in which the learning rate rises."""
AVERAGED: Final = 0.1
"""Weights are averaged over about this share of all steps, those before weighing less and less."""
CLIP: Final = 1.0
"""Largest norm of the gradients; a rare odd batch does not throw the weights off."""


def train(
    options: TrainOptions,
    outdir: Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train, or carry on; returns what ``metrics.json`` holds.

    Parameters
    ----------
    options
        What to train, and on what.
    outdir
        New, or that of an earlier run with the same options.
    overwrite
        Remove an earlier run first.
    progress
        Show a bar within each epoch, on a terminal.
    say
        Receives one line per event.

    Raises
    ------
    TilerError
        of the kind that says whose fault it is, with one line for people.
    """
    if overwrite:
        remove_run(outdir)
    check_outdir(outdir, options)
    finished = outdir / "metrics.json"
    if finished.exists():
        say(f"{outdir} is finished; --overwrite starts anew")
        result: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        say(score_table(result.get("test") or result["val"]))
        return result

    # --- machine
    accelerator = start_accelerator(options)
    torch.manual_seed(options.seed)

    # --- data
    data = DataOptions.of(options)
    library = Library(data.legend())
    split = split_data(data, library)
    found = survey(split, library, options.classes)
    say(data_summary(split, found, options))

    # --- network
    info = library.info(split.train[0].source)
    net = UNet(UNetOptions(info.bands, len(options.classes), options.depth, options.width, options.up))
    spec = model_spec(options, net, info, found)
    say(
        f"network: {parameters(net):,} parameters, stride {net.stride}, halo {net.halo}; "
        f"on {accelerator.device}"
    )

    # --- loop
    loop = Loop(options, accelerator, net, spec, split, library, outdir)
    claim(outdir, options)
    loop.resume(say)
    loop.run(say, progress=progress)

    # --- test, with the best weights
    best, _ = load_checkpoint(outdir / "best")
    best.to(accelerator.device)
    result = {"best_epoch": loop.best_epoch, "epochs": options.epochs, "parameters": parameters(best)}
    for name in ("val", "test"):
        if parts := getattr(split, name):
            confusion = evaluate(best, accelerator.device, parts, library, spec).confusion
            result[name] = scores(confusion, options.classes)
    write_whole(finished, (json.dumps(result, indent=2) + "\n").encode())
    which = "test" if split.test else "val"
    say(f"{which} part, weights of epoch {loop.best_epoch}:")
    say(score_table(result[which]))
    return result


def check_outdir(outdir: Path, options: TrainOptions) -> None:
    """Find a folder that is free, or holds this very run.

    Raises
    ------
    UsageError
        if it holds something else.
    """
    told = outdir / "options.toml"
    if outdir.exists() and not outdir.is_dir():
        raise UsageError(f"OUTDIR is a folder, got the file {outdir}")
    if told.exists():
        options.check_same(read_toml(told))
    elif outdir.exists() and {p.name for p in outdir.iterdir()} - {"options.toml.partial"}:
        raise UsageError(f"OUTDIR is new, empty or an earlier run's, got {outdir}; name another")


def claim(outdir: Path, options: TrainOptions) -> None:
    """Write down whose folder it is."""
    with writing(outdir):
        outdir.mkdir(parents=True, exist_ok=True)
    if not (outdir / "options.toml").exists():
        write_whole(outdir / "options.toml", options.to_toml().encode())


def remove_run(outdir: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    if not (outdir / "options.toml").is_file():
        return
    for name in OURS:
        for path in (outdir / f"{name}{suffix}" for suffix in ("", ".partial", ".old")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def start_accelerator(options: TrainOptions) -> Accelerator:
    """The device and precision that were asked for, or an error: never a slower one in silence."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise MissingError(
            "--device cuda needs a CUDA GPU and a PyTorch built for it, found none; use --device cpu"
        )
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.deterministic = True
    cpu = options.device == "cpu" or not torch.accelerator.is_available()
    if cpu and options.precision == "fp16":
        raise UsageError("--precision fp16 needs a GPU, got a CPU; use no or bf16")
    accelerator = Accelerator(cpu=cpu, mixed_precision=options.precision)
    if accelerator.num_processes > 1:
        raise UsageError(
            f"training runs in one process, got {accelerator.num_processes}; start it without a launcher"
        )
    return accelerator


def model_spec(options: TrainOptions, net: UNet, info: RasterInfo, found: Survey) -> ModelSpec:
    """What the model will say about itself: bytes become 0 to 1, then each band is standardised."""
    scale = 1 / 255 if info.dtype == "uint8" else 1.0
    numbers = options.bands or range(1, info.bands + 1)
    return ModelSpec(
        bands=tuple(f"band {number}" for number in numbers),
        classes=default_classes(options.classes),
        scale=(scale,) * info.bands,
        mean=tuple(float(m) * scale for m in found.moments.mean_C),
        std=tuple(float(s) * scale for s in found.moments.deviation),
        stride=net.stride,
        halo=net.halo,
        exact=net.exact,
        resolution=options.resolution or (round(sum(info.ground) / 2, 6) if info.ground else None),
        attribution=options.attribution,
    )


def data_summary(split: Split, found: Survey, options: TrainOptions) -> str:
    """One line per part: how much there is, and of what."""
    lines = []
    for name, counts_K in found.pixels.items():
        area = sum(part.window.area for part in getattr(split, name))
        share = ", ".join(
            f"{c} {n / max(counts_K.sum(), 1):.1%}" for c, n in zip(options.classes, counts_K, strict=True)
        )
        lines.append(f"{name:5} {area / 1e6:8.2f} Mpx, labelled {counts_K.sum() / max(area, 1):.0%}: {share}")
    absent = [c for c, n in zip(options.classes, found.pixels["train"], strict=True) if not n]
    lines += [f"no pixel of {name!r} to train on: the network will not know it" for name in absent]
    return "\n".join(lines)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """One cycle: a linear rise to the peak, then half a cosine down to nothing.

    >>> [round(learning_rate(step, 10, 1.0), 2) for step in (0, 1, 5, 9)]
    [1.0, 0.98, 0.5, 0.02]
    """
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))


@dataclass(slots=True, eq=False)
class Loop:
    """The epochs, and what is carried from one to the next."""

    options: TrainOptions
    accelerator: Accelerator
    net: UNet
    spec: ModelSpec
    split: Split
    library: Library
    outdir: Path
    epochs: list[Epoch] = field(default_factory=list, init=False)
    """Finished ones."""
    best_epoch: int = field(default=0, init=False)
    """Number of the one with the highest mean IoU on the validation part, the first among equals."""
    average: UNet = field(init=False)
    """`net` averaged over its last steps: calmer and better than any single one. It is validated and kept."""
    model: Any = field(init=False)
    """`net`, on the device and in the precision that were asked for."""
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.net).to(self.accelerator.device)
        # Channels last in memory: the convolutions of a CPU are a third faster with it.
        net: Any = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(net.parameters(), lr=self.options.lr, weight_decay=0.01)
        self.model, self.optimizer = self.accelerator.prepare(net, optimizer)

    @property
    def best_score(self) -> float:
        """Mean IoU of the best epoch so far."""
        return self.epochs[self.best_epoch - 1].mean_iou if self.best_epoch else -1.0

    def run(self, say: Callable[[str], None], *, progress: bool) -> None:
        """All epochs that are not finished yet."""
        options = self.options
        crops = Crops(
            self.split.train, self.library, self.spec, options.crop, options.seed, augment=Augment()
        )
        keys = Keys(options.crops_per_epoch, options.batch)
        loader = crop_loader(crops, keys, options.workers)

        for epoch in range(len(self.epochs), self.options.epochs):
            began = time.perf_counter()
            keys.epoch = epoch
            hidden = None if progress else True  # None: hidden unless on a terminal
            batches = tqdm(loader, f"epoch {epoch + 1}", leave=False, disable=hidden)

            self.model.train()
            total = 0.0
            for step, sample in enumerate(batches):
                pixels_NCHW, target_NHW = (plane.to(self.accelerator.device) for plane in sample[:2])
                total += self.learn(pixels_NCHW, target_NHW, epoch * len(loader) + step)
            self.check_finite(total, epoch)

            confusion = evaluate(
                self.average, self.accelerator.device, self.split.val, self.library, self.spec
            ).confusion
            iou = tuple(confusion.iou.tolist())
            lr, seconds = self.optimizer.param_groups[0]["lr"], time.perf_counter() - began
            self.epochs.append(Epoch(epoch + 1, total / len(loader), lr, iou, confusion.mean_iou, seconds))
            self.save()
            say(self.epochs[-1].line(self.options.epochs, self.options.classes))

    def learn(self, pixels_NCHW: torch.Tensor, target_NHW: torch.Tensor, step: int) -> float:
        """One step of the optimizer; returns the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.options.steps, self.options.lr)
        logits_NKHW = self.model(pixels_NCHW.contiguous(memory_format=torch.channels_last))
        loss = segmentation_loss(logits_NKHW, target_NHW)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.follow()
        return float(loss.detach())

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average a little towards the network."""
        share = 1 / max(1.0, AVERAGED * self.options.steps)
        now = self.net.state_dict()
        for name, value in self.average.state_dict().items():
            value.lerp_(now[name], share) if value.is_floating_point() else value.copy_(now[name])

    def check_finite(self, total: float, epoch: int) -> None:
        """Stop rather than go on with weights that are no numbers."""
        if not math.isfinite(total):
            raise TilerError(
                f"training diverged in epoch {epoch + 1}: its loss is {total}; lower --lr and --overwrite"
            )

    def save(self) -> None:
        """Keep the epoch that was just finished: for a resumed run, and for people."""
        if self.epochs[-1].mean_iou > self.best_score:
            self.best_epoch = len(self.epochs)
            save_checkpoint(self.outdir / "best", self.average, self.spec)
        scaler = self.accelerator.scaler
        state = {
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best_epoch": self.best_epoch,
        }
        save_checkpoint(self.outdir / "last", self.net, self.spec, state)
        write_log(self.outdir / "log.csv", self.epochs, self.options.classes)
        draw_curve(self.outdir / "curve.png", self.epochs, self.options.classes)

    def resume(self, say: Callable[[str], None]) -> None:
        """Take up what an earlier run left, if it finished an epoch."""
        last = self.outdir / "last"
        recover(last)
        recover(self.outdir / "best")
        if not last.exists():
            return
        weights, _ = load_checkpoint(last)
        self.net.load_state_dict(weights.state_dict())
        state = load_state(last)
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.best_epoch = state["best_epoch"]
        say(f"carrying on after epoch {len(self.epochs)}")

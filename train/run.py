"""A training run from data to tested network, top to bottom.

It knows nothing of ONNX (`export`) or of the command line (`train.cli`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from tiler.errors import InputError
from tiler.spec import ModelSpec, default_classes
from train.checkpoint import load_checkpoint
from train.data.augment import Augment
from train.data.crops import Crops
from train.data.labelled import Library
from train.data.split import split_data
from train.data.survey import survey
from train.data.weightmap import class_weights
from train.evaluate import Examiner
from train.freezing import check_freezable
from train.loop import Loop
from train.machine import Machine
from train.models.build import build
from train.models.initial import initialise
from train.models.network import parameters
from train.models.same_size import same_size
from train.models.summary import summary
from train.models.weights import load_weights
from train.outdir import check_outdir, claim, remove_run
from train.recompute import recompute_blocks
from train.record import results, score_table
from train.report.make import make_report
from train.together import evaluate_together
from train.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiler.ports import RasterInfo
    from train.data.split import Split
    from train.data.survey import Survey
    from train.models.network import Network
    from train.options import TrainOptions
    from train.progress import Progress

RESULT: Final = "metrics.json"
"""Written last: it tells that a run is finished."""


def train(
    options: TrainOptions,
    outdir: Path,
    *,
    overwrite: bool = False,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train, or carry on; returns what ``metrics.json`` holds.

    Started by ``torchrun`` or ``accelerate launch``, all processes call this alike.

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
        Receives one line per event, in the first process.

    Raises
    ------
    TilerError
        of the kind that says whose fault it is, with one line for people.
    """
    machine = Machine.start(options)
    say = machine.only_first(say)
    if overwrite and machine.first:
        remove_run(outdir)
    machine.wait()
    check_outdir(outdir, options)
    if (outdir / RESULT).exists():
        say(f"{outdir} is finished; --overwrite starts anew")
        return said(say, json.loads((outdir / RESULT).read_text(encoding="utf-8")))

    data = find_data(options)
    say(data_summary(data.split, data.found, options))
    net = new_network(options, data.info.bands, say)
    spec = model_spec(options, net, data)
    say(
        f"network: {options.preset}, stride {spec.stride}, halo {spec.halo}, "
        f"{summary(net, options.crop // net.scale)}; {machine}"
    )

    loop = Loop(
        counted(options, data.split),
        machine,
        net,
        spec,
        new_crops(options, spec, data),
        data.split.val,
        outdir,
    )
    machine.wait()  # all have looked at the folder before one writes to it
    if machine.first:
        claim(outdir, options)
    loop.resume(say)
    loop.run(say, progress=progress)

    machine.wait()
    best, _ = load_checkpoint(outdir / "best")
    return said(say, conclude(options, outdir, machine, best.to(machine.device), data, loop.progress))


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What there is to learn from, and what one look at it has found."""

    split: Split
    library: Library
    found: Survey

    @property
    def info(self) -> RasterInfo:
        """Of the first raster; the others are like it."""
        return self.library.info(self.split.train[0].source)


def find_data(options: TrainOptions) -> Data:
    """Find, divide and survey the data.

    Raises
    ------
    InputError
        if it cannot be trained on as the options say.
    """
    told = options.data_options()
    library = Library(told.legend(), options.sample_options().gaps())
    split = split_data(told, library)
    found = survey(split, library, options.classes)
    if options.best_by in options.classes:
        index = options.classes.index(options.best_by)
        if not found.pixels["val"][index]:
            raise InputError(
                f"--best-by is a class of the validation part, got no pixel of {options.best_by!r} in it; "
                "give it more with --val"
            )
    return Data(split, library, found)


def conclude(
    options: TrainOptions, outdir: Path, machine: Machine, best: Network, data: Data, progress: Progress
) -> dict[str, Any]:
    """Evaluate the best weights on all that was not learnt from, and write it down; returns it."""
    spec = model_spec(options, best, data)
    result: dict[str, Any] = {
        "best_epoch": progress.best_epoch,
        "epochs": len(progress.epochs),
        "parameters": parameters(best),
    }
    for name in ("val", "test"):
        if parts := getattr(data.split, name):
            evaluation = evaluate_together(machine, best, parts, data.library, spec, tta=options.tta)
            result[name] = results(evaluation, options.classes)
    if machine.first and options.report:
        make_report(
            outdir / "report",
            Examiner(best, machine.device, data.library, spec, options.tta),
            evaluation,
            progress.epochs,
            title=outdir.name,
            facts=report_facts(options, result),
            palette=options.palette,
        )
    if machine.first:
        write_whole(outdir / RESULT, (json.dumps(result, indent=2) + "\n").encode())
    return result


def said(say: Callable[[str], None], result: dict[str, Any]) -> dict[str, Any]:
    """The result, which it has told."""
    part = "test" if "test" in result else "val"
    say(f"{part} part, weights of epoch {result['best_epoch']}:")
    say(score_table(result[part]))
    return result


def report_facts(options: TrainOptions, result: dict[str, Any]) -> dict[str, str]:
    """What the report says of a run besides its figures."""
    part = "test" if "test" in result else "val"
    return {
        "Network": f"{options.preset}, {result['parameters']:,} parameters",
        "Data": f"the {part} part",
        "Weights": f"of epoch {result['best_epoch']}, of {result['epochs']}; best by {options.best_by}",
        "Averaged over flips and turns": "yes" if options.tta else "no",
        "Origin": options.attribution or "not told",
    }


def counted(options: TrainOptions, split: Split) -> TrainOptions:
    """With a number of crops per epoch: as many as cover the training part, if none is told."""
    if options.crops_per_epoch:
        return options
    area = sum(part.window.area for part in split.train)
    return replace(options, crops_per_epoch=math.ceil(area / options.crop**2))


def new_network(options: TrainOptions, bands: int, say: Callable[[str], None]) -> Network:
    """The network that the options name, with the weights that they start from.

    Raises
    ------
    UsageError
        if it cannot be trained as they say.
    """
    torch.manual_seed(options.seed)
    net = build(options.network_options().options(bands, options.channels))
    initialise(net, options.init)
    if options.weights is not None:
        say(str(load_weights(net, Path(options.weights))))
    if options.freeze_epochs:
        check_freezable(net)
        if options.weights is None:
            say(
                f"the encoder is frozen for {options.freeze_epochs} epochs with random weights; "
                "give it some by --weights, or let it learn by --freeze-epochs 0"
            )
    if options.sync_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call] # in place
    if options.recompute:
        recompute_blocks(net)
    return net


def new_crops(options: TrainOptions, spec: ModelSpec, data: Data) -> Crops:
    """What is learnt from."""
    pixels_K = data.found.pixels["train"]
    return Crops(
        data.split.train,
        data.library,
        spec,
        options.crop,
        options.seed,
        Augment(options.augment_options()),
        class_weights(pixels_K) if options.weigh_classes else (),
        options.balance,
        data.found.classes,
    )


def model_spec(options: TrainOptions, net: Network, data: Data) -> ModelSpec:
    """What the model will say about itself: bytes become 0 to 1, then each band is standardised."""
    info, found = data.info, data.found
    scale = 1 / 255 if info.dtype == "uint8" else 1.0
    numbers = options.bands or range(1, info.bands + 1)
    whole = same_size(net)
    return ModelSpec(
        bands=tuple(f"band {number}" for number in numbers),
        classes=default_classes(options.classes),
        scale=(scale,) * info.bands,
        mean=tuple(float(m) * scale for m in found.moments.mean_C),
        std=tuple(float(s) * scale for s in found.moments.deviation),
        stride=whole.stride,
        halo=whole.halo,
        exact=whole.exact,
        activation="sigmoid" if options.independent else "logits",
        resolution=options.resolution or (float(f"{sum(info.ground) / 2:.6g}") if info.ground else None),
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

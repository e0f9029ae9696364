"""A training run from data to tested network, top to bottom.

It knows nothing of ONNX (`export`) or of the command line (`train.cli`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tiler.spec import ModelSpec, default_classes
from train.conclusion import RESULT, conclude, said
from train.evaluate import check_parts
from train.freezing import check_freezable
from train.loop import Loop
from train.machine import Machine, memory_enough
from train.material import counted, data_summary, find_data, look_at, new_crops
from train.models.build import build
from train.models.initial import initialise
from train.models.same_size import same_size
from train.models.summary import summary
from train.models.weights import fit, read_state
from train.outdir import check_outdir, claim
from train.recompute import recompute_blocks
from train.report.lettering import box_warning
from train.report.tensorboard import check_board

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from train.data.survey import Survey
    from train.material import Data
    from train.models.network import Network
    from train.options import TrainOptions


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
        Remove an earlier run, as soon as all that can be refused is accepted.
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
    check_outdir(outdir, options, overwrite=overwrite)
    if not overwrite and (outdir / RESULT).exists():
        say(f"{outdir} is finished; --overwrite starts anew")
        return said(say, json.loads((outdir / RESULT).read_text(encoding="utf-8")))

    with machine.holding_together(), memory_enough():
        loop, data = machine.agreed(lambda: new_loop(options, outdir, machine, say))
        if machine.first:
            claim(outdir, options, overwrite=overwrite)
        loop.resume(say)
        loop.run(say, progress=progress)
        return said(say, conclude(loop, data))


def new_loop(
    options: TrainOptions, outdir: Path, machine: Machine, say: Callable[[str], None]
) -> tuple[Loop, Data]:
    """The epochs of a run, before the first: all that can be refused is accepted.

    What takes longest comes last: reading all data.
    """
    if options.tensorboard:
        check_board()
    weights = None if options.weights is None else read_state(Path(options.weights))
    data = find_data(options)
    net = new_network(options, data.info.bands, say, weights)
    check_parts(net, (*data.split.val, *data.split.test))
    found = look_at(data, options)
    say(data_summary(data.split, found, options))
    stems = (part.source.image.stem for part in data.split.val + data.split.test)
    if boxes := box_warning((*options.classes, *stems)):
        say(boxes)
    spec = model_spec(options, net, data, found)
    say(
        f"network: {options.preset}, stride {spec.stride}, halo {spec.halo}, "
        f"{summary(net, options.crop // net.scale)}; {machine}"
    )
    crops = new_crops(options, spec, data, found)
    told = counted(options, data.split)
    return Loop(told, machine, net, spec, crops, data.split.val, found.labels, outdir), data


def new_network(
    options: TrainOptions,
    bands: int,
    say: Callable[[str], None],
    weights: Mapping[str, Tensor] | None = None,
) -> Network:
    """The network that the options name, with the weights that it starts from, if there are some.

    Raises
    ------
    UsageError
        if it cannot be trained as they say.
    """
    torch.manual_seed(options.seed)
    net = build(options.network_options().options(bands, options.channels))
    initialise(net, options.init)
    if weights is not None and options.weights is not None:
        say(str(fit(net, weights, Path(options.weights))))
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


def model_spec(options: TrainOptions, net: Network, data: Data, found: Survey) -> ModelSpec:
    """What the model will say about itself: bytes become 0 to 1, then each band is standardised."""
    info = data.info
    scale = 1 / 255 if info.dtype == "uint8" else 1.0
    numbers = options.bands or range(1, info.bands + 1)
    whole = same_size(net)
    ground = float(f"{sum(info.ground) / 2:.6g}") if info.ground else None
    resolution = options.resolution or ground
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
        resolution=resolution,
        # Where pixels have a size on the ground, that says more than what was done to make them so.
        resize=options.resize if resolution is None else None,
        source_bands=options.bands or (),
        nodata=options.nodata,
        attribution=options.attribution,
    )

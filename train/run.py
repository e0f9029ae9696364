"""A training run from data to tested network, top to bottom.

It knows nothing of ONNX (`export`) or of the command line (`train.cli`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from tiler.errors import InputError
from tiler.spec import ModelSpec, default_classes
from train.checkpoint import load_checkpoint
from train.data.labelled import Library
from train.data.split import split_data
from train.data.survey import survey
from train.evaluate import evaluate
from train.loop import Loop
from train.machine import Machine, synchronised
from train.models import parameters
from train.models.presets import make
from train.outdir import check_outdir, claim, remove_run
from train.record import score_table, scores
from train.recompute import recompute_blocks
from train.stages import check_freezable
from train.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiler.ports import RasterInfo
    from train.data.split import Split
    from train.data.survey import Survey
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
    finished = outdir / "metrics.json"
    if finished.exists():
        say(f"{outdir} is finished; --overwrite starts anew")
        result: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        say(score_table(result.get("test") or result["val"]))
        return result

    # --- data
    library = Library(len(options.classes))
    split = split_data(options, library)
    found = survey(split, library, options.classes)
    check_best_by(options, found)
    say(data_summary(split, found, options))

    # --- network
    info = library.info(split.train[0].source)
    net = new_network(options, info.bands, say)
    spec = model_spec(options, net, info, found)
    say(
        f"network: {options.preset}, {parameters(net):,} parameters, stride {net.stride}, halo {net.halo}; "
        f"on {machine}"
    )

    # --- loop
    loop = Loop(options, machine, net, spec, split, library, outdir)
    machine.wait()  # all have looked at the folder before one writes to it
    if machine.first:
        claim(outdir, options)
    loop.resume(say)
    loop.run(say, progress=progress)

    # --- test, with the best weights
    machine.wait()
    best, _ = load_checkpoint(outdir / "best")
    best.to(machine.device)
    result = {
        "best_epoch": loop.progress.best_epoch,
        "epochs": len(loop.progress.epochs),
        "parameters": parameters(best),
    }
    ...

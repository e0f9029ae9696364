"""The end of a run: its best weights, measured on what was not learnt from, and written down."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from train.checkpoint import load_checkpoint
from train.evaluate import Examiner
from train.models.network import parameters
from train.record import results, score_table
from train.report.make import make_report
from train.together import evaluate_together
from train.writing import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from train.loop import Loop
    from train.material import Data
    from train.options import TrainOptions

RESULT: Final = "metrics.json"
"""Written last: it tells that a run is finished."""


def conclude(loop: Loop, data: Data) -> dict[str, Any]:
    """Evaluate the best weights on all that was not learnt from, and write it down; returns it."""
    options, machine, outdir, progress = loop.options, loop.machine, loop.outdir, loop.progress
    machine.wait()  # until the first has written them
    best, spec = load_checkpoint(outdir / "best")
    best.to(machine.device)
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

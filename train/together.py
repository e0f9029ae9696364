"""Evaluation by all processes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.evaluate import evaluate
from train.evaluation import Evaluation, empty_confusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiler.spec import ModelSpec
    from train.data.labelled import Library, Part
    from train.machine import Machine
    from train.models.network import Network


def evaluate_together(
    machine: Machine,
    net: Network,
    parts: Sequence[Part],
    library: Library,
    spec: ModelSpec,
    *,
    tta: bool = False,
) -> Evaluation:
    """What `evaluate` finds in all parts, each looked at by one process; all processes get the same."""
    mine = evaluate(net, machine.device, machine.share(parts), library, spec, tta=tta)
    total = empty_confusion(spec)
    total.counts[...] = machine.summed(mine.confusion.counts)
    place = {part.source: i for i, part in enumerate(parts)}
    samples = sorted(machine.gathered(mine.samples), key=lambda sample: place[sample.part.source])
    return Evaluation(total, samples)

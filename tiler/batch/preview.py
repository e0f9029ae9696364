"""What a batch would do: every raster opened and planned, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tiler.batch.task import ALREADY, FAILED
from tiler.errors import OtherPolygonsError, TilerError
from tiler.estimate import network_seconds
from tiler.fingerprint import fingerprint
from tiler.job import prepare
from tiler.outputs import Outputs
from tiler.space import copy_bytes, most_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tiler.batch.task import Task
    from tiler.model import Model
    from tiler.report import Report

PLANNED: Final = "planned"
POLYGONS: Final = "polygons"


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of one raster."""

    task: Task
    status: str
    """planned; polygons: the map is there and they are made of it; already or failed."""
    reason: str = ""
    pixels: int = 0
    """That the network is fed."""
    tiles: int = 0
    """Those that are not known to hold nothing."""
    seconds: float = 0.0
    """For the network."""
    disk: int = 0
    """Bytes of the output, at most."""
    scratch: int = 0
    """Bytes while it is made, at most."""


def preview(tasks: Iterable[Task], model: Model) -> Iterator[Preview]:
    """Open and plan each; what cannot be is failed, with its reason.

    The network is timed on one small batch, for the first raster.
    """
    pace = 0.0
    for task in tasks:
        try:
            found, pace = _planned(task, model, pace)
        except TilerError as error:
            found = Preview(task, FAILED, str(error))
        yield found


def _planned(task: Task, model: Model, pace: float) -> tuple[Preview, float]:
    """The preview, and seconds per pixel that is computed."""
    job = prepare(task.source, model, task.options)
    outputs = Outputs(
        Path(task.output), task.options.output, task.options.polygons, job.styled, job.tissue is not None
    )
    outputs.check_sources(job.native.info.files)
    pixels = job.raster.info.height * job.raster.info.width
    report = None if task.options.overwrite else outputs.finished(fingerprint(job))
    if report is not None:
        return Preview(task, POLYGONS if _lacks_polygons(outputs, report) else ALREADY, pixels=pixels), pace
    plan = job.plan()
    computed = plan.tiles * plan.grid.tile[0] * plan.grid.tile[1]
    pace = pace or network_seconds(job.model, plan) / computed
    tiles = plan.tiles - job.skipped(plan)
    output = job.output_info.height * job.output_info.width
    return Preview(
        task,
        PLANNED,
        pixels=pixels,
        tiles=tiles,
        seconds=pace * computed * tiles / plan.tiles,
        disk=copy_bytes(job.finisher, output),
        scratch=most_bytes(job.finisher, pixels, output),
    ), pace


def _lacks_polygons(outputs: Outputs, report: Report) -> bool:
    """Whether polygons are to be made of a finished map, in the place of ours of other options too."""
    try:
        return outputs.lacks_polygons(report)
    except OtherPolygonsError:
        return True

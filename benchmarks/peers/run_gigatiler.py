"""Our own: tiler.segment, from file to verified file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from runner import Job, main, read_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler import RunOptions
    from tiler.model import Model

MEMORY = 4_000_000_000
"""Bytes; the others take what they need."""


def options(job: Job) -> RunOptions:
    """Of the case, with what all share."""
    from tiler import RunOptions

    shared = {
        "memory": MEMORY,
        "threads": job.threads,
        "device": "cpu",
        "resolution": "native",
        "overwrite": True,
    }
    return RunOptions(**{**shared, **job.options})


def load(job: Job) -> Model:
    """The model, its session made."""
    from tiler import load_model, segment  # noqa: F401

    return load_model(job.graph, options(job))


def labels(job: Job, model: Model) -> Path:
    """As ``tiler segment`` does: planned, stored block by block, read back, published."""
    from tiler import segment

    path = Path(job.output) / "labels.tif"
    segment(job.scene, model, path, options(job))
    return path


def facts(path: Path) -> dict[str, Any]:
    """Seconds that each of the network's workers was busy, from the report beside the labels."""
    report = json.loads(path.with_suffix(".report.json").read_text(encoding="utf-8"))
    return {"network_seconds": report["stage_seconds"]["network"] / report["plan"]["workers"]}


class Keep:
    """Stands where scores become labels, and keeps the scores."""

    planes = 1

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.rows: list[NDArray[np.float32]] = []

    def __call__(self, scores: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Keep the rows that leave the band."""
        self.rows.append(scores[:, : len(valid)].copy())
        return np.zeros((1, *valid.shape), np.uint8)


def scores(job: Job, model: Model) -> NDArray[np.float32]:
    """Blended scores (K, H, W), taken where the engine turns them into labels."""
    from tiler.blend import blend
    from tiler.finish import Finisher
    from tiler.planning import make_plan
    from tiler.predict import predict
    from tiler.readers.array import ArrayRaster
    from tiler.tiles import TileReader

    raster = ArrayRaster(read_scene(job))
    plan = make_plan(raster.info, model, Finisher(model.spec, model.channels), options(job))
    (strip,) = plan.strips()
    tiles = TileReader(raster, model.spec, model.dtype).tiles(strip, plan.read_ahead, plan.reader_threads)
    keep: Any = Keep(model.channels)
    for _ in blend(predict(tiles, model.backend, plan.batch, plan.batches_ahead), strip, keep):
        pass
    return np.concatenate(keep.rows, axis=1)


if __name__ == "__main__":
    main(load, labels, scores, packages=("gigatiler",), facts=facts)

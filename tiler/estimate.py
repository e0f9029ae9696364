"""How long a run would take: the network is timed on one small batch and scaled up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from tiler.model import Model
    from tiler.planning import Plan

SIDE: Final = 512
"""Side of the timed tile, where the plan's is larger: speed per pixel hardly depends on it."""


def network_seconds(model: Model, plan: Plan) -> float:
    """Seconds that the network alone would take for all tiles of the plan, none skipped."""
    stride = model.spec.stride or 1
    sides = (
        min(side, max(stride, SIDE // stride * stride)) if fixed is None else fixed
        for side, fixed in zip(plan.grid.tile, model.shape[1:], strict=True)
    )
    batch_NCHW = np.zeros((model.shape[0] or 1, len(model.spec.bands), *sides), model.dtype)
    model.backend.predict(batch_NCHW)
    start = time.perf_counter()
    model.backend.predict(batch_NCHW)
    seconds = time.perf_counter() - start
    pixels = plan.tiles * plan.grid.tile[0] * plan.grid.tile[1]
    return seconds * pixels / float(batch_NCHW[:, 0].size)

"""Floor of slides: the network alone on a slide's pixels, which are read and normalised off the clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from run_onnx_loop import load
from runner import Job, main, windows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def labels(job: Job, session: InferenceSession) -> float:
    """Seconds in the network, tile by tile; what it returns is thrown away."""
    import numpy as np
    import openslide

    name, seconds = session.get_inputs()[0].name, 0.0
    with openslide.OpenSlide(job.scene) as slide:
        width, height = slide.dimensions
        for top, left in windows(height, width, job.tile):
            rgb_HWC = np.asarray(slide.read_region((left, top), 0, (job.tile, job.tile)))[..., :3]
            pixels_NCHW = job.normalise(np.ascontiguousarray(np.moveaxis(rgb_HWC, -1, 0)))[None]
            begun = time.perf_counter()
            session.run(None, {name: pixels_NCHW})
            seconds += time.perf_counter() - begun
    return seconds


if __name__ == "__main__":
    main(load, labels)

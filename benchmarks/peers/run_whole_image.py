"""Reference: the network run once on the scene's top left corner, as large as memory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import Job, main

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession


def load(job: Job) -> InferenceSession:
    """Without an arena, which would take far more than is needed once."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return ort.InferenceSession(job.graph, options, ["CPUExecutionProvider"])


def labels(job: Job, session: InferenceSession) -> NDArray[np.uint8]:
    """Everything in one call."""
    import rasterio
    from rasterio.windows import Window

    side = job.options["side"]
    with rasterio.open(job.scene) as dataset:
        raw = dataset.read(window=Window(0, 0, side, side))
    return session.run(None, {session.get_inputs()[0].name: job.normalise(raw)[None]})[0][0].argmax(axis=0)


if __name__ == "__main__":
    main(load, labels)

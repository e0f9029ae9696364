"""Floor: ONNX Runtime over tiles without overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import Job, main, plain_loop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession


def load(job: Job) -> InferenceSession:
    """One session with all optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(job.graph, options, ["CPUExecutionProvider"])


def labels(job: Job, session: InferenceSession) -> NDArray[np.uint8]:
    """Tile by tile."""
    name = session.get_inputs()[0].name
    return plain_loop(job, lambda pixels: session.run(None, {name: pixels})[0].argmax(axis=1))


if __name__ == "__main__":
    main(load, labels)

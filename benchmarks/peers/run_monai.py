"""MONAI: sliding_window_inference with gaussian weights, the whole image in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner import Job, load_network, main, read_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def load(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """The network; the import is timed with it."""
    import monai.inferers  # noqa: F401

    return load_network(job)


def scores(job: Job, network: Any) -> Any:  # noqa: ANN401
    """Blended scores (K, H, W)."""
    import torch
    from monai.inferers import sliding_window_inference

    pixels = torch.from_numpy(job.normalise(read_scene(job)))[None]
    with torch.inference_mode():
        return sliding_window_inference(
            pixels,
            (job.tile, job.tile),
            job.batch,
            network,
            overlap=job.overlap / job.tile,
            mode="gaussian",
            padding_mode="reflect",
        )[0]


def labels(job: Job, network: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """The best class of each pixel."""
    import numpy as np

    return scores(job, network).argmax(dim=0).numpy().astype(np.uint8)


if __name__ == "__main__":
    main(load, labels, scores, packages=("monai",))

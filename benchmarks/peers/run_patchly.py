"""patchly: gaussian weights, aggregated chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from runner import Job, load_network, main, read_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 2048


def load(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """The network; the import is timed with it."""
    import patchly  # noqa: F401

    return load_network(job)


def aggregate(job: Job, network: Any, output: NDArray[Any], softmax_dim: int | None) -> NDArray[Any]:  # noqa: ANN401
    """Run the network over patchly's grid and let it put the patches together."""
    import torch
    from patchly import Aggregator, GridSampler, SamplingMode

    pixels = job.normalise(read_scene(job))
    size = pixels.shape[1:]
    sampler = GridSampler(
        image=pixels,
        spatial_size=size,
        patch_size=(job.tile, job.tile),
        step_size=(job.tile - job.overlap, job.tile - job.overlap),
        chunk_size=tuple(min(CHUNK, side) for side in size),
        spatial_first=False,
        mode=SamplingMode.SAMPLE_SQUEEZE,
    )
    aggregator = Aggregator(
        sampler=sampler,
        output=output,
        weights="gaussian",
        softmax_dim=softmax_dim,
        spatial_first=False,
        has_batch_dim=True,
    )
    with torch.inference_mode():
        for patch, place in torch.utils.data.DataLoader(sampler, batch_size=job.batch):
            # As numpy: torch patches and an output of bytes make its threads fail, which it does not tell.
            aggregator.append(network(patch).numpy(), place)
    return aggregator.get_output()


def scores(job: Job, network: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Blended scores (K, H, W)."""
    import rasterio

    with rasterio.open(job.scene) as dataset:
        output = np.full((job.classes, dataset.height, dataset.width), np.nan, np.float32)
    return np.asarray(aggregate(job, network, output, None))


def labels(job: Job, network: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """The best class of each pixel; 255 is what patchly never wrote: it drops its threads' errors."""
    import rasterio

    with rasterio.open(job.scene) as dataset:
        output = np.full((dataset.height, dataset.width), 255, np.uint8)
    found = np.asarray(aggregate(job, network, output, 0))
    if missing := int((found == 255).sum()):
        raise RuntimeError(f"patchly wrote all pixels but {missing}, and raised nothing")
    return found


if __name__ == "__main__":
    main(load, labels, scores, packages=("patchly",))

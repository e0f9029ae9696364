"""The unrelated package of the name tiler on PyPI: hann weights, padded as its manual says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from runner import Job, load_network, main, read_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """The network; the import is timed with it."""
    import tiler

    # Of the same name as ours: be sure that it is the other one.
    assert hasattr(tiler, "Merger")  # noqa: S101
    return load_network(job)


def merged(job: Job, network: Any, argmax: bool) -> NDArray[Any]:  # noqa: ANN401
    """Cut, run the network, merge. Bytes are padded, not floats, which costs it least."""
    import torch
    from tiler import Merger, Tiler  # isort: skip

    raw = read_scene(job)
    grid, joined = (
        Tiler(
            data_shape=(channels, *raw.shape[1:]),
            tile_shape=(channels, job.tile, job.tile),
            overlap=(0, job.overlap, job.overlap),
            channel_dimension=0,
            mode="reflect",
        )
        for channels in (len(raw), job.classes)
    )
    shape, padding = grid.calculate_padding()
    padding[0] = (0, 0)
    size = tuple(int(side) for side in shape[1:])
    grid.recalculate(data_shape=(len(raw), *size))
    joined.recalculate(data_shape=(job.classes, *size))
    merger = Merger(joined, window="hann", save_visits=False)
    padded = np.pad(raw, padding, mode="reflect")
    with torch.inference_mode():
        for number, batch in grid(padded, batch_size=job.batch):
            found = network(torch.from_numpy(job.normalise(batch)))
            merger.add_batch(number, job.batch, found.numpy())
    return merger.merge(extra_padding=padding, argmax=argmax, dtype=np.uint8 if argmax else None)


def scores(job: Job, network: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Blended scores (K, H, W)."""
    return merged(job, network, argmax=False)


def labels(job: Job, network: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """The best class of each pixel."""
    return merged(job, network, argmax=True)


if __name__ == "__main__":
    main(load, labels, scores, packages=("tiler",))

"""Floor: PyTorch over tiles without overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner import Job, load_network, main, plain_loop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def labels(job: Job, network: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - torch is imported here
    """Tile by tile."""
    import torch

    with torch.inference_mode():
        return plain_loop(job, lambda pixels: network(torch.from_numpy(pixels)).argmax(dim=1).numpy())


if __name__ == "__main__":
    main(load_network, labels)

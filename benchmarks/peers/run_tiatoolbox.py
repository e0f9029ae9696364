"""tiatoolbox: SemanticSegmentor on a whole slide."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from run_omnicloudmask import NOTES, import_torchvision
from runner import Job, load_network, main

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def load(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """Its engine around our network; the import is timed with it."""
    import_torchvision()
    import torch
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC

    network = load_network(job)

    class Wrapped(ModelABC):
        """The network as tiatoolbox calls one."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return network(pixels)

        @staticmethod
        def preproc(image: NDArray[np.uint8]) -> NDArray[np.float32]:
            return job.normalise(image.transpose(2, 0, 1))

        @staticmethod
        def postproc(image: Any) -> Any:  # noqa: ANN401 - a dask array
            return image.argmax(axis=-1).astype("uint8")

        @staticmethod
        def infer_batch(model: Any, batch: torch.Tensor, *, device: str) -> NDArray[np.float32]:  # noqa: ANN401
            del device
            with torch.inference_mode():
                return model(batch).softmax(dim=1).permute(0, 2, 3, 1).numpy()

    return SemanticSegmentor(
        model=Wrapped(), batch_size=job.batch, num_workers=0, device="cpu", verbose=False
    )


def labels(job: Job, engine: Any) -> Path:  # noqa: ANN401
    """Patches of the tile's size, which overlap as told; labels are written as zarr."""
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig

    level0 = [{"units": "baseline", "resolution": 1.0}]
    step = job.tile - job.overlap
    config = IOSegmentorConfig(
        input_resolutions=level0,
        output_resolutions=level0,
        patch_input_shape=(job.tile, job.tile),
        patch_output_shape=(job.tile, job.tile),
        stride_shape=(step, step),
        save_resolution=level0[0],
    )
    found = engine.run(
        images=[Path(job.scene)],
        ioconfig=config,
        patch_mode=False,
        save_dir=Path(job.output) / "tiatoolbox",
        overwrite=True,
        output_type="zarr",
        auto_get_mask=job.options["tissue"],
        return_probabilities=False,
    )
    return Path(next(iter(found.values())))


if __name__ == "__main__":
    main(load, labels, packages=("tiatoolbox", "timm", "torchvision"), notes=NOTES)
    sys.stdout.flush()

"""geoai: predict_geotiff with its default spline weights, from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from runner import Job, load_network, main

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """The network; the import is timed with it."""
    import geoai.inference
    import geoai.utils  # noqa: F401 - else predict_geotiff does so, on the clock

    return load_network(job)


def predict(job: Job, network: Any, name: str, **options: object) -> Path:  # noqa: ANN401
    """Run it; where its output is."""
    from geoai.inference import predict_geotiff

    path = Path(job.output) / name
    predict_geotiff(
        network,
        job.scene,
        str(path),
        tile_size=job.tile,
        overlap=job.overlap,
        batch_size=job.batch,
        num_classes=job.classes,
        preprocess_fn=job.normalise,
        device="cpu",
        verbose=False,
        **options,
    )
    return path


def labels(job: Job, network: Any) -> Path:  # noqa: ANN401
    """The best class of each pixel."""

    def best(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
        return scores.argmax(axis=0).astype(np.uint8)

    return predict(job, network, "labels.tif", postprocess_fn=best, output_dtype="uint8", output_nodata=255)


def scores(job: Job, network: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Blended scores (K, H, W)."""
    import rasterio

    with rasterio.open(predict(job, network, "scores.tif")) as dataset:
        return dataset.read()


if __name__ == "__main__":
    main(load, labels, scores, packages=("geoai-py",))

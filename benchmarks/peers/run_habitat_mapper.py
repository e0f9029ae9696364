"""habitat-mapper: ONNX Runtime, Bartlett-Hann weights and a fixed overlap of 50 %, from file to file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner import Job, main


def load(job: Job) -> Any:  # noqa: ANN401 - imported here
    """The model, its session made."""
    from habitat_mapper import ModelConfig, ONNXModel

    if len(set(job.scale)) > 1:
        raise ValueError(f"habitat-mapper has one scale for all bands, got {job.scale}")
    graph = Path(job.graph).resolve()
    model = ONNXModel(
        ModelConfig(
            name="network",
            revision="20250101",
            dependencies=[str(graph)],
            model_filename=graph.name,
            input_channels=len(job.scale),
            activation="softmax",
            normalization="standard",
            mean=tuple(job.mean),
            std=tuple(job.std),
            max_pixel_value=1 / job.scale[0],
        )
    )
    assert model.input_size is None  # noqa: S101 - asking makes the session; our graphs have free sides
    return model


def labels(job: Job, model: Any) -> Path:  # noqa: ANN401
    """The best class of each pixel, without its median filter."""
    path = Path(job.output) / "labels.tif"
    model.process(job.scene, path, batch_size=1, crop_size=job.tile, blur_kernel_size=0, quiet=True)
    return path


if __name__ == "__main__":
    main(load, labels, packages=("habitat-mapper",))

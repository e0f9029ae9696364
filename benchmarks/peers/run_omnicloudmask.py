"""OmniCloudMask: predict_from_array with our network in place of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from runner import Job, load_network, main, read_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECLARED = (
    "torchvision's own library does not load beside this torch: its operators nms and qnms were declared"
)
NOTES: list[str] = []


def import_torchvision() -> None:
    """Let timm, which OmniCloudMask imports, import torchvision.

    The wheel of torchvision on PyPI is built for CUDA and leaves its operators out beside a CPU build of
    torch; its Python then fails at two of them. They are declared, without a body: nothing here calls them.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        NOTES.append(DECLARED)


def load(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """The network; the import is timed with it."""
    import_torchvision()
    import omnicloudmask  # noqa: F401

    return load_network(job)


def predict(job: Job, network: Any, scores: bool) -> NDArray[Any]:  # noqa: ANN401
    """Run it on raw pixels, which it brings to mean 0 and deviation 1 in each patch."""
    from omnicloudmask import predict_from_array

    return predict_from_array(
        read_scene(job),
        patch_size=job.tile,
        patch_overlap=job.overlap,
        batch_size=job.batch,
        inference_device="cpu",
        mosaic_device="cpu",
        inference_dtype="fp32",
        export_confidence=scores,
        softmax_output=False,
        no_data_value=-1,
        apply_no_data_mask=False,
        custom_models=network,
        pred_classes=job.classes,
    )


def scores(job: Job, network: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """Blended scores (K, H, W)."""
    return predict(job, network, scores=True)


def labels(job: Job, network: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """The best class of each pixel."""
    return predict(job, network, scores=False)[0]


if __name__ == "__main__":
    main(load, labels, scores, packages=("omnicloudmask", "timm", "torchvision"), notes=NOTES)

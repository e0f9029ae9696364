"""Bugs of the systems that we follow which concern tiles and views, so that they do not come back."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from test_engine import make_plan, run

import networks
from rasters import write_raster
from tiler.backends.onnx import load_model
from tiler.bench import run_speed
from tiler.geometry import Window
from tiler.grid import Axis
from tiler.open import open_raster
from tiler.options import RunOptions
from tiler.readers.array import ArrayRaster
from tiler.tta import augmented


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_d4_12_the_image_that_is_named_is_measured(tmp_path, monkeypatch):
    """The seed's speed test has the path of an image, and runs on another one."""
    model, seen = networks.pixelwise(tmp_path / "net.onnx"), []

    class Enough(Exception):  # noqa: N818
        """Two runs in processes of their own would tell no more."""

    def measured(scene, *_):
        seen.append(open_raster(scene).read(Window(0, 0, 64, 64)).raw_CHW)
        raise Enough

    monkeypatch.setattr("tiler.bench._segmented", measured)
    for seed in (1, 2):
        raw_CHW = np.random.default_rng(seed).integers(0, 256, (3, 80, 70), np.uint8)
        path = write_raster(tmp_path / f"{seed}.tif", raw_CHW)
        with pytest.raises(Enough):
            run_speed(path, model, RunOptions(), 64, 1, str)
        assert np.array_equal(seen[-1], raw_CHW[:, 8:72, 3:67]), "the middle"


def test_d9_1_align_corners_is_never_tiled_as_exact(tmp_path):
    """Seeds upsampled with align_corners=True: what a pixel becomes depends on the size of the tile."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(
            "Resize",
            ["half", "", "double"],
            ["y"],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
    ]
    spec = networks.spec(2, exact=True, stride=2, halo=8)
    weights = {"double": np.array([1, 1, 2, 2], np.float32)}
    model = load_model(networks.save(tmp_path / "net.onnx", nodes, weights, 2, model_spec=spec))
    assert not model.spec.exact
    assert "align_corners" in model.inexact[0]


def test_d9_6_views_are_averaged_as_probabilities():
    """One seed resized probabilities, another logits, and neither said so; a label can hang on it."""

    def network(batch_NCHW):
        # Sure of itself in one view of four, mildly against it in the others.
        upright_N = batch_NCHW[:, 0, 0, 0] > 0
        logits_N = np.where(upright_N, 10.0, -3.0).astype(np.float32)
        return np.broadcast_to(logits_N[:, None, None, None], (len(batch_NCHW), 1, *batch_NCHW.shape[2:]))

    raw_CHW = np.zeros((1, 8, 8), np.uint8)
    raw_CHW[0, 0, 0] = 255
    model = augmented(networks.function_model(network, networks.spec(1), 1), "flips")
    planes_QHW = run(ArrayRaster(raw_CHW), model, make_plan(Axis(8, 8), Axis(8, 8))).planes_QHW
    probability = (1 / (1 + np.exp(-10)) + 3 / (1 + np.exp(3))) / 4
    assert (planes_QHW[0] == 0).all(), "the mean of the logits is 0.25, which would be the other class"
    assert planes_QHW[1] == pytest.approx(probability * 254, abs=1)


def test_d9_7_scores_are_stitched_and_not_labels():
    """Labels of tiles that are put side by side differ at every seam; here they are of the mean score."""

    def network(batch_NCHW):
        # The tile on the left is unsure and the one on the right is not.
        left_N = batch_NCHW[:, 0, 0, 0] > 0
        second_N = np.where(left_N, -0.5, 4.0).astype(np.float32)
        scores_NK = np.stack([np.zeros_like(second_N), second_N], axis=1)
        return np.broadcast_to(scores_NK[..., None, None], (*scores_NK.shape, *batch_NCHW.shape[2:]))

    raw_CHW = np.zeros((1, 16, 24), np.uint8)
    raw_CHW[0, 0, 0] = 255
    axes = Axis(16, 16, 0, 1, "linear"), Axis(24, 16, 8, 1, "linear")
    model = networks.function_model(network, networks.spec(1), 2)
    labels_W = run(ArrayRaster(raw_CHW), model, make_plan(*axes)).planes_QHW[0, 5]
    weights_W = axes[1].weights(1)[:8]
    expected_W = (-0.5 * (1 - weights_W) + 4.0 * weights_W > 0).astype(np.uint8)
    np.testing.assert_array_equal(labels_W, [*[0] * 8, *expected_W, *[1] * 8])
    assert 0 < expected_W.sum() < 8
    assert expected_W.sum() > 4, "the one that is sure takes more than half of what both see"

"""Test-time augmentation: the mean over views, in tiles of any size as in the whole image."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import example, given
from hypothesis import strategies as st
from test_backends import stand_in
from test_engine import make_plan, run

import archives
import networks
from refusals import refused
from tiler.backends.function import FunctionBackend
from tiler.backends.onnx import load_model
from tiler.batch.preview import preview
from tiler.batch.task import Task
from tiler.bench import run_speed
from tiler.cli.main import tiler as command
from tiler.errors import InputError, OtherRunError, UsageError
from tiler.estimate import network_seconds
from tiler.finish import Finisher
from tiler.grid import Axis
from tiler.job import prepare
from tiler.options import RunOptions
from tiler.oracle import whole_image_scores
from tiler.planning import make_plan as planned
from tiler.ports import RasterInfo
from tiler.readers.array import ArrayRaster
from tiler.run import segment
from tiler.tta import VIEWS, AugmentedBackend, augmented, shares

STRIDE, REACH = 4, 6
"""Of the network below; its halo is 8, the next multiple of the stride."""
OFFSETS = ((0, 0, 3), (3, 2, 1), (-1, 6, 2), (2, -5, 1), (1, 0, 5))
"""Rows down, columns to the right, weight: three rows below, one above, six columns and five."""


def lopsided(batch_NCHW):
    """A network that sees further to one side than to the other, and pools squares of its stride."""
    count, _, height, width = batch_NCHW.shape
    padded_NHW = np.pad(batch_NCHW[:, 0], ((0, 0), (REACH, REACH), (REACH, REACH)))
    seen_NHW = np.zeros((count, height, width), np.float32)
    for down, across, weight in OFFSETS:
        top, left = REACH + down, REACH + across
        seen_NHW += weight * padded_NHW[:, top : top + height, left : left + width]
    squares = batch_NCHW[:, 0].reshape(count, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    pooled_NHW = squares.max(axis=(2, 4)).repeat(STRIDE, axis=1).repeat(STRIDE, axis=2)
    return np.stack([seen_NHW, 4 * pooled_NHW - seen_NHW, 2 * pooled_NHW], axis=1)


def lopsided_model(tta: str, **more):
    spec = networks.spec(1, ("a", "b", "c"), stride=STRIDE, halo=REACH, **more)
    return augmented(networks.function_model(lopsided, spec, 3), tta)


def axis_of(extent: int, tile: int, halo: int) -> Axis:
    padded = -(-extent // STRIDE) * STRIDE
    return Axis(extent, padded, 0, STRIDE) if tile >= padded else Axis(extent, tile, 2 * halo, STRIDE)


def raster_of(height: int, width: int, seed: int) -> ArrayRaster:
    rng = np.random.default_rng(seed)
    return ArrayRaster(rng.integers(0, 255, (1, height, width), np.uint8), rng.random((height, width)) < 0.9)


@given(
    st.sampled_from(["flips", "all"]),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(5, 12),
    st.integers(5, 12),
    st.integers(1, 3),
    st.integers(0, 9),
)
@example("all", 61, 90, 5, 11, 2, 0)
def test_tiles_equal_the_whole_image(tta, height, width, rows, columns, batch, seed):
    """Non-square tiles, sides of any remainder, a halo that differs on all four sides; to the byte."""
    model, raster = lopsided_model(tta), raster_of(height, width, seed)
    expected_KHW, valid_HW = whole_image_scores(raster, model.backend, model.spec, model.dtype)
    halo = -(-REACH // STRIDE) * STRIDE
    plan = make_plan(
        axis_of(height, STRIDE * rows, halo), axis_of(width, STRIDE * columns, halo), batch=batch
    )
    planes_QHW = run(raster, model, plan).planes_QHW
    np.testing.assert_array_equal(planes_QHW, Finisher(model.spec, 3, "both")(expected_KHW, valid_HW))


@pytest.mark.parametrize("tta", ["flips", "all"])
def test_a_halo_one_stride_smaller_is_not_exact(tta):
    """The test above would notice; so would it if views began off the stride."""
    model, raster = lopsided_model(tta), raster_of(90, 90, 1)
    expected_KHW, valid_HW = whole_image_scores(raster, model.backend, model.spec, model.dtype)
    axis = axis_of(90, 24, STRIDE)
    planes_QHW = run(raster, model, make_plan(axis, axis)).planes_QHW
    assert (planes_QHW != Finisher(model.spec, 3, "both")(expected_KHW, valid_HW)).any()


@pytest.mark.parametrize("activation", ["none", "logits"])
@pytest.mark.parametrize(("tta", "turns"), [("flips", (0, 2)), ("all", (0, 1, 2, 3))])
def test_the_mean_over_views_by_hand(tta, turns, activation):
    """Against numpy's own rotations and reflections, and a softmax in double precision."""

    def said(batch_NCHW):
        scores_NKHW = lopsided(batch_NCHW).astype(np.float64)
        if activation == "none":
            return scores_NKHW
        raised_NKHW = np.exp(scores_NKHW)
        return raised_NKHW / raised_NKHW.sum(axis=1, keepdims=True)

    batch_NCHW = np.random.default_rng(0).random((2, 1, 24, 40), np.float32)
    both = [
        [
            np.rot90(said(np.rot90(view_NCHW, turn, (2, 3))), -turn, (2, 3))
            for view_NCHW in (batch_NCHW, batch_NCHW[..., ::-1])
        ]
        for turn in turns
    ]
    expected = [scores for upright, flipped in both for scores in (upright, flipped[..., ::-1])]
    assert len({scores.tobytes() for scores in expected}) == len(expected) == len(VIEWS[tta])
    model = lopsided_model(tta, activation=activation)
    assert model.spec.activation == {"none": "none", "logits": "softmax"}[activation]
    np.testing.assert_allclose(model.backend.predict(batch_NCHW), np.mean(expected, axis=0), rtol=2e-5)


def test_one_channel_of_logits_is_a_sigmoid():
    """Of any size, without a warning."""
    logits_NKHW = np.array([-1e30, -200, -3, 0, 3, 200, 1e30], np.float32).reshape(1, 1, 1, 7)
    with np.errstate(all="raise", under="ignore"):
        found = shares(logits_NKHW).ravel()
    assert found == pytest.approx([0, 0, 1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-3)), 1, 1], abs=1e-7)
    spec = networks.spec(1, activation="logits")
    model = augmented(networks.function_model(lambda batch: batch, spec, 1), "flips")
    assert model.spec.activation == "sigmoid"
    assert found.dtype == np.float32


def test_none_is_the_network_itself():
    model = networks.function_model(lopsided, networks.spec(1), 3)
    assert augmented(model, "none") is model


def test_what_a_network_returns_is_not_written_to():
    """A function may return what it was fed, or one array again and again."""
    scores_NKHW = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    scores_NKHW.flags.writeable = False
    model = networks.function_model(lambda batch: scores_NKHW, networks.spec(1, activation="none"), 2)
    flipped = augmented(model, "flips").backend.predict(np.zeros((1, 1, 4, 4), np.float32))
    assert np.ptp(flipped[0, 0]) == 0, "the mean of a ramp over its flips is flat"
    assert scores_NKHW[0, 0, 0, 1] == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene, a U-Net and a network that sees no neighbours."""
    folder = tmp_path_factory.mktemp("tta")
    archives.write(folder / "scene.tif", archives.noise(0, 210, 330))
    networks.unet(folder / "unet.onnx")
    networks.pixelwise(folder / "equivariant.onnx", channels=3)
    return folder


def planes(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize("tta", ["flips", "all"])
def test_an_equivariant_network_says_the_same_with_and_without(place, tmp_path, tta):
    """Labels, and probabilities, in blended mode too: the mean of equal numbers is that number."""
    for blend in ("exact", "hann"):
        for name, more in (("with", {"tta": tta}), ("without", {})):
            options = RunOptions(output="both", blend=blend, tile=64, batch=3, **more)
            segment(place / "scene.tif", place / "equivariant.onnx", tmp_path / f"{name}.tif", options)
        for suffix in (".tif", ".probabilities.tif"):
            one, other = (planes(tmp_path / f"{name}{suffix}").astype(int) for name in ("with", "without"))
            # Probabilities become bytes by way of another softmax.
            assert np.abs(one - other).max() <= (suffix != ".tif")
        for path in tmp_path.iterdir():
            path.unlink()


def test_tiles_batches_and_lanes_change_no_byte(place, tmp_path):
    """A U-Net by the whole command: one tile, many, and the CUDA path with its threads."""
    bound, _ = stand_in(place / "unet.onnx")
    made = {}
    for name, model, options in (
        ("one", place / "unet.onnx", {}),
        ("many", place / "unet.onnx", {"tile": 96, "batch": 2}),
        ("lanes", bound, {"tile": 96, "batch": 1}),
    ):
        told = RunOptions(output="both", tta="all", device="cpu", **options)
        report = segment(place / "scene.tif", model, tmp_path / f"{name}.tif", told)
        assert (report.plan["mode"], report.plan["views"]) == ("exact", 8)
        made[name] = planes(tmp_path / f"{name}.tif"), planes(tmp_path / f"{name}.probabilities.tif")
    for name in ("many", "lanes"):
        np.testing.assert_array_equal(made["one"][0], made[name][0])
        # Sums of other shapes may be rounded in another order.
        assert np.abs(made["one"][1].astype(int) - made[name][1]).max() <= 1
    segment(place / "scene.tif", place / "unet.onnx", tmp_path / "plain.tif", RunOptions(tta="none"))
    assert (planes(tmp_path / "plain.tif") != made["one"][0]).any(), "views of this network differ"


def test_a_tolerance_is_measured_with_the_views(place, tmp_path, monkeypatch):
    """The shorter halo holds for the mean."""
    monkeypatch.setattr("tiler.tolerance.CORE", 32)
    archives.write(tmp_path / "scene.tif", archives.noise(0, 400, 400))
    for name, tolerance in (("exact", None), ("about", 0.2)):
        options = RunOptions(tta="flips", tolerance=tolerance, tile=128)
        report = segment(tmp_path / "scene.tif", place / "unet.onnx", tmp_path / f"{name}.tif", options)
    assert report.plan["mode"] == "tolerance"
    assert report.plan["halo"] < 24
    assert (planes(tmp_path / "exact.tif") == planes(tmp_path / "about.tif")).mean() > 0.99


def test_other_views_are_another_result(place, tmp_path):
    """Refused like any other option; without views nothing is noted, so that old results stay finished."""
    where = place / "scene.tif", place / "unet.onnx", tmp_path / "out.tif"
    plain = segment(*where)
    assert "tta" not in plain.fingerprint["options"]
    with pytest.raises(OtherRunError, match=r'options \(tta: null then, "flips" now\)'):
        segment(*where, RunOptions(tta="flips"))
    flipped = segment(*where, RunOptions(tta="flips", overwrite=True))
    assert flipped.fingerprint["options"]["tta"] == "flips"
    assert 'tta = "flips"' in (tmp_path / "out.config.toml").read_text()


def test_a_fixed_shape_that_is_no_square_cannot_be_turned(place, tmp_path, capsys):
    """Flips can; and a square can be turned."""
    net = networks.pixelwise(tmp_path / "oblong.onnx", dims=["n", 3, 64, 96], out=["n", 2, 64, 96])
    arguments = ["segment", place / "scene.tif", net, tmp_path / "out.tif", "--tta"]
    refused(capsys, command, [*arguments, "all"], "--tta all turns", "96 x 64 px; take flips")
    refused(capsys, command, [*arguments, "twice"], "'twice' is not one of")
    segment(place / "scene.tif", net, tmp_path / "out.tif", RunOptions(tta="flips"))
    square = networks.pixelwise(tmp_path / "square.onnx", dims=["n", 3, 64, 64], out=["n", 2, 64, 64])
    segment(place / "scene.tif", square, tmp_path / "square.tif", RunOptions(tta="all"))
    half = networks.function_model(lopsided, networks.spec(1), 3, shape=(None, 64, None))
    with pytest.raises(UsageError, match="any x 64 px"):
        augmented(half, "all")


def test_plans_count_the_views(place):
    """Their time, because they are computed when it is measured; and their memory."""
    calls = []

    def network(batch_NCHW):
        calls.append(batch_NCHW.shape[2:])
        return np.zeros((len(batch_NCHW), 2, *batch_NCHW.shape[2:]), np.float32)

    model = networks.function_model(network, networks.spec(3), 2)
    info = RasterInfo("none.tif", 999, 2999, 3, np.dtype(np.uint8))
    peaks = {}
    for tta in VIEWS:
        options = RunOptions(tta=tta, memory=10**9, tile=256, batch=4)
        plan = planned(info, model, Finisher(model.spec, 2), options)
        peaks[tta] = plan.peak
        network_seconds(augmented(model, tta), plan)
    assert len(calls) == 2 * (1 + 4 + 8)
    assert peaks["all"] == peaks["flips"] == peaks["none"] + 4 * 256 * 256 * 4 * (3 + 2 * 2 + 2)
    assert prepare(place / "scene.tif", place / "unet.onnx", RunOptions(tta="all")).plan().terms["views"]


def test_a_dry_run_of_a_batch_counts_the_views_too(place, tmp_path, monkeypatch):
    """The network was timed without them, so the time was an eighth."""
    timed = []
    monkeypatch.setattr("tiler.batch.preview.network_seconds", lambda model, _: timed.append(model) or 1.0)
    for tta in ("none", "all"):
        task = Task(str(place / "scene.tif"), "", str(tmp_path / "out.tif"), RunOptions(tta=tta))
        (found,) = preview([task], load_model(place / "unet.onnx"))
        assert found.seconds > 0
    assert [isinstance(model.backend, AugmentedBackend) for model in timed] == [False, True]


def test_the_plain_loop_of_a_bench_computes_each_view_once(place, monkeypatch):
    """It computed views of views, so ours seemed eight times as fast beside it."""

    def loop(job):
        looped.append(job.model.backend)
        raise RuntimeError("enough")

    looped = []
    monkeypatch.setattr("tiler.bench.plain_loop", loop)
    with pytest.raises(RuntimeError, match="enough"):
        run_speed(place / "scene.tif", place / "unet.onnx", RunOptions(tta="all"), 256, 1, print)
    (backend,) = looped
    assert isinstance(backend, AugmentedBackend)
    assert not isinstance(backend.backend, AugmentedBackend)


def test_a_network_that_returns_another_size_is_an_error():
    """In one line, also where views of it do not fit onto each other."""
    model = networks.function_model(lambda batch: batch[:, :, 1:], networks.spec(2), 2)
    with pytest.raises(InputError, match=r"one score per pixel, got \(1, 2, 15, 16\) for \(1, 2, 16, 16\)"):
        augmented(model, "all").backend.predict(np.zeros((1, 2, 16, 16), np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_an_error(bad):
    """The probability of an infinite score is a number; the run stops all the same."""
    model = networks.function_model(lambda batch: np.full((1, 1, 8, 8), bad), networks.spec(1), 1)
    with pytest.raises(InputError, match="NaN or infinity"):
        augmented(model, "flips").backend.predict(np.zeros((1, 1, 8, 8), np.float32))


def test_views_are_computed_in_several_threads_at_once():
    """As many calls as the network has workers, each with sums of its own."""
    together = threading.Barrier(2, timeout=20)

    def network(batch_NCHW):
        together.wait()
        return lopsided(batch_NCHW)

    model = networks.function_model(lopsided, networks.spec(1), 3)
    two = replace(model, backend=FunctionBackend(network, workers=2))
    backend = augmented(two, "all").backend
    assert backend.workers == 2
    batches = np.random.default_rng(0).integers(0, 255, (2, 1, 1, 16, 24)).astype(np.float32)
    found = [None, None]

    def compute(number):
        found[number] = backend.predict(batches[number])

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for number in range(2):
        expected = augmented(model, "all").backend.predict(batches[number])
        np.testing.assert_array_equal(found[number], expected)


def test_out_of_memory_is_answered_by_smaller_tiles(place, tmp_path):
    """The error of any view comes through."""
    model = load_model(place / "unet.onnx", RunOptions(device="cpu"))

    def network(batch_NCHW):
        if batch_NCHW[0, 0].size * len(batch_NCHW) > 128 * 128:
            raise MemoryError("too large")
        return model.backend.predict(batch_NCHW)

    small = replace(model, backend=FunctionBackend(network))
    options = RunOptions(tta="all", tile=128, batch=2, device="cpu")
    segment(place / "scene.tif", small, tmp_path / "small.tif", options)
    segment(place / "scene.tif", model, tmp_path / "whole.tif", options)
    np.testing.assert_array_equal(planes(tmp_path / "small.tif"), planes(tmp_path / "whole.tif"))

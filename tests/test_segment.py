"""`segment` from file to file: what is written, and that it never changes without a reason."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import rasterio
from affine import Affine
from onnx import TensorProto, helper
from rio_cogeo.cogeo import cog_validate

import networks
import tiler
from tiler.backends.onnx import load_model
from tiler.errors import UsageError
from tiler.events import BlockStored, Finished, Finishing, Planned, Publishing
from tiler.finish import SCALE, Finisher
from tiler.geometry import Window
from tiler.job import prepare
from tiler.options import RunOptions
from tiler.oracle import whole_image_scores
from tiler.run import segment
from tiler.toml import read_toml

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = "EPSG:32633"
HERE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


@pytest.fixture
def scene(tmp_path) -> Path:
    """A georeferenced scene of 0.5 m with a nodata corner."""
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(1, 255, (3, 700, 1100), np.uint8)
    raw_CHW[:, :90, :120] = 0
    path = tmp_path / "scene.tif"
    profile = {
        "count": 3,
        "height": 700,
        "width": 1100,
        "dtype": "uint8",
        "nodata": 0,
        "crs": UTM,
        "transform": HERE,
    }
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **profile) as dataset:
        dataset.write(raw_CHW)
    return path


@pytest.fixture
def unet(tmp_path) -> Path:
    """A random U-Net that describes itself."""
    return networks.unet(tmp_path / "unet.onnx")


def oracle(scene, model, output):
    """The planes by whole-image inference."""
    job = prepare(scene, model, RunOptions(output=output))
    scores_KHW, valid_HW = whole_image_scores(job.raster, model.backend, model.spec, model.dtype)
    return Finisher(model.spec, model.channels, output)(scores_KHW, valid_HW)


@pytest.mark.parametrize("options", [{}, {"tile": 256}, {"tile": 128, "batch": 5}, {"memory": 700_000_000}])
def test_exact_mode_writes_what_the_whole_image_gives(scene, unet, tmp_path, options):
    """Labels and probabilities, whatever the tile."""
    model = load_model(unet)
    segment(scene, model, tmp_path / "out.tif", RunOptions(output="both", **options))
    expected_QHW = oracle(scene, model, "both")
    with (
        rasterio.open(tmp_path / "out.tif") as labels,
        rasterio.open(tmp_path / "out.probabilities.tif") as shares,
    ):
        np.testing.assert_array_equal(labels.read(), expected_QHW[:1])
        np.testing.assert_array_equal(shares.read(), expected_QHW[1:])


def test_the_files_say_what_they_are(scene, unet, tmp_path):
    """CRS, transform, nodata, colours, names, scale, provenance; valid COGs with overviews."""
    report = segment(scene, unet, tmp_path / "out.tif", RunOptions(output="both"))
    for name in ("out.tif", "out.probabilities.tif"):
        assert cog_validate(tmp_path / name, strict=True)[0]
    with rasterio.open(tmp_path / "out.tif") as labels:
        assert (labels.crs, labels.transform, labels.nodata) == (UTM, HERE, 255)
        assert labels.colormap(1)[1] == (230, 57, 57, 255)
        assert labels.overviews(1) == [2, 4]
        tags = labels.tags()
        assert [c["name"] for c in json.loads(tags["TILER_CLASSES"])] == ["class0", "class1"]
        assert tags["TILER_MODEL_SHA256"] == load_model(unet).sha256
        assert json.loads(tags["TILER_OPTIONS"])["mode"] == "exact"
        assert (labels.read(1)[:90, :120] == 255).all()
    with rasterio.open(tmp_path / "out.probabilities.tif") as shares:
        assert shares.scales == (SCALE, SCALE)
        assert shares.descriptions == ("class0", "class1")
    stored = json.loads((tmp_path / "out.report.json").read_text())
    assert stored["valid_pixels"] == report.valid_pixels == 700 * 1100 - 90 * 120
    assert sum(c.pixels for c in report.classes) == report.valid_pixels
    assert sum(c.area_m2 for c in report.classes) == pytest.approx(
        report.valid_pixels * 0.25 / 0.9996**2, rel=1e-4
    )
    left = {
        "scene.tif",
        "unet.onnx",
        "out.tif",
        "out.probabilities.tif",
        "out.report.json",
        "out.config.toml",
        "out.qml",
    }
    assert {p.name for p in tmp_path.iterdir()} == left


@pytest.mark.parametrize("blend", ["exact", "hann"])
def test_the_machine_changes_no_byte_of_the_file(scene, unet, tmp_path, blend):
    """Batch, threads and memory are not in the result, nor in its tags."""
    contents = set()
    for i, options in enumerate(({}, {"batch": 3}, {"threads": 1}, {"memory": 600_000_000})):
        segment(scene, unet, tmp_path / f"{i}.tif", RunOptions(blend=blend, tile=256, **options))
        contents.add((tmp_path / f"{i}.tif").read_bytes())
    assert len(contents) == 1


def test_probabilities_alone_go_to_the_name_that_was_given(scene, unet, tmp_path):
    segment(scene, unet, tmp_path / "p.tif", RunOptions(output="probabilities"))
    with rasterio.open(tmp_path / "p.tif") as shares:
        assert shares.count == 2
    assert not (tmp_path / "p.probabilities.tif").exists()


def test_a_coarser_grid_and_back(scene, tmp_path):
    """Fed at 1 m: the output lies on 1 m pixels, or with --grid source on the file's own."""
    model = networks.pixelwise(tmp_path / "net.onnx", model_spec=networks.spec(resolution=1.0))
    segment(scene, model, tmp_path / "coarse.tif")
    segment(scene, model, tmp_path / "fine.tif", RunOptions(grid="source"))
    with rasterio.open(tmp_path / "coarse.tif") as coarse, rasterio.open(tmp_path / "fine.tif") as fine:
        assert coarse.shape == (350, 550)
        assert coarse.transform == HERE @ Affine.scale(2)
        assert (fine.shape, fine.transform) == ((700, 1100), HERE)
        repeated_HW = coarse.read(1).repeat(2, axis=0).repeat(2, axis=1)
        labels_HW = fine.read(1)
    with rasterio.open(scene) as source:
        valid_HW = source.dataset_mask() != 0
    np.testing.assert_array_equal(labels_HW, np.where(valid_HW, repeated_HW, 255))


def test_the_raster_at_its_own_size_is_the_same_as_no_resolution(scene, unet, tmp_path):
    model = load_model(unet)
    job = prepare(scene, replace(model, spec=replace(model.spec, resolution=0.51)))
    assert job.raster.info.note == ""


def test_multilabel_has_a_band_per_class(scene, tmp_path):
    spec = networks.spec(classes=("tree", "roof", "road"), activation="sigmoid")
    net = networks.pixelwise(tmp_path / "net.onnx", channels=3, model_spec=spec)
    proto = onnx.load(net)
    proto.graph.node[0].output[0] = "z"
    proto.graph.node.append(helper.make_node("Sigmoid", ["z"], ["y"]))
    onnx.save(proto, net)
    report = segment(scene, net, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as labels:
        assert labels.descriptions == ("tree", "roof", "road")
        labels_KHW = labels.read()
    assert set(np.unique(labels_KHW)) <= {0, 1, 255}
    assert [c.pixels for c in report.classes] == [(plane == 1).sum() for plane in labels_KHW]


def test_a_fixed_shape_and_batch(scene, tmp_path):
    """The last batch is filled up, small rasters are padded up to the shape."""
    net = networks.pixelwise(tmp_path / "net.onnx", dims=[4, 3, 64, 96], out=[4, 2, 64, 96])
    dynamic = networks.pixelwise(tmp_path / "dynamic.onnx")
    segment(scene, net, tmp_path / "fixed.tif")
    segment(scene, dynamic, tmp_path / "dynamic.tif")
    with rasterio.open(tmp_path / "fixed.tif") as a, rasterio.open(tmp_path / "dynamic.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())
    with pytest.raises(UsageError, match="tiles of 64 px only, got --tile 128"):
        segment(scene, net, tmp_path / "x.tif", RunOptions(tile=128))


@pytest.mark.parametrize(("kind", "scale"), [(TensorProto.UINT8, ()), (TensorProto.FLOAT16, (1 / 255,) * 3)])
def test_other_input_types(scene, tmp_path, kind, scale):
    """Bytes are fed raw, halves normalised."""
    weights = {"w": np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype(np.float32)}
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["y"]),
    ]
    net = networks.save(tmp_path / "n.onnx", nodes, weights, kind=kind, model_spec=networks.spec(scale=scale))
    segment(scene, net, tmp_path / "out.tif")
    with rasterio.open(scene) as source, rasterio.open(tmp_path / "out.tif") as labels:
        raw_CHW = source.read().astype(np.float64)
        scores_KHW = np.tensordot(weights["w"][:, :, 0, 0].astype(float), raw_CHW, axes=1)
        clear_HW = (np.abs(scores_KHW[0] - scores_KHW[1]) > 1) & (raw_CHW.max(axis=0) > 0)
        assert clear_HW.mean() > 0.9
        np.testing.assert_array_equal(labels.read(1)[clear_HW], scores_KHW.argmax(axis=0)[clear_HW])


def test_foreign_models_run_by_options(shared, tmp_path):
    """The contract models and the real ones: what cannot be known is given by hand, the rest is proven."""
    cases = {
        "contract/one_output_softmax_bsx2x512x512.onnx": ("softmax", 0, "RGB.byte.tif"),
        "contract/one_output_sigmoid_bsx1x512x512.onnx": ("sigmoid", 0, "RGB.byte.tif"),
        "contract/one_output_sigmoid_bsx512x512.onnx": ("sigmoid", None, "RGB.byte.tif"),
        "contract/one_output_sigmoid_red_detector.onnx": ("sigmoid", 0, "RGB.byte.tif"),
        "wnet_drive_av.onnx": ("softmax", 96, "RGB.byte.tif"),
        "cloud_unet_l8_rgbnir.onnx": ("sigmoid", 24, "landsat_ucayali_1985.tif"),
        "retina_unet_drive.onnx": ("softmax", 24, "cog_gcps_sentinel1.tif"),
    }
    for i, (name, (activation, halo, raster)) in enumerate(cases.items()):
        options = RunOptions(scale=(1 / 255,), activation=activation, tile=512, output="probabilities")
        source, model = shared / "rasters" / raster, shared / "models" / name
        report = segment(source, model, tmp_path / f"{i}.tif", options)
        assert report.plan["mode"] == ("hann" if halo is None else "exact"), name
        if halo is None:
            assert "Reshape" in report.plan["reason"]
            continue
        assert report.plan["halo"] == halo, name
        if None in load_model(model, options).shape[1:]:
            job = prepare(source, model, options)
            scores_KHW, valid_HW = whole_image_scores(
                job.raster, job.model.backend, job.model.spec, job.model.dtype
            )
            expected_QHW = job.finisher(np.ascontiguousarray(scores_KHW), valid_HW)
            with rasterio.open(tmp_path / f"{i}.tif") as dataset:
                np.testing.assert_array_equal(dataset.read(), expected_QHW)


def test_events_tell_the_story_in_order(scene, unet, tmp_path):
    """Planned, blocks that add up, finishing, finished; each is one line of JSON."""
    events = []
    segment(scene, unet, tmp_path / "out.tif", observer=events.append)
    assert isinstance(events[0], Planned)
    assert [type(e) for e in events[-3:]] == [Finishing, Publishing, Finished]
    blocks = [e for e in events if isinstance(e, BlockStored)]
    assert blocks[-1].done == blocks[-1].total == 700 * 1100 == sum(e.pixels for e in blocks)
    for event in events:
        assert json.loads(event.to_json())["event"] == type(event).__name__


def test_a_failing_network_leaves_nothing(scene, unet, tmp_path):
    """Not the output, not the run folder, not a thread; the error arrives unchanged."""
    model = load_model(unet)
    calls = []

    class Failing:
        workers = most_workers = 1

        def predict(self, batch_NCHW):
            calls.append(1)
            if len(calls) == 3:
                raise ZeroDivisionError("third call")
            return model.backend.predict(batch_NCHW)

        def reserve(self, size, workers):
            model.backend.reserve(size, workers)

        def release(self):
            calls.append("released")

    before = set(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError, match="third call") as caught:
        segment(scene, replace(model, backend=Failing()), tmp_path / "out.tif", RunOptions(tile=128, batch=1))
    assert set(tmp_path.iterdir()) == before
    assert calls[-1] == "released"
    # Not even while the traceback still holds the frames.
    assert caught.tb is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("tiler")]


def test_memory_stays_within_the_plan(shared, tmp_path):
    """Peak of a process of its own, on a raster of 33 Mpx, at two budgets."""
    net = networks.unet(tmp_path / "unet.onnx", width=8)
    scene = shared / "rasters" / "zanzibar_oam_z21.tif"
    code = (
        "import sys, tiler\n"
        "report = tiler.segment(*sys.argv[1:4], tiler.RunOptions(memory=int(sys.argv[4])))\n"
        "print(report.peak_memory, report.plan['peak'])"
    )
    for i, budget in enumerate((700_000_000, 1_500_000_000)):
        command = [sys.executable, "-c", code, scene, net, tmp_path / f"{i}.tif", str(budget)]
        peak, planned = map(
            int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        )
        assert peak <= planned <= budget


def test_the_public_names():
    """The façade is what the documentation says, and importing it brings no torch."""
    assert sorted(tiler.__all__) == tiler.__all__
    for name in tiler.__all__:
        assert getattr(tiler, name) is not None
    code = "import sys, tiler; [getattr(tiler, n) for n in tiler.__all__]; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nonsense"):
        tiler.nonsense  # noqa: B018


def test_no_module_of_tiler_imports_torch():
    """At any depth: every module, the command line's too."""
    code = (
        "import importlib, pkgutil, sys, tiler\n"
        "for m in pkgutil.walk_packages(tiler.__path__, 'tiler.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "bad = {'torch', 'train', 'export'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_is_fast():
    """Because the heavy libraries are not loaded for it."""
    code = (
        "import sys; sys.argv = ['tiler', '--help']\n"
        "from tiler.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'numpy', 'rasterio', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_plan_is_data(scene, unet):
    """Made twice, it is the same; the sum of its terms is its peak."""
    options = RunOptions(tile=256, memory=10**9)
    plan = tiler.plan(scene, unet, options)
    assert plan.grid == tiler.plan(scene, unet, options).grid
    assert plan.peak == sum(plan.terms.values()) <= 10**9
    assert plan.tiles == 6 * 4


def test_windows_of_the_report_cover_the_raster(scene, unet, tmp_path):
    """Blocks lie on a grid of their own, not on the tiles."""
    windows = []
    segment(
        scene,
        unet,
        tmp_path / "o.tif",
        RunOptions(tile=128),
        lambda e: windows.append(getattr(e, "window", "")),
    )
    assert str(Window(0, 0, 700, 1024)) in windows


def test_a_second_thread_may_run_another_segment(scene, unet, tmp_path):
    """Two runs in one process do not disturb each other."""
    model = load_model(unet)
    threads = [threading.Thread(target=segment, args=(scene, model, tmp_path / f"{i}.tif")) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "0.tif").read_bytes() == (tmp_path / "1.tif").read_bytes()
    assert not list(tmp_path.glob("*.run"))


def test_a_resolution_that_would_be_endless_is_refused(scene, unet):
    """Before a single pixel is read."""
    with pytest.raises(UsageError, match="at most 1e"):
        prepare(scene, unet, RunOptions(resolution=1e-5))


def test_odd_values_survive_the_written_configuration(scene, unet, tmp_path):
    """NaN as nodata, and names beyond ASCII."""
    options = RunOptions(nodata=float("nan"), classes=("grün", "\U0001f600"))
    segment(scene, unet, tmp_path / "a.tif", options)
    stored = read_toml(tmp_path / "a.config.toml")
    assert stored["classes"] == ["grün", "\U0001f600"]
    assert stored["nodata"] != stored["nodata"]

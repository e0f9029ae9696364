"""Less precision: int8 and fp16 files describe themselves, run, and are written only if they are as good."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime import InferenceSession

from export import quantize as quantizing
from export import reduce as reducing
from export.calibration import CELLS, calibration_batches
from export.cli import main
from export.gate import Limits, Truth, Verdict, check, judge, mean_iou
from export.half import halve
from export.quantize import float_nodes
from export.reduce import Evidence, load_source, reduce_onnx
from export.sample import BLACK, SIDE, WHITE, Board, board, sample
from refusals import refused
from tiler.backends.function import FunctionBackend
from tiler.backends.graph import bytes_per_pixel, precision, read_graph
from tiler.backends.onnx import load_model
from tiler.cli.main import run_command, tiler
from tiler.errors import DamageError, InputError, OutputError, UsageError
from tiler.geometry import Window
from tiler.metrics import Confusion
from tiler.open import open_for_model, open_raster
from tiler.options import RunOptions
from tiler.oracle import whole_image_scores
from tiler.readers.array import ArrayRaster
from tiler.spec import METADATA_KEY, default_classes
from training_data import PLACE, write, write_pair

DEMO = Path(__file__).parents[1] / "tiler" / "demo"
NET, SCENE, LABELS = DEMO / "buildings.onnx", DEMO / "scene.tif", DEMO / "labels.tif"
REDUCED = ("fp16", "int8")


def test_a_scale_that_several_resizes_share_stays_a_float(tmp_path):
    """Of any U-Net that interpolates; cast for each of them it had one name twice, which is no graph."""
    sides = [[1, 1, "h", "w"], [1, 1, "four_h", "four_w"]]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip("xz", sides, strict=True)
    ]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    resizes = [
        onnx.helper.make_node("Resize", [a, "", "scales"], [b], mode="linear") for a, b in ("xy", "yz")
    ]
    graph = onnx.helper.make_graph(resizes, "net", ends[:1], ends[1:], [scales])
    # As PyTorch's exporter describes weights.
    graph.value_info.append(onnx.helper.make_tensor_value_info("scales", onnx.TensorProto.FLOAT, [4]))
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "full.onnx")
    halve(tmp_path / "full.onnx", tmp_path / "half.onnx")
    model = onnx.load(tmp_path / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((1, 1, 3, 5), np.float32)})[0].shape == (1, 1, 12, 20)


@pytest.fixture(scope="module")
def source():
    """The shipped network, which was trained."""
    return load_source(NET)


def test_a_conversion_that_makes_no_graph_is_one_line(source, tmp_path):
    model = onnx.load(NET)
    model.graph.node.append(model.graph.node[0])
    onnx.save(model, tmp_path / "twice.onnx")
    with pytest.raises(InputError, match="use another --precision") as caught:
        reducing.describe(tmp_path / "twice.onnx", source)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def scene(source):
    """The shipped scene at the network's resolution."""
    return open_for_model(SCENE, source.spec)


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """The shipped network in less precision, by the command line: paths by precision."""
    folder = tmp_path_factory.mktemp("reduced")
    found = {name: folder / f"{name}.onnx" for name in REDUCED}
    for name, out in found.items():
        arguments = [NET, out, "--raster", SCENE, "--labels", LABELS, "--precision", name, "--quiet"]
        assert run_command(main, list(map(str, arguments))) == 0
    return found


def reduce_to(out, *options, raster=SCENE, wanted="int8", net=NET):
    return [net, out, "--raster", raster, "--precision", wanted, *options]


# --- the files


@pytest.mark.parametrize("name", REDUCED)
def test_it_describes_itself_as_its_source_does(reduced, source, name):
    graph, _ = read_graph(reduced[name])
    assert graph.spec == source.spec
    assert graph.dtype == np.float32
    assert graph.stride == read_graph(NET)[0].stride == 16
    assert [p.name for p in sorted(reduced[name].parent.iterdir())] == ["fp16.onnx", "int8.onnx"]


def test_precision_is_told_by_the_graph(reduced):
    assert precision(read_graph(NET)[0]) == "fp32"
    assert {name: precision(read_graph(path)[0]) for name, path in reduced.items()} == {
        name: name for name in REDUCED
    }


def test_it_is_smaller(reduced):
    full = NET.stat().st_size
    assert reduced["fp16"].stat().st_size < 0.6 * full
    assert reduced["int8"].stat().st_size < 0.4 * full


@pytest.mark.parametrize(("name", "least"), [("fp16", 0.9999), ("int8", 0.9995)])
def test_labels_agree_where_nothing_was_calibrated_on(reduced, source, scene, name, least):
    verdict = judge(source, load_model(reduced[name], RunOptions(device="cpu")), scene, None)
    assert verdict.pixels == 518_400
    assert verdict.agreement >= least
    assert verdict.loss is None


@pytest.mark.parametrize("name", REDUCED)
def test_memory_is_planned_from_its_graph(reduced, name):
    """Every tensor has a size; halves are computed as floats on a CPU, so they save no memory there."""
    graph, _ = read_graph(reduced[name])
    full = bytes_per_pixel(read_graph(NET)[0])
    assert full <= bytes_per_pixel(graph) <= 1.6 * full


@pytest.mark.parametrize("name", REDUCED)
def test_it_segments_and_tiles_equal_the_whole_image(reduced, name, tmp_path):
    """Constant scales shift with the pixels: what was exact stays exact."""
    part, out = tmp_path / "part.tif", tmp_path / "out.tif"
    with rasterio.open(SCENE) as dataset:
        window = rasterio.windows.Window(300, 1500, 960, 960)
        profile = {"crs": dataset.crs, "transform": dataset.window_transform(window)}
        write(part, dataset.read(window=window), **profile)
    arguments = ["segment", part, reduced[name], out, "--tile", "272", "--device", "cpu", "--quiet"]
    assert run_command(tiler, list(map(str, arguments))) == 0
    model = load_model(reduced[name], RunOptions(device="cpu"))
    raster = open_for_model(part, model.spec)
    scores_KHW, _ = whole_image_scores(raster, model.backend, model.spec, model.dtype)
    with rasterio.open(out) as dataset:
        assert np.array_equal(dataset.read(1), scores_KHW.argmax(axis=0))


def test_scores_are_not_quantised(reduced, source, scene):
    """The head is left in floats: 256 levels would make ties."""
    model = load_model(reduced["int8"], RunOptions(device="cpu"))
    scores_KHW, _ = whole_image_scores(
        ArrayRaster(scene.read(Window(0, 0, 256, 256)).raw_CHW), model.backend, model.spec, model.dtype
    )
    assert np.unique(scores_KHW).size > 10_000


def test_what_stays_float():
    """All up to the first convolution, all from the last one on, and what no kernel is there for."""
    kinds = ["Sub", "Conv", "Relu", "Conv", "ConvTranspose", "Concat", "Conv", "Softmax"]
    nodes = [onnx.helper.make_node(kind, ["x"], ["y"], name=str(i)) for i, kind in enumerate(kinds)]
    assert float_nodes(nodes) == ["0", "1", "4", "6", "7"]
    assert float_nodes(nodes[:1]) == ["0"]


# --- the windows


@given(
    extent=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    stride=st.sampled_from([1, 4, 16, 32]),
)
def test_nothing_is_both_calibrated_on_and_judged_by(source, extent, stride):
    """Whatever the size: windows of both colours exist, lie inside and are disjoint."""
    raster = ArrayRaster(np.broadcast_to(np.uint8(0), (3, *extent)))
    model = replace(source, spec=replace(source.spec, stride=stride))
    if max(extent) < 2 * stride:
        with pytest.raises(InputError, match="larger"):
            board(raster, model)
        return
    found = board(raster, model)
    taken = {colour: list(found.windows(colour)) for colour in (BLACK, WHITE)}
    owner_HW = np.zeros((max(extent[0], stride), max(extent[1], stride)), np.int8)
    for window in (*taken[BLACK], *taken[WHITE]):
        assert Window(0, 0, *owner_HW.shape).contains(window)
        assert not any(side % stride or side > max(SIDE, stride) for side in window.shape)
        owner_HW[window.slices] += 1
    assert owner_HW.max() == 1
    assert min(map(len, taken.values())) >= 1
    assert len(taken[BLACK]) + len(taken[WHITE]) == found.shape[0] * found.shape[1]


def test_the_first_windows_are_spread(source):
    """Sixteen of ten thousand fall into at least a dozen of sixteen parts of the raster."""
    windows = list(Board((25_600, 25_600), (256, 256)).windows(WHITE))[:16]
    assert len({(w.top // 6400, w.left // 6400) for w in windows}) >= 12


def test_windows_without_data_are_passed_over(source):
    """A collar of nodata: what is taken holds data."""
    valid_HW = np.zeros((1024, 1024), bool)
    valid_HW[300:600, 300:600] = True
    raster = ArrayRaster(np.zeros((3, 1024, 1024), np.uint8), valid_HW)
    cells = [window for window, _ in sample(raster, source, WHITE, 64)]
    assert 0 < len(cells) < 8
    assert all(valid_HW[window.slices].any() for window in cells)


def test_rasters_share_the_calibration(source):
    """As many tiles from each, of what the network is fed."""
    rasters = [ArrayRaster(np.full((3, 4096, 4096), value, np.uint8)) for value in (10, 200)]
    batches = list(calibration_batches(source, rasters))
    assert [b.shape for b in batches] == [(1, 3, 256, 256)] * CELLS
    assert len({float(b[0, 0, 0, 0]) for b in batches[: CELLS // 2]}) == 1
    assert float(batches[0][0, 0, 0, 0]) < float(batches[-1][0, 0, 0, 0])


# --- the gate


def truth_of(before, after):
    """From two confusion matrices."""
    pair = Confusion(2), Confusion(2)
    for confusion, counts in zip(pair, (before, after), strict=True):
        confusion.counts_TP[...] = counts
    return Truth(None, *pair)


def test_loss_by_hand():
    """Building IoU falls from 1/2 to 1/3, background stays."""
    truth = truth_of([[0, 0], [1, 1]], [[0, 0], [2, 1]])
    assert truth.loss == pytest.approx(100 * (1 / 2 - 1 / 3))


def test_a_class_that_is_not_there_does_not_count():
    """That the reduced network alone sees it does not change what is averaged."""
    confusion = Confusion(3)
    confusion.counts_TP[...] = [[8, 0, 2], [0, 5, 0], [0, 0, 0]]
    assert mean_iou(confusion) == pytest.approx((0.8 + 1) / 2)


@pytest.mark.parametrize(
    ("same", "truth", "passes"),
    [
        (999, None, True),
        (998, None, False),
        (998, truth_of([[50, 50], [0, 100]], [[50, 50], [0, 100]]), True),
        (998, truth_of([[90, 10], [0, 100]], [[50, 50], [0, 100]]), False),
        (999, truth_of([[90, 10], [0, 100]], [[50, 50], [0, 100]]), True),
    ],
)
def test_labels_agree_or_are_as_good(same, truth, passes):
    verdict = Verdict(("a", "b"), 1000, same, 0.1, truth)
    assert verdict.passes(Limits()) is passes
    if not passes:
        with pytest.raises(InputError, match=r"--least-agreement 0\.999 .*got 0\.99800.*not written"):
            check(verdict, Limits())


def test_a_refusal_names_both_ways_out():
    worse = truth_of([[90, 10], [0, 100]], [[50, 50], [0, 100]])
    with pytest.raises(InputError, match=r"--most-loss 0\.5 points lower, got 0\.5.* and 3.* points"):
        check(Verdict(("a", "b"), 2, 1, 0.1, worse), Limits())
    with pytest.raises(InputError, match="pass --labels"):
        check(Verdict(("a", "b"), 2, 1, 0.1), Limits())


def test_only_valid_pixels_are_judged(source):
    """A network that differs where pixels were filled, and only there, agrees."""
    valid_HW = np.ones((64, 64), bool)
    valid_HW[:, :20] = False
    raster = ArrayRaster(np.full((3, 64, 64), 250, np.uint8), valid_HW)

    def wrong_where_filled(batch_NCHW):
        first_N1HW = batch_NCHW[:, :1]
        sign_N1HW = np.where(first_N1HW < first_N1HW.max(), -1, 1)
        return source.backend.predict(batch_NCHW) * sign_N1HW

    verdict = judge(source, replace(source, backend=FunctionBackend(wrong_where_filled)), raster, None)
    assert verdict.pixels == verdict.same == 32 * 12 + 32 * 32
    assert verdict.difference > 0.1


def test_a_network_that_overflows_is_refused(source, scene):
    broken = replace(source, backend=FunctionBackend(lambda batch: batch[:, :2] * np.float32(np.nan)))
    with pytest.raises(InputError, match="NaN or infinity"):
        judge(source, broken, scene, None)


def test_labels_of_independent_classes_are_refused(source, scene):
    several = replace(source, spec=replace(source.spec, activation="sigmoid"))
    with pytest.raises(UsageError, match="--labels"):
        judge(several, several, scene, scene)


def test_labels_that_know_nothing_are_refused(source, tmp_path):
    raster, _ = write_pair(tmp_path, 64, 64)
    unknown = ArrayRaster(np.full((1, 64, 64), 255, np.uint8))
    with pytest.raises(InputError, match="--labels"):
        judge(source, source, open_raster(raster), unknown)


# --- the command


def test_it_prints_its_proof(capsys, tmp_path):
    arguments = reduce_to(tmp_path / "o.onnx", "--labels", LABELS)
    assert run_command(main, list(map(str, arguments))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("99.9")
    assert [line.split()[0] for line in lines[2:6]] == ["IoU", "background", "building", "mean"]
    assert lines[-1] == f"wrote {tmp_path / 'o.onnx'}, 0.70 MB"


def test_a_checkpoint_goes_by_way_of_fp32(capsys, tmp_path):
    """Proved twice: the fp32 form against PyTorch, the reduced one against it."""
    torch = pytest.importorskip("torch")
    from tiler.spec import ModelSpec
    from train.checkpoint import save_checkpoint
    from train.models.options import UNetOptions
    from train.models.unet import UNet

    torch.manual_seed(0)
    net = UNet(UNetOptions(3, 2, 2, 4))
    with torch.no_grad():
        net(torch.randn(2, 3, 16, 16))
    spec = ModelSpec(("r", "g", "b"), default_classes(("a", "b")), scale=(1 / 255,) * 3, stride=net.stride)
    save_checkpoint(tmp_path / "best", net.eval(), spec)
    raster, _ = write_pair(tmp_path, 150, 200)
    out = tmp_path / "net.onnx"
    arguments = reduce_to(out, "--least-agreement", "0.5", raster=raster, net=tmp_path / "best")
    assert run_command(main, list(map(str, arguments))) == 0
    assert capsys.readouterr().out.count(" x 3 x ") == 3
    assert read_graph(out)[0].spec == replace(spec, halo=22, exact=True)
    assert precision(read_graph(out)[0]) == "int8"


def test_what_is_not_good_enough_is_not_written(capsys, tmp_path):
    """And what was there before stays."""
    out = tmp_path / "o.onnx"
    out.write_bytes(b"before")
    refused(capsys, main, reduce_to(out, "--least-agreement", "1"), "--least-agreement 1", "not written")
    refused(
        capsys,
        main,
        reduce_to(out, "--least-agreement", "1", "--labels", LABELS, "--most-loss", "0"),
        "--most-loss 0",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["o.onnx"]
    assert out.read_bytes() == b"before"


def test_absurd_calibration_is_caught(capsys, tmp_path):
    """Ranges learnt from a black picture cut everything off."""
    black = write(tmp_path / "black.tif", np.zeros((3, 600, 600), np.uint8), **PLACE)
    refused(capsys, main, reduce_to(tmp_path / "o.onnx", "--calibrate", black), "--least-agreement", "got 0.")
    assert [p.name for p in tmp_path.iterdir()] == ["black.tif"]


def test_an_interruption_leaves_nothing(monkeypatch, tmp_path, source, scene):
    def stop(*_):
        assert (tmp_path / "o.onnx.partial").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(reducing, "judge", stop)
    with pytest.raises(KeyboardInterrupt):
        reduce_onnx(source, "fp16", Evidence(scene, None, ()), Limits(), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(monkeypatch, tmp_path, source, scene):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reducing.onnx, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        reduce_onnx(source, "fp16", Evidence(scene, None, ()), Limits(), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []


def test_damaged_pixels_are_not_taken_for_a_full_disk(tmp_path, source, scene):
    """Also where ONNX Runtime asks for them."""

    class Damaged:
        info = scene.info

        def read(self, window):
            raise DamageError(f"damaged at {window}")

    evidence = Evidence(scene, None, (Damaged(),))
    with pytest.raises(DamageError, match="damaged at"):
        reduce_onnx(source, "int8", evidence, Limits(), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_be_quantised_is_one_line(monkeypatch, tmp_path, source, scene):
    def fails(*_, **__):
        raise ValueError("no such\ntensor")

    monkeypatch.setattr(quantizing, "quantize_static", fails)
    with pytest.raises(InputError, match=r"cannot quantise .*no such tensor; use --precision fp16"):
        reduce_onnx(source, "int8", Evidence(scene, None, (scene,)), Limits(), tmp_path / "o.onnx")


def test_bad_usage_is_one_line(capsys, tmp_path):
    out = tmp_path / "o.onnx"
    refused(capsys, main, [NET, out, "--raster", SCENE], "checkpoint folder", "--precision fp32")
    refused(capsys, main, [NET, out, "--raster", SCENE, "--labels", LABELS], "--labels", "fp32")
    refused(capsys, main, reduce_to(out, "--calibrate", SCENE, wanted="fp16"), "--calibrate", "int8")
    refused(capsys, main, reduce_to(out, "--most-loss", "1"), "--labels")
    refused(capsys, main, reduce_to(out, "--least-agreement", "99.9"), "--least-agreement")
    refused(capsys, main, reduce_to(out, wanted="int4"), "--precision")
    refused(capsys, main, reduce_to(NET), "OUT is another file than SOURCE")
    refused(capsys, main, reduce_to(out, net=tmp_path / "none.onnx"), "none.onnx")
    refused(capsys, main, reduce_to(out, net=SCENE), "a model is an ONNX file")
    assert list(tmp_path.iterdir()) == []


def test_bad_rasters_are_one_line(capsys, tmp_path):
    out = tmp_path / "out" / "o.onnx"
    out.parent.mkdir()
    empty = write(tmp_path / "empty.tif", np.zeros((3, 600, 600), np.uint8), nodata=0, **PLACE)
    one_band = write(tmp_path / "one.tif", np.zeros((1, 600, 600), np.uint8), **PLACE)
    refused(capsys, main, reduce_to(out, raster=tmp_path / "none.tif"), "none.tif")
    refused(capsys, main, reduce_to(out, "--calibrate", tmp_path / "none.tif"), "none.tif")
    refused(capsys, main, reduce_to(out, raster=empty), "got none in", "empty.tif")
    refused(capsys, main, reduce_to(out, "--calibrate", empty), "got none in", "empty.tif")
    refused(capsys, main, reduce_to(out, raster=one_band), "3 bands", "got 1")
    refused(capsys, main, reduce_to(out, "--calibrate", one_band), "3 bands", "got 1")
    refused(capsys, main, reduce_to(out, "--labels", SCENE), "labels have one band")
    assert list(out.parent.iterdir()) == []


def test_only_a_network_that_describes_itself_is_reduced(capsys, tmp_path, reduced):
    model, dumb = onnx.load(NET), tmp_path / "dumb.onnx"
    onnx.helper.set_model_props(model, {})
    onnx.save(model, dumb)
    out = tmp_path / "o.onnx"
    refused(capsys, main, reduce_to(out, net=dumb), METADATA_KEY, "from its checkpoint")
    refused(capsys, main, reduce_to(out, net=reduced["int8"]), "is fp32, got int8")
    refused(capsys, main, reduce_to(out, net=reduced["fp16"]), "is fp32, got fp16")
    assert not out.exists()


def test_a_missing_module_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    for name in ("export.reduce", "export.quantize", "export.calibration"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    refused(capsys, main, reduce_to(tmp_path / "o.onnx"), "onnxruntime.quantization", "pip install", code=3)
    monkeypatch.undo()
    importlib.import_module("export.reduce")


def test_an_onnx_file_is_reduced_without_torch(tmp_path):
    """Who only has the file need not install what trained it."""
    import subprocess

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from export.cli import main\nfrom tiler.cli.main import run_command\n"
        f"sys.exit(run_command(main, {[*map(str, reduce_to(tmp_path / 'o.onnx', wanted='fp16'))]}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

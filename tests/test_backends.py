"""Where networks run: OpenVINO, and the CUDA path with tensors on the CPU standing in for a card's."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import rasterio
from affine import Affine
from onnx import helper

import networks
from rasters import write_raster
from refusals import refused
from tiler.backends import cuda, openvino
from tiler.backends.cpu import CpuSession
from tiler.backends.cuda import CudaSession, Lane, card_names
from tiler.backends.onnx import load_model
from tiler.backends.runtime import RUNTIME_ERRORS
from tiler.cli.main import run_command, tiler
from tiler.demo import MODEL, SCENE
from tiler.device import Device
from tiler.errors import InputError, MissingError, UsageError
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.options import RunOptions
from tiler.pixels import normalise
from tiler.run import segment

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")
WHOLE, TILE, START, HALO = 640, 352, 160, 96


@pytest.fixture(name="pixels_NCHW")
def real_pixels():
    """Real pixels, as the demo's network is fed them."""
    raw_CHW = open_raster(SCENE).read(Window(100, 100, 100 + WHOLE, 100 + WHOLE)).raw_CHW
    return normalise(raw_CHW, load_model(MODEL, RunOptions(device="cpu")).spec)[None]


@pytest.fixture
def place(tmp_path):
    """A scene, a network and a command."""
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(1, 255, (3, 200, 230), np.uint8)
    transform = Affine(1, 0, 9, 0, -1, 9)
    write_raster(tmp_path / "scene.tif", raw_CHW, crs="EPSG:32633", transform=transform)
    networks.unet(tmp_path / "net.onnx")
    return tmp_path


def arguments(place, *more):
    names = ("scene.tif", "net.onnx", "out.tif")
    return ["segment", *(str(place / name) for name in names), "--tile", "96", "--quiet", *more]


def on(device):
    try:
        return load_model(MODEL, RunOptions(device=device))
    except MissingError:
        pytest.skip(f"this processor has no {device}")


# Names of devices


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:0,", "cuda:1,1", "openvino:x", "cpu:0"])
def test_an_unknown_device(name):
    with pytest.raises(UsageError, match="device is auto, cpu"):
        RunOptions(device=name)


def test_a_device_by_name():
    assert Device.parse("cuda").cards == (0,)
    assert Device.parse("cuda:2,0").cards == (2, 0)


# OpenVINO


@needs_openvino
@pytest.mark.parametrize("device", ["openvino", "openvino:bf16"])
def test_openvino_tiles_equal_the_whole(pixels_NCHW, device):
    """Within a hundred-thousandth of the scores' deviation; bit by bit where it was measured."""
    model = on(device)
    whole_NKHW = model.backend.predict(pixels_NCHW)
    stop = START + TILE
    tile_NKHW = model.backend.predict(np.ascontiguousarray(pixels_NCHW[..., START:stop, START:stop]))
    inner, core = slice(HALO, TILE - HALO), slice(START + HALO, stop - HALO)
    error = np.abs(tile_NKHW[..., inner, inner] - whole_NKHW[..., core, core]).max()
    assert error <= 1e-5 * whole_NKHW.std()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of memory")
def test_memory_is_taken_at_once_and_given_back():
    """A region that nobody has touched costs next to nothing, one that was used is returned."""
    code = """
import numpy as np
from tiler import memory
from tiler.backends.onnx import load_model
from tiler.demo import MODEL
backend = load_model(MODEL).backend
tile_NCHW = np.zeros((1, 3, 1024, 1024), np.float32)
backend.predict(tile_NCHW[..., :64, :64])
before = memory.resident()
backend.reserve(800_000_000, 1)
reserved = memory.resident() - before
backend.predict(tile_NCHW)
used = memory.resident() - before
backend.release()
print(reserved, used, memory.resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    reserved, used, left = map(int, done.stdout.split())
    assert reserved < 50_000_000
    assert used > 150_000_000
    assert left < 50_000_000
    assert not done.stderr


def test_a_call_per_thread_gives_the_bytes_of_one_call_on_all(place):
    """Also of calls that are under way at the same time."""
    backend = load_model(place / "net.onnx", RunOptions(threads=2, device="cpu")).backend
    rng = np.random.default_rng(0)
    tiles = [rng.normal(size=(1, 3, side, 64)).astype(np.float32) for side in (64, 128, 192, 64, 256)]
    expected = [backend.predict(tile) for tile in tiles]
    assert (backend.workers, backend.most_workers) == (1, 2)
    backend.reserve(10_000_000, 2)
    assert backend.workers == 2
    with ThreadPoolExecutor(2) as pool:
        for scores, found in zip(expected, pool.map(backend.predict, tiles), strict=True):
            np.testing.assert_array_equal(scores, found)
    backend.release()
    assert backend.workers == 1


def test_no_more_calls_at_once_than_threads(place):
    """A run that was planned elsewhere may ask for more."""
    backend = load_model(place / "net.onnx", RunOptions(threads=1, device="cpu")).backend
    backend.reserve(10_000_000, 4)
    assert backend.workers == 1


def test_no_room_for_a_network_of_one_thread_is_want_of_memory():
    """So the run goes on with one call at a time."""

    def lane():
        raise RUNTIME_ERRORS[0]("bad allocation")

    session = CpuSession(None, "pixels", lane, most_workers=2)
    with pytest.raises(MemoryError, match="a second time: bad allocation"):
        session.reserve(1000, 2)
    session.reserve(1000, 1)
    assert session.workers == 1


def test_more_memory_than_there_is_cannot_be_reserved(pixels_NCHW):
    """The network runs all the same."""
    backend = on("cpu").backend
    before_NKHW = backend.predict(pixels_NCHW)
    backend.reserve(1 << 60, 1)
    assert np.array_equal(backend.predict(pixels_NCHW), before_NKHW)


@needs_openvino
@pytest.mark.parametrize("device", ["openvino", "openvino:bf16"])
def test_openvino_repeats_itself(pixels_NCHW, device):
    """Batches, calls, threads and released memory change no byte; results do not share memory."""
    tiles_NCHW = np.concatenate([pixels_NCHW[..., :128, :128], pixels_NCHW[..., 128:256, :128]])
    backend = on(device).backend
    both_NKHW = backend.predict(tiles_NCHW)
    kept_NKHW = both_NKHW.copy()
    for n in (0, 1):
        assert np.array_equal(backend.predict(tiles_NCHW[n : n + 1])[0], both_NKHW[n])
    backend.release()
    assert np.array_equal(backend.predict(tiles_NCHW), both_NKHW)
    single = load_model(MODEL, RunOptions(device=device, threads=1)).backend
    assert np.array_equal(single.predict(tiles_NCHW), kept_NKHW)
    assert np.array_equal(both_NKHW, kept_NKHW)


@needs_openvino
def test_openvino_agrees_with_onnx_runtime(pixels_NCHW):
    """To rounding; in bfloat16 it says the same of nearly every pixel."""
    cpu_NKHW = on("cpu").backend.predict(pixels_NCHW)
    assert np.abs(on("openvino").backend.predict(pixels_NCHW) - cpu_NKHW).max() <= 1e-4 * cpu_NKHW.std()
    rough_NKHW = on("openvino:bf16").backend.predict(pixels_NCHW)
    assert (rough_NKHW.argmax(axis=1) == cpu_NKHW.argmax(axis=1)).mean() >= 0.999


@needs_openvino
def test_openvino_is_well_after_a_failure(pixels_NCHW):
    """A shape that the network does not take is one line, and the next batch is computed."""
    backend = on("openvino").backend
    before_NKHW = backend.predict(pixels_NCHW[..., :64, :64])
    with pytest.raises(InputError, match="1x3x65x65") as caught:
        backend.predict(pixels_NCHW[..., :65, :65])
    assert "\n" not in str(caught.value)
    assert np.array_equal(backend.predict(pixels_NCHW[..., :64, :64]), before_NKHW)


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_without_memory(threads):
    """Really without: a MemoryError in one line, even where OpenVINO says nothing; then all is well."""
    code = f"""
import resource, psutil, numpy as np
from tiler.backends.onnx import load_model
from tiler.demo import MODEL
from tiler.options import RunOptions
backend = load_model(MODEL, RunOptions(device="openvino", threads={threads})).backend
small = np.random.default_rng(0).random((1, 3, 256, 256), np.float32)
before = backend.predict(small)
large = np.zeros((1, 3, 2048, 2048), np.float32)
none, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 200_000_000, most))
try:
    backend.predict(large)
except MemoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (none, most))
backend.release()
print(np.array_equal(backend.predict(small), before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "no memory for the network on a batch of 1x3x2048x2048\nTrue\n", done.stderr


@needs_openvino
@pytest.mark.parametrize(
    ("kind", "shape"),
    [("FLOAT", [2, 3, 64, 64]), ("FLOAT16", ["n", 3, "h", "w"]), ("FLOAT", ["n", 3, "h", "w"])],
)
def test_openvino_takes_what_onnx_runtime_takes(tmp_path, kind, shape):
    """Fixed shapes, halves."""
    bands = networks.spec(3)
    path = tmp_path / "net.onnx"
    if kind == "FLOAT16":
        nodes = [
            networks.helper.make_node("Cast", ["x"], ["f"], to=networks.TensorProto.FLOAT),
            networks.helper.make_node("Conv", ["f", "w"], ["y"]),
        ]
        weights = {"w": np.ones((2, 3, 1, 1), np.float32)}
        networks.save(path, nodes, weights, model_spec=bands, kind=networks.TensorProto.FLOAT16)
    else:
        networks.pixelwise(path, dims=shape)
    models = [load_model(path, RunOptions(device=device)) for device in ("cpu", "openvino")]
    tiles_NCHW = np.random.default_rng(0).random((3, 3, 64, 64)).astype(models[0].dtype)
    first, second = (model.backend.predict(tiles_NCHW) for model in models)
    assert second.dtype == np.float32
    assert models[0].shape == models[1].shape
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


@needs_openvino
def test_openvino_is_in_the_fingerprint(place, capsys):
    """A run that was begun elsewhere is not carried on; threads and batch change no byte."""
    assert run_command(tiler, arguments(place, "--device", "openvino")) == 0
    content = (place / "out.tif").read_bytes()
    device = json.loads((place / "out.report.json").read_text())["fingerprint"]["device"]
    assert device["provider"].startswith("OpenVINO 20")
    assert "f32" in device["provider"]
    refused(capsys, tiler, arguments(place, "--device", "cpu"), "OpenVINO", "overwrite")
    more = ("--device", "openvino", "--threads", "1", "--batch", "3", "--overwrite")
    assert run_command(tiler, arguments(place, *more)) == 0
    assert (place / "out.tif").read_bytes() == content


@needs_openvino
def test_openvino_tells_nobody(monkeypatch):
    """Its import reports itself where this package is there; ours does not let it."""
    monkeypatch.setitem(sys.modules, openvino.TELEMETRY, sys)
    with openvino._unreported(), pytest.raises(ImportError):
        importlib.import_module(openvino.TELEMETRY)
    assert sys.modules[openvino.TELEMETRY] is sys


def test_openvino_that_is_not_there(place, capsys, monkeypatch):
    monkeypatch.setattr(openvino, "find_spec", lambda _: None)
    refused(
        capsys, tiler, arguments(place, "--device", "openvino"), "gigatiler[openvino]", "--device cpu", code=3
    )
    assert run_command(tiler, ["doctor"]) == 0
    assert "gigatiler[openvino]" in capsys.readouterr().out


@needs_openvino
def test_a_processor_without_bfloat16(place, capsys, monkeypatch):
    """OpenVINO would go on in float32, silently."""
    monkeypatch.setattr(openvino, "precisions", lambda _: ["FP32"])
    more = ("--device", "openvino:bf16")
    refused(capsys, tiler, arguments(place, *more), "bf16", "FP32", "--device openvino", code=3)


def test_halves_on_a_cpu_are_noted(tmp_path, capsys):
    """Once, where a run says what it runs on; it is no part of the device that the bytes depend on."""
    halve = pytest.importorskip("export.half").halve
    halve(MODEL, tmp_path / "half.onnx")
    device = load_model(tmp_path / "half.onnx", RunOptions(device="cpu")).device
    assert device.partition(",")[0] == "CPU"
    assert device.endswith("fp16 computed as fp32, no faster")
    assert "fp16" not in load_model(MODEL, RunOptions(device="cpu")).device


# CUDA


def stand_in(path, lanes=2):
    """The CUDA path in a real ONNX Runtime, with tensors on the CPU bound as a card's would be."""
    model = load_model(path, RunOptions(device="cpu"))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    bound = CudaSession([Lane(session, "cpu", 0) for _ in range(lanes)])
    return replace(model, backend=replace(model.backend, session=bound)), bound


def test_bound_tensors_give_the_same_scores(place):
    """Of batches of several shapes in turn; a result is not overwritten by the next one."""
    model, _ = stand_in(place / "net.onnx", lanes=1)
    plain = load_model(place / "net.onnx", RunOptions(device="cpu")).backend
    rng = np.random.default_rng(0)
    batches = [rng.random((count, 3, 64, 64), np.float32) for count in (2, 2, 1, 2)]
    results = [model.backend.predict(batch_NCHW) for batch_NCHW in batches]
    for batch_NCHW, scores_NKHW in zip(batches, results, strict=True):
        # On a CPU sums are rounded in another order: see `tiler.backends.concat`.
        assert np.abs(scores_NKHW - plain.predict(batch_NCHW)).max() < 1e-6
    model.backend.release()
    assert np.array_equal(model.backend.predict(batches[0]), results[0])


@pytest.mark.parametrize(("kind", "dtype"), [("FLOAT16", np.float16), ("UINT8", np.uint8)])
def test_bound_tensors_of_other_types(tmp_path, kind, dtype):
    """Halves and raw pixels, and an array that is part of another."""
    nodes = [
        networks.helper.make_node("Cast", ["x"], ["f"], to=networks.TensorProto.FLOAT),
        networks.helper.make_node("Conv", ["f", "w"], ["y"]),
    ]
    weights = {"w": np.ones((2, 3, 1, 1), np.float32)}
    element = getattr(networks.TensorProto, kind)
    path = networks.save(tmp_path / "net.onnx", nodes, weights, model_spec=networks.spec(3), kind=element)
    model, _ = stand_in(path)
    pixels_NCHW = np.random.default_rng(0).integers(0, 255, (1, 3, 80, 80)).astype(dtype)[..., 8:72, 8:72]
    plain = load_model(path, RunOptions(device="cpu")).backend.predict(np.ascontiguousarray(pixels_NCHW))
    assert np.array_equal(model.backend.predict(pixels_NCHW), plain)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_change_no_byte(place, lanes):
    """One network in several threads, against the plain path."""
    options = RunOptions(tile=96, batch=1, device="cpu")
    segment(place / "scene.tif", place / "net.onnx", place / "plain.tif", options)
    model, bound = stand_in(place / "net.onnx", lanes)
    report = segment(place / "scene.tif", model, place / "bound.tif", options)
    assert report.tiles_computed > 5
    assert bound.free.qsize() == lanes
    assert (place / "bound.tif").read_bytes() == (place / "plain.tif").read_bytes()


def test_lanes_run_at_once_and_in_turn():
    """All of them are busy, none is used twice at once, and results come in the order of the tiles."""
    together, used = threading.Barrier(3, timeout=20), []

    class Slow(Lane):
        def run(self, batch_NCHW, settings=None):
            used.append(self.number)
            together.wait()
            return batch_NCHW

    bound = CudaSession([Slow(None, "cpu", n) for n in range(3)])
    from tiler.flow import prefetch

    assert list(prefetch(bound.run, range(9), bound.workers, bound.workers)) == list(range(9))
    assert all(set(used[i : i + 3]) == {0, 1, 2} for i in (0, 3, 6))


def test_a_bound_network_that_fails(place):
    """One line; the lane is free again, and the next batch is computed."""
    model, bound = stand_in(place / "net.onnx")
    with pytest.raises(InputError, match="1x3x63x63") as caught:
        model.backend.predict(np.zeros((1, 3, 63, 63), np.float32))
    assert "\n" not in str(caught.value)
    assert bound.free.qsize() == 2
    assert model.backend.predict(np.zeros((1, 3, 64, 64), np.float32)).shape == (1, 2, 64, 64)


def test_no_memory_on_a_card(place, monkeypatch):
    """As ONNX Runtime words it where a tensor is made outside a run."""
    model, _ = stand_in(place / "net.onnx")

    def full(*_):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 99")

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", full)
    with pytest.raises(MemoryError, match="1x3x64x64"):
        model.backend.predict(np.zeros((1, 3, 64, 64), np.float32))


class Driver:
    """NVIDIA's driver with these cards."""

    def __init__(self, *names: bytes) -> None:
        self.names = names

    def cuInit(self, _):  # noqa: N802 - NVIDIA's names
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGetName(self, name, _, number):  # noqa: N802
        name.value = self.names[number]
        return 0


@pytest.fixture
def two_cards(monkeypatch):
    """A machine with two cards, and an ONNX Runtime built for them, but none of CUDA's libraries."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: Driver(b"H200", b"H200"))
    monkeypatch.setattr(ort, "get_available_providers", lambda: [cuda.PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)


def test_cards_have_names(two_cards):
    assert card_names() == ("H200", "H200")


@pytest.mark.parametrize("number", ["2", "0,5"])
def test_a_card_that_is_not_there(place, capsys, two_cards, number):
    command = arguments(place, "--device", f"cuda:{number}")
    refused(capsys, tiler, command, f"cuda:{number}", "0 (H200), 1 (H200)", code=3)


def test_cards_of_two_models(place, capsys, monkeypatch, two_cards):
    monkeypatch.setattr(cuda, "card_names", lambda: ("H200", "T4"))
    refused(capsys, tiler, arguments(place, "--device", "cuda:0,1"), "H200 and T4", "cuda:0,1")


def test_cuda_that_falls_back_is_refused(place, capsys, monkeypatch, two_cards):
    """ONNX Runtime begins with the CPU where a library is missing: an error for cuda, the CPU for auto."""
    real = ort.InferenceSession

    def fallen(content, settings=None, providers=(), **more):
        assert providers[-1] == "CPUExecutionProvider"
        assert len(providers) == 1 or more == {"enable_fallback": 0}
        return real(content, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", fallen)
    refused(capsys, tiler, arguments(place, "--device", "cuda"), "gigatiler[cuda]", code=3)
    assert run_command(tiler, arguments(place)) == 0


def test_several_cards_from_the_command_line(place, monkeypatch, two_cards):
    """The whole path, cards apart: sessions per card, dealt in order, the plain bytes, one device."""
    assert run_command(tiler, arguments(place, "--device", "cpu")) == 0
    content = (place / "out.tif").read_bytes()
    made = []

    def on_card(network, settings, number):
        made.append(number)
        return ort.InferenceSession(network, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(cuda, "_on_card", on_card)
    monkeypatch.setattr(cuda, "Lane", lambda session, _, number: Lane(session, "cpu", 0 * number))
    for device in ("cuda:1", "cuda:0,1"):
        assert run_command(tiler, arguments(place, "--device", device, "--overwrite")) == 0
        assert (place / "out.tif").read_bytes() == content
        report = json.loads((place / "out.report.json").read_text())
        provider = report["fingerprint"]["device"]["provider"]
        assert provider == f"CUDA (ONNX Runtime {ort.__version__})"
    assert report["model"]["device"].endswith(", cards 0, 1")
    assert made == [1, 0, 1]
    with rasterio.open(place / "out.tif") as dataset:
        assert dataset.shape == (200, 230)


# A real card


@pytest.fixture
def card():
    """The demo's network on the first card."""
    if not card_names():
        pytest.skip("needs an NVIDIA card")
    return load_model(MODEL, RunOptions(device="cuda"))


@pytest.mark.cuda
def test_cuda_tiles_equal_the_whole(pixels_NCHW, card):
    """Within a hundred-thousandth of the scores' deviation."""
    whole_NKHW = card.backend.predict(pixels_NCHW)
    stop = START + TILE
    tile_NKHW = card.backend.predict(np.ascontiguousarray(pixels_NCHW[..., START:stop, START:stop]))
    inner, core = slice(HALO, TILE - HALO), slice(START + HALO, stop - HALO)
    error = np.abs(tile_NKHW[..., inner, inner] - whole_NKHW[..., core, core]).max()
    assert error <= 1e-5 * whole_NKHW.std()


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu(pixels_NCHW, card):
    """To rounding."""
    cpu_NKHW = on("cpu").backend.predict(pixels_NCHW)
    assert np.abs(card.backend.predict(pixels_NCHW) - cpu_NKHW).max() <= 1e-4 * cpu_NKHW.std()


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:all"])
def test_cuda_repeats_itself(tmp_path, card, device):
    """Batches, two of them at once, and several cards if there are: one file."""
    if device == "cuda:all":
        if len(card_names()) < 2:
            pytest.skip("needs two cards")
        device = "cuda:" + ",".join(map(str, range(len(card_names()))))
    contents = set()
    for name, batch in ((device, 1), (device, 3), (device, 4), ("cuda", 1)):
        options = RunOptions(
            device=name, batch=batch, tile=512, resolution="native", output="probabilities", overwrite=True
        )
        report = segment(SCENE, MODEL, tmp_path / "out.tif", options)
        assert report.model["device"].startswith("CUDA")
        contents.add((tmp_path / "out.tif").read_bytes())
    assert len(contents) == 1


@pytest.mark.cuda
def test_cuda_gives_memory_back(pixels_NCHW, card):
    """And is ready for the next batch, after a failure too."""
    before_NKHW = card.backend.predict(pixels_NCHW)
    card.backend.release()
    with pytest.raises(InputError, match="1x3x65x65"):
        card.backend.predict(np.zeros((1, 3, 65, 65), np.float32))
    assert np.array_equal(card.backend.predict(pixels_NCHW), before_NKHW)


@pytest.mark.cuda
def test_no_card_99(card):
    with pytest.raises(MissingError, match="cuda:99"):
        load_model(MODEL, RunOptions(device="cuda:99"))


# Sizes


def test_what_is_smaller_than_a_reflection_reaches_is_refused_in_words(tmp_path, capsys):
    """A map of one pixel has nothing to reflect, whatever library runs it; two strides are the least."""
    pads, scales = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([1, 1, 8, 8], np.float32)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Pad", ["small", "pads"], ["wide"], mode="reflect"),
        helper.make_node("Conv", ["wide", "w"], ["scores"]),
        helper.make_node("Resize", ["scores", "", "scales"], ["y"], mode="nearest"),
    ]
    weights = {"pads": pads, "scales": scales, "w": np.ones((2, 3, 3, 3), np.float32)}
    told = networks.spec(stride=8, halo=16)
    model = networks.save(tmp_path / "net.onnx", nodes, weights, model_spec=told)
    for side in (8, 9):
        raw_CHW = np.full((3, side, 30), 7, np.uint8)
        write_raster(tmp_path / f"{side}.tif", raw_CHW, transform=Affine(1, 0, 9, 0, -1, 9))
    segment(tmp_path / "9.tif", model, tmp_path / "map.tif", RunOptions(device="cpu"))
    command = ["segment", tmp_path / "8.tif", model, tmp_path / "out.tif", "--device", "cpu", "--quiet"]
    refused(capsys, tiler, command, "sides of at least 16 px, got a tile of 32 x 8; raise --tile, or map a")

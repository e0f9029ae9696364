"""Bad input: one line on stderr, the right exit code, nothing left behind."""

from __future__ import annotations

import http.server
import os
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from affine import Affine
from onnx import TensorProto, helper

import networks
import refusals
from conftest import DATA
from rasters import write_raster
from tiler.cli.main import run_command, tiler

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a good raster and a good model."""
    write_raster(tmp_path / "good.tif", np.full((3, 40, 50), 100, np.uint8))
    networks.pixelwise(tmp_path / "good.onnx")
    return tmp_path


def refused(capsys, folder: Path, arguments, *words, code=2) -> None:
    """Refused in one line, and no file was added or changed but, if found while reading (1), its run's."""
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    refusals.refused(capsys, tiler, arguments, *words, code=code)
    if code == 1:
        shutil.rmtree(folder / "out.tif.run")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def segment(place, source="good.tif", model="good.onnx", output="out.tif", *more):
    """The arguments of a run in ``place``."""
    return ["segment", place / source, place / model, place / output, *more]


def test_the_good_pair_is_good(place):
    """Else every refusal below might have another cause."""
    assert run_command(tiler, [str(a) for a in segment(place)]) == 0


def test_missing_source(place, capsys):
    refused(capsys, place, segment(place, "none.tif"), "no such file", "none.tif")


def test_missing_source_and_an_output_that_exists(place, capsys):
    (place / "old.tif").write_text("precious")
    refused(capsys, place, segment(place, "none.tif", "good.onnx", "old.tif"), "--overwrite")


def test_directory_as_source(place, capsys):
    (place / "folder").mkdir()
    refused(capsys, place, segment(place, "folder"), "got a directory")


def test_truncated_tiff(place, capsys):
    content = (place / "good.tif").read_bytes()
    (place / "cut.tif").write_bytes(content[:100])
    refused(capsys, place, segment(place, "cut.tif"), "cut.tif")


def test_text_named_tif(place, capsys):
    (place / "text.tif").write_text("not a raster\n")
    refused(capsys, place, segment(place, "text.tif"), "cannot open", "text.tif")


def test_empty_tif(place, capsys):
    (place / "empty.tif").touch()
    refused(capsys, place, segment(place, "empty.tif"), "cannot open", "empty.tif")


class Visits(http.server.BaseHTTPRequestHandler):
    """Counts requests."""

    seen: list[str] = []  # noqa: RUF012 - shared on purpose

    def do_GET(self):
        self.seen.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize("flag", [[], ["--allow-vrt"]])
@pytest.mark.parametrize("name", ["trap.tif", "trap.vrt"])
def test_a_vrt_that_points_at_an_address_fetches_nothing(place, capsys, name, flag):
    """Whatever it is called, and even where VRT is allowed."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Visits)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/x.tif"
        (place / name).write_text(
            f'<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
            f"<SimpleSource><SourceFilename>/vsicurl/{address}</SourceFilename><SourceBand>1</SourceBand>"
            f"</SimpleSource></VRTRasterBand></VRTDataset>"
        )
        refused(capsys, place, segment(place, name, "good.onnx", "out.tif", *flag), name)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert Visits.seen == []


def test_wms_description_named_tif(place, capsys):
    (place / "wms.tif").write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>'
    )
    refused(capsys, place, segment(place, "wms.tif"), "cannot open")


def test_wrong_band_count(place, capsys):
    write_raster(place / "four.tif", np.zeros((4, 8, 8), np.uint8), photometric="MINISBLACK")
    refused(capsys, place, segment(place, "four.tif"), "3 bands", "got 4", "--bands 1,2,3")


def test_band_that_is_not_there(place, capsys):
    refused(
        capsys, place, segment(place, "good.tif", "good.onnx", "out.tif", "--bands", "1,2,9"), "bands 1 to 3"
    )


def test_dtype_that_is_not_supported(place, capsys):
    write_raster(place / "double.tif", np.zeros((3, 8, 8), np.float64))
    refused(capsys, place, segment(place, "double.tif"), "float64")


def test_too_wide_pixels_for_an_integer_network(place, capsys):
    networks.pixelwise(place / "bytes.onnx", kind=TensorProto.FLOAT)
    write_raster(place / "wide.tif", np.zeros((3, 8, 8), np.uint16))
    byte_network(place / "bytes.onnx")
    refused(capsys, place, segment(place, "wide.tif", "bytes.onnx"), "uint8", "uint16")


def byte_network(path: Path) -> Path:
    """A network that takes uint8."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["f", "w"], ["y"]),
    ]
    weights = {"w": np.ones((2, 3, 1, 1), np.float32)}
    return networks.save(path, nodes, weights, kind=TensorProto.UINT8, model_spec=networks.spec(scale=()))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["ONNX", "0 bytes"]),
        (b"\x08\x08\x12\x04garbage that is no protobuf", ["ONNX"]),
        (pickle.dumps({"weights": [1, 2, 3]}), ["ONNX"]),
        (b"PK\x03\x04 a zip file", ["ONNX"]),
    ],
    ids=["empty", "garbage", "pickle", "zip"],
)
def test_a_model_that_is_not_onnx(place, capsys, content, words):
    (place / "bad.onnx").write_bytes(content)
    refused(capsys, place, segment(place, "good.tif", "bad.onnx"), "bad.onnx", *words)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model(place, capsys, share):
    content = networks.unet(place / "unet.onnx").read_bytes()
    (place / "cut.onnx").write_bytes(content[: int(len(content) * share)])
    refused(capsys, place, segment(place, "good.tif", "cut.onnx"), "cut.onnx")


def test_a_missing_model(place, capsys):
    refused(capsys, place, segment(place, "good.tif", "none.onnx"), "no such model file")


def test_two_inputs(place, capsys):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        "two",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 8]) for n in "xz"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        place / "two.onnx",
    )
    refused(capsys, place, segment(place, "good.tif", "two.onnx"), "one input, got 2", "x, z")


@pytest.mark.parametrize("dims", [[3, 8], ["n", 3, 8], ["n", 3, 4, 8, 8]])
def test_wrong_rank(place, capsys, dims):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    networks.save(place / "rank.onnx", nodes, {}, dims=dims, out=dims)
    refused(capsys, place, segment(place, "good.tif", "rank.onnx"), f"got {len(dims)} axes")


def test_wrong_input_type(place, capsys):
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    networks.save(place / "int.onnx", nodes, {}, kind=TensorProto.INT64)
    refused(capsys, place, segment(place, "good.tif", "int.onnx"), "got int64")


@pytest.mark.parametrize(
    "location", ["w.bin", "../w.bin", "/etc/hostname", "link.bin", "hard.bin", "none.bin"]
)
def test_external_weights(place, capsys, location):
    """Beside the model, above it, anywhere, through links: one file is one network."""
    networks.unet(place / "inside.onnx")
    proto = onnx.load(place / "inside.onnx")
    onnx.save(proto, place / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (place / "link.bin").symlink_to(place / "w.bin")
    os.link(place / "w.bin", place / "hard.bin")
    (place.parent / "w.bin").write_bytes((place / "w.bin").read_bytes())
    proto = onnx.load(place / "outside.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    (place / "outside.onnx").write_bytes(proto.SerializeToString())
    refused(capsys, place, segment(place, "good.tif", "outside.onnx"), "external data")


def test_custom_operators(place, capsys):
    networks.save(place / "custom.onnx", [helper.make_node("Evil", ["x"], ["y"], domain="x.y")], {})
    refused(capsys, place, segment(place, "good.tif", "custom.onnx"), "custom.onnx")


def test_a_model_that_says_nothing_is_asked_by_name(place, capsys):
    """But for the stride, which the graph shows if it can be followed."""
    networks.unet(place / "mute.onnx", model_spec=None)
    refused(capsys, place, segment(place, "good.tif", "mute.onnx"), "--scale", "--activation")


def test_class_names_that_do_not_fit(place, capsys):
    command = segment(place, "good.tif", "good.onnx", "out.tif", "--classes", "a,b,c")
    refused(capsys, place, command, "2 classes, got 3", "--classes")


def test_output_folder_that_does_not_exist(place, capsys):
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "none/out.tif"), "does not exist", "none")


def test_read_only_output_folder(place, capsys):
    """/sys is read-only for root too."""
    folder = place / "locked"
    folder.mkdir()
    if os.geteuid() == 0:
        folder = Path("/sys")
    else:
        folder.chmod(0o555)
    refused(
        capsys,
        place,
        ["segment", place / "good.tif", place / "good.onnx", folder / "out.tif"],
        "cannot write to",
    )
    if folder.parent == place:
        folder.chmod(0o755)


def test_output_that_is_a_directory(place, capsys):
    (place / "dir.tif").mkdir()
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "dir.tif"), "got a directory")


def test_output_that_is_no_tiff(place, capsys):
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "out.png"), "ends in .tif")


@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
def test_output_that_equals_the_input(place, capsys, flag):
    """Also through a link, and also with --overwrite."""
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "good.tif", *flag), "replace the input")
    (place / "link.tif").symlink_to(place / "good.tif")
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "link.tif", *flag), "replace the input")


def test_output_that_exists(place, capsys):
    (place / "old.tif").write_text("precious")
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "old.tif"), "--overwrite")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--frobnicate"], ["--frobnicate"]),
        (["--tile", "-8"], ["tile", "-8"]),
        (["--tile", "0"], ["tile", "0"]),
        (["--tile", "x"], ["tile", "x"]),
        (["--tile", "64", "--overlap", "64", "--blend", "hann"], ["overlap", "64"]),
        (["--tile", "16", "--overlap", "20", "--blend", "hann"], ["overlap", "16", "20"]),
        (["--overlap", "8"], ["--overlap", "exact"]),
        (["--batch", "0"], ["batch", "0"]),
        (["--memory", "lots"], ["2GB", "lots"]),
        (["--memory", "10MB"], ["budget", "raise --memory"]),
        (["--device", "tpu"], ["device", "tpu"]),
        (["--resolution", "0"], ["resolution", "0"]),
        (["--resolution", "inf"], ["resolution", "inf"]),
        (["--threads", "100000"], ["threads", "100000"]),
        (["--scale", "nan"], ["scale", "nan"]),
        (["--std", "inf"], ["std", "inf"]),
        (["--resolution", "0.5"], ["resolution", "georeferenced"]),
        (["--activation", "relu"], ["activation", "relu"]),
        (["--threshold", "2"], ["threshold", "2"]),
        (["--scale", "1,2"], ["scale", "2"]),
        (["--scale", "1/0"], ["scale", "1/0"]),
        (["--bands", "0,1,2"], ["bands", "0,1,2"]),
        (["--config", "none.toml"], ["none.toml"]),
    ],
    ids=lambda value: "_".join(value) if value and value[0].startswith("--") else None,
)
def test_bad_options(place, capsys, more, words):
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "out.tif", *more), *words)


def test_configuration_with_an_unknown_key(place, capsys):
    (place / "run.toml").write_text("tilesize = 512\n")
    command = segment(place, "good.tif", "good.onnx", "out.tif", "--config", place / "run.toml")
    refused(capsys, place, command, "tilesize")


def test_a_gpu_that_is_not_there(place, capsys):
    """Never the CPU in silence: exit code 3."""
    from tiler.backends.cuda import card_names

    if card_names():
        pytest.skip("there is an NVIDIA card here")
    command = segment(place, "good.tif", "good.onnx", "out.tif", "--device", "cuda")
    refused(capsys, place, command, "--device cuda", "tiler doctor", code=3)


def test_damaged_pixels_are_found_while_reading(place, capsys):
    """GDAL returns damaged JPEG strips as if nothing were wrong; its log gives it away. Exit code 1."""
    content = bytearray((DATA / "neon_YELL_crop.tiff").read_bytes())
    content[300_000:300_400] = b"\x55" * 400
    (place / "damaged.tiff").write_bytes(content)
    command = segment(place, "damaged.tiff", "good.onnx", "out.tif", "--quiet")
    refused(capsys, place, command, "damaged", "rows", "JPEG", code=1)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_tiff_cut_short_after_its_header(place, capsys, share):
    """A COG has its directory in front: it opens, and fails when the missing tiles are read."""
    rng = np.random.default_rng(0)
    write_raster(place / "plain.tif", rng.integers(0, 255, (3, 600, 600), np.uint8), tiled=True)
    import rasterio.shutil

    rasterio.shutil.copy(place / "plain.tif", place / "cog.tif", driver="COG", blocksize=256)
    content = (place / "cog.tif").read_bytes()
    (place / "cut.tif").write_bytes(content[: int(len(content) * share)])
    command = segment(place, "cut.tif", "good.onnx", "out.tif", "--quiet")
    refused(capsys, place, command, "cut.tif", "damaged", code=1)


@pytest.mark.parametrize("tag", ["SourceFilename", "sourcefilename"])
def test_a_vrt_within_a_vrt(place, capsys, tag):
    """What it names must be a raster, not another description."""
    inside = (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    )
    source = f'<{tag} relativeToVRT="1">{{}}</{tag}><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    (place / "inner.vrt").write_text(f"{inside}{source.format('none.tif')}</VRTDataset>")
    (place / "outer.vrt").write_text(f"{inside}{source.format('inner.vrt')}</VRTDataset>")
    for name, word in (("inner.vrt", "none.tif"), ("outer.vrt", "inner.vrt")):
        refused(capsys, place, segment(place, name, "good.onnx", "out.tif", "--allow-vrt"), word)


@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
def test_an_output_that_is_a_source_of_the_vrt(place, capsys, flag):
    """What is read is never replaced."""
    (place / "part.tif").write_bytes((place / "good.tif").read_bytes())
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}"><SimpleSource><SourceFilename relativeToVRT="1">part.tif'
        f"</SourceFilename><SourceBand>{b}</SourceBand></SimpleSource></VRTRasterBand>"
        for b in (1, 2, 3)
    )
    (place / "scene.vrt").write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    command = segment(place, "scene.vrt", "good.onnx", "part.tif", "--allow-vrt", *flag)
    refused(capsys, place, command, "part.tif")


def test_an_output_folder_whose_name_is_too_long(place, capsys):
    refused(capsys, place, segment(place, "x" * 300, "good.onnx", "out.tif"), "no such file")
    refused(capsys, place, segment(place, "good.tif", "x" * 300, "out.tif"), "no such model")
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "x" * 300 + "/out.tif"), "does not exist")


def test_a_report_that_is_none_of_ours(place, capsys):
    (place / "out.report.json").write_text('{"fingerprint": null, "classes": [], "damaged": []}')
    refused(capsys, place, segment(place), "out.report.json exists; pass --overwrite")


def test_a_network_that_ends_in_argmax(place, capsys):
    """Class numbers are no scores: they can neither be blended nor thresholded."""
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1)
    networks.save(place / "argmax.onnx", [node], {})
    proto = onnx.load(place / "argmax.onnx")
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(proto, place / "argmax.onnx")
    refused(capsys, place, segment(place, "good.tif", "argmax.onnx"), "ArgMax", "int64")


def test_scores_that_are_no_numbers(place, capsys):
    """An overflow in the network is never class 0."""
    nodes = [helper.make_node("Mul", ["x", "big"], ["z"]), helper.make_node("Mul", ["z", "z"], ["y"])]
    weights = {"big": np.float32(1e30)}
    networks.save(
        place / "inf.onnx", nodes, weights, channels=3, model_spec=networks.spec(classes=("a", "b", "c"))
    )
    command = segment(place, "good.tif", "inf.onnx", "out.tif", "--quiet")
    refused(capsys, place, command, "NaN or infinity")


def test_exact_tiles_of_a_fixed_size_need_the_stride(place, capsys):
    """Cores must begin on it, and a fixed size does not tell it."""
    shape = {"dims": [1, 3, 64, 64], "out": [1, 2, 64, 64]}
    networks.centred(place / "fixed.onnx", model_spec=None, **shape)
    command = segment(place, "good.tif", "fixed.onnx", "out.tif", "--scale", "1", "--activation", "logits")
    refused(capsys, place, [*command, "--halo", "24"], "--stride")


def test_a_stride_that_is_not_the_network_s(place, capsys):
    networks.unet(place / "unet.onnx")
    command = segment(place, "good.tif", "unet.onnx", "out.tif", "--stride", "6")
    refused(capsys, place, command, "--stride", "multiple of the network's own, 4", "got 6")


def test_a_network_that_returns_fewer_scores_than_pixels(place, capsys):
    """A convolution without padding."""
    weights = {"w": np.ones((2, 3, 3, 3), np.float32)}
    networks.save(place / "valid.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], weights)
    refused(capsys, place, segment(place, "good.tif", "valid.onnx"), "one score per pixel")


def test_scaling_for_a_network_that_takes_raw_bytes(place, capsys):
    byte_network(place / "bytes.onnx")
    command = segment(place, "good.tif", "bytes.onnx", "out.tif", "--mean", "100")
    refused(capsys, place, command, "raw uint8", "--mean")


def test_a_directory_where_the_report_would_go(place, capsys):
    """Found before the work, not after it."""
    (place / "out.report.json").mkdir()
    refused(capsys, place, segment(place), "got a directory", "out.report.json")


def test_names_that_are_no_text(place, capsys):
    """GDAL takes UTF-8 only; Linux takes any bytes."""
    odd = place / os.fsdecode(b"odd\xff.tif")
    odd.write_bytes((place / "good.tif").read_bytes())
    refused(capsys, place, segment(place, odd.name), "cannot open")
    refused(capsys, place, segment(place, "good.tif", "good.onnx", odd.name), "printable text, got '")


def test_a_name_that_is_too_long(place, capsys):
    refused(capsys, place, segment(place, "good.tif", "good.onnx", "x" * 230 + ".tif"), "at most 200 bytes")


def test_rasters_on_different_grids_are_not_compared(place, capsys):
    for name, east in (("a.tif", 0), ("b.tif", 1000)):
        move = Affine(1, 0, east, 0, -1, 0)
        write_raster(place / name, np.zeros((1, 8, 8), np.uint8), transform=move, crs="EPSG:32633")
    refused(capsys, place, ["compare", place / "a.tif", place / "b.tif"], "one grid")


@pytest.mark.parametrize("line", ["tile = true", "tile = 1979-05-27", "allow_vrt = []", "tile = [1, 2]"])
def test_a_configuration_with_a_value_of_the_wrong_type(place, capsys, line):
    (place / "run.toml").write_text(line)
    command = segment(place, "good.tif", "good.onnx", "out.tif", "--config", place / "run.toml")
    refused(capsys, place, command, line.split()[0], "run.toml")

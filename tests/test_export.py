"""Export: the file describes itself, computes what the network does at any size, or is not written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession

torch = pytest.importorskip("torch")

from export import onnx as exporting  # noqa: E402
from export.cli import main  # noqa: E402
from export.onnx import export_onnx  # noqa: E402
from export.parity import agreement, real_batches  # noqa: E402
from refusals import refused  # noqa: E402
from tiler.cli.main import run_command, tiler  # noqa: E402
from tiler.errors import InputError, OutputError  # noqa: E402
from tiler.finish import Finisher  # noqa: E402
from tiler.open import open_raster  # noqa: E402
from tiler.spec import METADATA_KEY, ModelSpec, default_classes  # noqa: E402
from train.checkpoint import save_checkpoint  # noqa: E402
from train.evaluate import as_function  # noqa: E402
from train.models.options import UPS, UNetOptions  # noqa: E402
from train.models.unet import UNet  # noqa: E402
from training_data import write_pair  # noqa: E402

CPU = torch.device("cpu")


def spec_of(net) -> ModelSpec:
    """As training writes it, for bytes."""
    return ModelSpec(
        bands=("r", "g", "b"),
        classes=default_classes(("background", "building")),
        scale=(1 / 255,) * 3,
        mean=(0.3,) * 3,
        std=(0.2,) * 3,
        stride=net.stride,
        halo=net.halo,
        exact=net.exact,
        attribution="nobody",
    )


def small_net(up="transposed"):
    """Of depth 2, with random weights and with batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = UNet(UNetOptions(3, 2, 2, 4, up))
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 3, 16, 16))
    return net.eval()


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Path of a small real-looking scene."""
    return write_pair(tmp_path_factory.mktemp("data"), 150, 200)[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a network."""
    folder = tmp_path_factory.mktemp("run") / "best"
    save_checkpoint(folder, small_net(), spec_of(small_net()))
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, raster):
    """The file, made by the command line."""
    out = checkpoint.parent / "net.onnx"
    assert run_command(main, [str(checkpoint), str(out), "--raster", str(raster)]) == 0
    return out


def test_the_file_is_valid_and_whole(exported):
    """One file, no weights beside it."""
    onnx.checker.check_model(str(exported), full_check=True)
    assert sorted(p.name for p in exported.parent.iterdir()) == ["best", "net.onnx"]


def test_it_describes_itself(exported):
    model = onnx.load(exported)
    found = {p.key: p.value for p in model.metadata_props}
    assert ModelSpec.from_json(found[METADATA_KEY]) == spec_of(small_net())


@pytest.fixture
def traced(exported, monkeypatch):
    """Tracing takes seconds; where it is not what is tested, the graph is that of the exported file."""
    monkeypatch.setattr(exporting, "trace", lambda _: onnx.load(exported))


def test_its_axes_name_the_stride(exported):
    """Batch, height and width are free; the sides are multiples of 4."""
    shape = InferenceSession(exported, providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    assert shape[0] == "batch"
    assert shape[1] == 3
    assert shape[2] != shape[3]
    assert all(str(side).startswith("4*") for side in shape[2:])


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 3, 8, 40), (2, 3, 12, 12)])
def test_it_computes_what_the_network_does_at_any_size(exported, shape):
    session = InferenceSession(exported, providers=["CPUExecutionProvider"])
    batch_NCHW = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected_NKHW = as_function(small_net(), CPU)(batch_NCHW)
    got_NKHW = session.run(None, {"pixels": batch_NCHW})[0]
    found = agreement(batch_NCHW, expected_NKHW, got_NKHW, Finisher(spec_of(small_net()), 2))
    assert found.difference < 1e-5
    assert found.labels == 1


@pytest.mark.parametrize(("channels", "activation"), [(1, "logits"), (2, "sigmoid"), (2, "logits")])
def test_labels_are_those_of_the_activation(channels, activation):
    """The best of one channel is always the first, so all labels of other networks were said to agree."""
    spec = ModelSpec(bands=("a",), classes=default_classes(("no", "yes")), activation=activation)
    batch_NCHW, expected_NKHW = np.zeros((1, 1, 2, 4), np.float32), np.full((1, channels, 2, 4), 0.75, "f4")
    got_NKHW = expected_NKHW.copy()
    got_NKHW[:, 0, 0] = -0.75
    found = agreement(batch_NCHW, expected_NKHW, got_NKHW, Finisher(spec, channels))
    assert found.labels == (0.5 if activation == "logits" else 0.75)


@pytest.mark.parametrize("up", UPS[1:])
def test_every_way_of_growing_exports_in_silence(up, raster, tmp_path, capfd):
    """The exporter's chatter is held back."""
    net = small_net(up)
    found = export_onnx(net, spec_of(net), open_raster(raster), tmp_path / "net.onnx", 1e-4)
    assert max(a.difference for a in found) < 1e-4
    assert capfd.readouterr() == ("", "")


def test_tiler_finds_nothing_missing_in_it(exported, raster, tmp_path):
    """What this package makes, the engine takes without a further option."""
    out = tmp_path / "out.tif"
    assert run_command(tiler, ["segment", str(raster), str(exported), str(out), "--quiet"]) == 0
    assert out.exists()


# --- parity


def test_parity_is_tried_on_real_pixels_at_sizes_that_were_not_traced(raster):
    net = small_net()
    batches = list(real_batches(open_raster(raster), spec_of(net)))
    sides = {b.shape[2:] for b in batches}
    assert [b.shape[0] for b in batches] == [1, 3, 1]
    assert len(sides) == 3
    assert all(
        side % net.stride == 0 and side != exporting.EXAMPLE_CELLS * net.stride for s in sides for side in s
    )
    assert all(b.std() > 0.1 for b in batches)


def test_a_raster_smaller_than_a_batch_is_mirrored(tmp_path):
    raster = open_raster(write_pair(tmp_path, 20, 24)[0])
    assert len(list(real_batches(raster, spec_of(small_net())))) == 3


def test_agreement_by_hand():
    """A difference of 1 where the logits are 0 and 4, so that their deviation is 2."""
    finisher = Finisher(spec_of(small_net()), 2)
    expected_NKHW = np.array([0.0, 4.0], np.float32).reshape(1, 2, 1, 1)
    found = agreement(expected_NKHW, expected_NKHW, expected_NKHW + np.float32(1), finisher)
    assert (found.difference, found.labels) == (0.5, 1.0)
    assert agreement(expected_NKHW, expected_NKHW, -expected_NKHW, finisher).labels == 0


def test_a_result_that_is_no_number_is_infinitely_wrong():
    values_NKHW = np.ones((1, 2, 1, 1), np.float32)
    finisher = Finisher(spec_of(small_net()), 2)
    assert agreement(values_NKHW, values_NKHW, values_NKHW * np.nan, finisher).difference == float("inf")


def test_a_file_that_differs_is_not_written(traced, raster, tmp_path, monkeypatch):
    """And one that was there before stays as it is."""
    net, out = small_net(), tmp_path / "net.onnx"
    out.write_bytes(b"before")
    monkeypatch.setattr(
        exporting, "as_function", lambda *_: lambda batch: as_function(net, CPU)(batch) + 0.01
    )
    with pytest.raises(InputError, match=r"--tolerance 0\.0001 .*not written"):
        export_onnx(net, spec_of(net), open_raster(raster), out, 1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert out.read_bytes() == b"before"


def test_a_full_disk_is_one_line(traced, raster, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.onnx, "save", full)
    net = small_net()
    with pytest.raises(OutputError, match="No space left"):
        export_onnx(net, spec_of(net), open_raster(raster), tmp_path / "net.onnx", 1e-4)
    assert list(tmp_path.iterdir()) == []


# --- the command line


def test_bad_usage_is_one_line(traced, capsys, checkpoint, raster, tmp_path):
    out = tmp_path / "net.onnx"
    refused(capsys, main, [checkpoint, out], "--raster")
    refused(capsys, main, [tmp_path, out, "--raster", raster], "checkpoint", "network.json")
    refused(capsys, main, [checkpoint, out, "--raster", tmp_path / "none.tif"], "none.tif")
    refused(capsys, main, [checkpoint, out, "--raster", raster, "--bands", "1"], "3 bands")
    refused(capsys, main, [checkpoint, out, "--raster", raster, "--tolerance", "-1"], "--tolerance")
    refused(capsys, main, [checkpoint, tmp_path / "no" / "net.onnx", "--raster", raster], "OUT")
    refused(capsys, main, [checkpoint, tmp_path, "--raster", raster], "OUT")
    refused(
        capsys,
        main,
        [checkpoint, out, "--raster", raster, "--tolerance", "1e-12"],
        "--tolerance",
        "not written",
    )
    assert list(tmp_path.iterdir()) == []


def test_it_prints_its_proof(traced, exported, checkpoint, raster, capsys):
    assert run_command(main, [str(checkpoint), str(exported), "--raster", str(raster)]) == 0
    out = capsys.readouterr().out
    assert out.count(" x 3 x ") == 3
    assert "100.0000%" in out
    assert out.splitlines()[-1].startswith(f"wrote {exported}")
    assert run_command(main, [str(checkpoint), str(exported), "--raster", str(raster), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_tiler_export_is_the_same_command(capsys):
    assert run_command(tiler, ["export", "--help"], "tiler") == 0
    by_tiler = capsys.readouterr().out
    assert run_command(main, ["--help"], "tiler export") == 0
    assert capsys.readouterr().out == by_tiler

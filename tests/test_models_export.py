"""Every network from checkpoint to map: exported with parity, proven, and segmented by the command line."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import rasterio
from onnxruntime import InferenceSession

torch = pytest.importorskip("torch")

from export.cli import main  # noqa: E402
from refusals import refused  # noqa: E402
from tiler.analysis import analyse  # noqa: E402
from tiler.cli.main import run_command, tiler  # noqa: E402
from tiler.spec import ModelSpec, default_classes  # noqa: E402
from train.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from train.models.nested import with_head  # noqa: E402
from train.models.options import EncodedOptions  # noqa: E402
from train.models.presets import PRESETS, make  # noqa: E402
from train.models.same_size import same_size, same_size_spec  # noqa: E402
from training_data import write_pair  # noqa: E402

RESOLUTION = 0.5
"""Metres per pixel of the raster that the networks are said to be trained on."""


def spec_of(net):
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
        resolution=RESOLUTION,
    )


def trained(preset, **changes):
    """With random weights, and with batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = make(preset, 3, 2, **changes)
    side = net.geometry.least + net.stride
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(2, 3, side, side))
    return net.eval()


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Path of a small real-looking scene; neither side is a multiple of a stride."""
    return write_pair(tmp_path_factory.mktemp("data"), 150, 203)[0]


def exported(net, raster, folder, *options):
    """The file, by the command line."""
    save_checkpoint(folder / "best", net, spec_of(net))
    out = folder / "net.onnx"
    arguments = [folder / "best", out, "--raster", raster, *options]
    assert run_command(main, list(map(str, arguments))) == 0
    return out


def segmented(raster, path, folder, *options):
    """Labels by the command line."""
    out = folder / "map.tif"
    assert run_command(tiler, list(map(str, ["segment", raster, path, out, "--quiet", *options]))) == 0
    with rasterio.open(out) as dataset:
        return dataset.read(1), json.loads(out.with_suffix(".report.json").read_text())


OTHERS = {
    "group": {"norm": "group"},
    "instance": {"norm": "instance"},
    "finer": {"padding": "valid", "upscale": 2},
}
"""Options of our own preset."""


@pytest.mark.slow
@pytest.mark.parametrize("preset", [*PRESETS, *OTHERS])
def test_every_preset_becomes_a_map(preset, raster, tmp_path, capfd):
    """Parity is that of the command, 1e-4 of the deviation; the graph proves what the network says."""
    changes = OTHERS.get(preset, {})
    preset = "unet" if changes else preset
    small = {} if PRESETS[preset].kind is EncodedOptions else {"depth": 2}
    net = trained(preset, width=4, **small, **changes)
    path = exported(net, raster, tmp_path)
    assert capfd.readouterr().err == ""
    model, same = onnx.load(path), same_size(net)
    found = analyse(model)
    assert found.exact == net.exact
    assert found.rows is not None or not net.exact
    if found.rows is not None:
        assert found.stride == same.stride
        assert (found.rows.before, found.rows.after) == same.geometry.reach
    assert ModelSpec.from_json(model.metadata_props[0].value) == same_size_spec(spec_of(net), net)
    labels_HW, report = segmented(raster, path, tmp_path)
    assert report["plan"]["mode"] == ("exact" if net.exact else "hann")
    assert labels_HW.shape == (150, 203)
    assert set(np.unique(labels_HW)) <= {0, 1, 255}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["1", "2", "average"])
def test_every_head_is_exported(head, raster, tmp_path):
    net = trained("nested-supervised", width=4, depth=2)
    path = exported(net, raster, tmp_path, "--head", head)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    batch_NCHW = np.random.default_rng(0).normal(size=(2, 3, 24, 32)).astype(np.float32)
    with torch.no_grad():
        expected = with_head(net, head)(torch.from_numpy(batch_NCHW)).numpy()
    assert np.allclose(session.run(None, {"pixels": batch_NCHW})[0], expected, atol=1e-4 * expected.std())
    spec = ModelSpec.from_json(onnx.load(path).metadata_props[0].value)
    assert spec.stride == (2 if head == "1" else 4)


def test_a_head_of_what_has_none_is_one_line(capsys, raster, tmp_path):
    net = make("unet", 3, 2, width=2, depth=1).eval()
    save_checkpoint(tmp_path / "best", net, spec_of(net))
    out = tmp_path / "net.onnx"
    refused(capsys, main, [tmp_path / "best", out, "--raster", raster, "--head", "2"], "UNet", "'2'")
    refused(capsys, main, [raster, out, "--raster", raster, "--head", "2"], "--head", "checkpoint")


@pytest.mark.slow
def test_the_paper_is_segmented_to_the_edge(raster, tmp_path):
    """No padding in the network, one label per pixel; in one tile and in several, the same labels."""
    net = trained("paper", width=2, depth=1)
    path = exported(net, raster, tmp_path, "--quiet")
    assert analyse(onnx.load(path)).exact
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole_HW, _ = segmented(raster, path, tmp_path / "a")
    tiles_HW, report = segmented(raster, path, tmp_path / "b", "--tile", "64")
    assert report["plan"]["mode"] == "exact"
    assert whole_HW.shape == (150, 203)
    assert np.array_equal(whole_HW, tiles_HW)


def test_networks_of_all_kinds_are_saved_and_read(tmp_path):
    for preset in ("paper", "nested", "resnet18"):
        net = trained(preset, width=2)
        save_checkpoint(tmp_path / preset, net, spec_of(net))
        again, spec = load_checkpoint(tmp_path / preset)
        assert again.options == net.options
        assert spec == spec_of(net)
        assert all(torch.equal(v, again.state_dict()[n]) for n, v in net.state_dict().items())

"""Bugs of the seed systems' networks that must not come back; numbers are those of the inventory of them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnx import helper, numpy_helper  # noqa: E402
from onnxruntime import InferenceSession  # noqa: E402

from export.onnx import trace  # noqa: E402
from tiler.errors import UsageError  # noqa: E402
from train.models.nested import with_head  # noqa: E402
from train.models.presets import PRESETS, make  # noqa: E402
from train.models.weights import load_weights  # noqa: E402


def bare(preset, in_channels=3, classes=2, **changes):
    """Without values: it takes neither memory nor time."""
    with torch.device("meta"):
        return make(preset, in_channels, classes, **changes).eval()


def test_d3_6_weights_with_and_without_mask_values_load(tmp_path):
    """Milesial deletes ``mask_values`` from what it loads, and older weights have none: KeyError."""
    from originals import Weights, milesial

    weights = Weights()
    milesial(weights, torch.rand(1, 3, 16, 16), 2, 2)
    for name, more in (("new.pth", {"mask_values": [0, 255]}), ("old.pth", {})):
        torch.save(weights.state | more, tmp_path / name)
        report = load_weights(make("milesial", 3, 2, width=2), tmp_path / name)
        assert report.missing == report.mismatched == report.unused == ()


@pytest.mark.parametrize(("preset", "kept"), [("bubbliiiing-resnet50", "encoder"), ("vgg16-bn", "encoder")])
def test_d4_11_what_is_frozen_can_be_told_from_the_rest(preset, kept):
    """Bubbliiiing freezes weights and lets batch statistics go on; both are in the modules that are named."""
    net = bare(preset)
    frozen = {name for name, _ in net.named_parameters() if name.startswith(f"{kept}.")}
    assert sum(p.numel() for p in net.encoder_parameters()) == sum(
        p.numel() for name, p in net.named_parameters() if name in frozen
    )
    inside = {id(m) for root in net.encoder_modules() for m in root.modules()}
    norms = [m for m in net.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(id(m) in inside for m in norms)


def test_d5_networks_return_logits():
    """Milu V1 and the listing after it end in a sigmoid, trained against the colours of the mask."""
    torch.manual_seed(0)
    net = make("milu-listing", 3, 3, width=4).eval()
    with torch.no_grad():
        logits_NKHW = 100 * net(torch.randn(1, 3, 32, 32))
    assert logits_NKHW.min() < 0


@pytest.mark.parametrize("level", [1, 2, 3])
def test_d6_10_pruned_networks_answer_as_their_heads_do(level):
    """nested-unet has deep supervision and no way to prune by it."""
    torch.manual_seed(0)
    net, pixels_NCHW = make("nested-supervised", 3, 2, width=2, depth=3), torch.rand(1, 3, 16, 24)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        heads = net(pixels_NCHW)
        pruned = with_head(net, str(level)).eval()
        assert torch.equal(pruned(pixels_NCHW), heads[level - 1])
    assert pruned.stride == 2**level


@pytest.mark.parametrize("preset", ["nested-unet", "nested", "leejunhyun", "cropland", "bubbliiiing-vgg"])
def test_d6_11_d7_11_a_size_off_the_stride_is_refused_with_the_sizes_beside_it(preset):
    """nested-unet and LeeJunHyun fail within a concatenation, with two shapes and no advice."""
    with pytest.raises(UsageError, match=r"a multiple of 16 pixels, at least \d+, got 100; .* 96 and 112"):
        bare(preset, width=2)(torch.empty(1, 3, 96, 100, device="meta"))


def test_d8_the_paper_takes_572_not_576():
    """One text has 576; two poolings further such a size is odd."""
    net = bare("paper", 1, 2, width=2)
    assert net.out_size(572) == 388
    with pytest.raises(UsageError, match="got 576"):
        net(torch.empty(1, 1, 576, 576, device="meta"))


def test_d8_shapes_that_a_text_has_wrong():
    """Batch 8 of 96 x 96 in UNet++: pooled (1, 0) has 64 channels of 24, and (1, 1) 64 of 48; not 32."""
    net, found = bare("nested", 3, 1), {}
    for name in ("1_0", "1_1"):
        net.node[name].register_forward_hook(lambda _, __, out, name=name: found.update({name: out.shape}))
    net(torch.empty(8, 3, 96, 96, device="meta"))
    assert found["1_0"] == (8, 64, 48, 48)
    assert net.pool(torch.empty(found["1_0"], device="meta")).shape == (8, 64, 24, 24)
    assert found["1_1"] == (8, 64, 48, 48)


@pytest.mark.parametrize(("preset", "bottom"), [("wzm-64", 512), ("wzm-transposed", 512), ("milesial", 1024)])
def test_d8_only_interpolation_keeps_the_bottom_narrow(preset, bottom):
    """A text says that the last block does not double the channels, as if that were so of all variants."""
    net = bare(preset)
    assert net.down[-1][-3].out_channels == bottom
    doubles = net.down[-1][0].in_channels * 2 == bottom
    assert doubles == (not net.options.up.startswith("bilinear"))


@pytest.mark.parametrize(
    "preset", ["wzm", "milesial-bilinear", "bubbliiiing-vgg", "bubbliiiing-resnet50", "nested-unet", "nested"]
)
def test_d9_1_aligned_interpolation_is_never_called_exact(preset):
    """Four repositories interpolate with align_corners=True: what a pixel gets depends on the tile's size."""
    net = bare(preset)
    assert not net.exact
    assert "align_corners=True" in net.inexact[0]
    other = bare(preset, up="bilinear")
    assert other.exact
    shapes, others = ({n: v.shape for n, v in m.state_dict().items()} for m in (net, other))
    assert shapes == others, "the same weights fit"


@pytest.fixture(scope="module")
def session():
    """Of a network that takes any size, exported while it was in training mode."""
    torch.manual_seed(0)
    net = make("milesial", 3, 2, width=2, depth=1, dropout=(0.5, 0.5))
    net(torch.randn(4, 3, 8, 8))
    proto = trace(net.train())
    return net, InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def test_d9_2_a_network_in_training_mode_is_exported_in_evaluation_mode(session):
    """Exported in training mode, dropout and batch statistics change what it returns."""
    net, exported = session
    assert not net.training
    batch_NCHW = np.random.default_rng(0).normal(size=(2, 3, 8, 12)).astype(np.float32)
    first, second = (exported.run(None, {"pixels": batch_NCHW})[0] for _ in range(2))
    assert np.array_equal(first, second)
    with torch.no_grad():
        assert np.allclose(first, net(torch.from_numpy(batch_NCHW)).numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 96, 128), (2, 3, 2, 70)])
def test_d9_3_padding_to_the_skip_is_exported_for_any_size(session, shape):
    """Padding by the difference of two shapes once failed to export, or kept the sizes of the example."""
    net, exported = session
    batch_NCHW = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(batch_NCHW)).numpy()
    found = exported.run(None, {"pixels": batch_NCHW})[0]
    assert np.abs(found - expected).max() <= 1e-4 * expected.std()


def test_d4_13_batch_and_sides_are_open(session):
    """Bubbliiiing exports one image of 512 x 512 px."""
    shape = session[1].get_inputs()[0].shape
    assert shape[0] == "batch"
    assert all(isinstance(side, str) for side in shape[2:])


@pytest.fixture(
    scope="module",
    params=["vgg16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("resnet18", "unet++"))],
)
def grown(request):
    """A network that interpolates, and its graph."""
    torch.manual_seed(0)
    net = make(request.param, 3, 2, width=2).eval()
    return net, trace(net)


def test_d9_4_networks_with_an_encoder_are_exported_for_any_size(grown):
    """Those of a well-known library were not: the sizes of the example were kept in the graph."""
    net, proto = grown
    session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for n, rows, columns in ((1, 1, 2), (2, 3, 1)):
        shape = (n, 3, rows * net.stride, columns * net.stride)
        batch_NCHW = np.random.default_rng(n).normal(size=shape).astype(np.float32)
        with torch.no_grad():
            expected = net(torch.from_numpy(batch_NCHW)).numpy()
        found = session.run(None, {"pixels": batch_NCHW})[0]
        assert np.abs(found - expected).max() <= 1e-4 * expected.std()


def test_d9_5_maps_grow_by_two_and_say_how(grown):
    """Runtimes disagree on other ratios, and on graphs that leave the convention to them."""
    _, proto = grown
    values = {w.name: numpy_helper.to_array(w) for w in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type == "Resize"]
    assert nodes
    for node in nodes:
        told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert values[node.input[2]].tolist() == [1, 1, 2, 2]
        assert told["mode"] == b"linear"
        assert told["coordinate_transformation_mode"] == b"half_pixel"


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("convention", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
def test_d9_5_twice_the_nearest_is_the_same_in_all_conventions_but_one_rounding(convention, rounding):
    """And three halves are not: so ours repeat pixels twice, and the graph says asymmetric and floor."""
    x_11HW = np.arange(24, dtype=np.float32).reshape(1, 1, 4, 6)

    def grown_by(ratio, coordinates, how):
        node = helper.make_node(
            "Resize",
            ["x", "", "scales"],
            ["y"],
            mode="nearest",
            coordinate_transformation_mode=coordinates,
            nearest_mode=how,
        )
        shape = ["n", 1, "h", "w"]
        ends = [helper.make_tensor_value_info(name, 1, shape) for name in "xy"]
        scales = numpy_helper.from_array(np.array([1, 1, ratio, ratio], np.float32), "scales")
        graph = helper.make_graph([node], "net", ends[:1], ends[1:], [scales])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x_11HW})[0]

    repeated = x_11HW.repeat(2, 2).repeat(2, 3)
    assert np.array_equal(grown_by(2, "asymmetric", "floor"), repeated)
    same = np.array_equal(grown_by(2, convention, rounding), repeated)
    assert same == ((convention, rounding) != ("asymmetric", "round_prefer_ceil"))
    assert not np.array_equal(grown_by(1.5, "half_pixel", "floor"), grown_by(1.5, "asymmetric", "floor"))


def test_aligned_presets_are_all_known():
    """What the list above leaves out is exact, or of the same repositories."""
    inexact = {name for name, preset in PRESETS.items() if preset.options(3, 2).inexact}
    assert inexact == {
        *("wzm", "wzm-64", "wzm-vgg16-bn", "milesial-bilinear", "bubbliiiing-vgg", "bubbliiiing-resnet50"),
        *("nested-unet", "nested", "nested-supervised"),
    }

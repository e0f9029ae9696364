"""Networks and presets: sizes, shapes and counts of the originals, and what they say of themselves."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tiler.errors import UsageError  # noqa: E402
from train.models.build import build, from_json, to_json  # noqa: E402
from train.models.initial import INITS, initialise  # noqa: E402
from train.models.layers import ToPlaces  # noqa: E402
from train.models.nested import with_head  # noqa: E402
from train.models.network import parameters  # noqa: E402
from train.models.options import EncodedOptions, NestedOptions, UNetOptions  # noqa: E402
from train.models.presets import PRESETS, NetworkOptions, make  # noqa: E402
from train.models.summary import summary  # noqa: E402

COUNTS = {
    ("paper", 1, 2): 31_030_658,
    ("paper", 1, 1): 31_030_593,
    ("paper", 3, 2): 31_031_810,
    ("milesial", 3, 2): 31_037_698,
    ("milesial", 3, 1): 31_037_633,
    ("milesial", 1, 2): 31_036_546,
    ("milesial-bilinear", 3, 2): 17_263_042,
    ("milesial-bilinear", 3, 1): 17_262_977,
    ("wzm", 3, 2): 4_318_434,
    ("wzm-64", 1, 2): 17_261_890,
    ("wzm-transposed", 3, 2): 7_763_074,
    ("wzm-vgg16-bn", 3, 2): 26_450_306,
    ("bubbliiiing-vgg", 3, 21): 24_892_437,
    ("bubbliiiing-vgg", 3, 2): 24_891_202,
    ("bubbliiiing-resnet50", 3, 21): 43_934_101,
    ("bubbliiiing-resnet50", 3, 2): 43_932_866,
    ("nested-unet", 3, 1): 7_852_545,
    ("nested", 3, 1): 9_163_329,
    ("nested-supervised", 3, 1): 9_163_428,
    ("leejunhyun", 3, 1): 34_527_041,
    ("leejunhyun-attention", 3, 1): 34_878_573,
    ("milu", 3, 2): 32_085_122,
    ("milu", 3, 3): 32_085_699,
    ("milu-listing", 3, 3): 32_090_627,
    ("cropland", 3, 2): 31_043_586,
    ("keras", 1, 1): 7_759_521,
    ("tf-1x", 3, 6): 7_759_782,
    ("tf-3x", 3, 3): 7_760_475,
}
"""Preset, bands and classes: trainable values of the original."""


def bare(preset, in_channels=3, classes=2, **changes):
    """A network of full size without values: it takes neither memory nor time."""
    with torch.device("meta"):
        return make(preset, in_channels, classes, **changes).eval()


def shapes(net, pixels_shape, kinds):
    """What layers of these kinds return, in the order in which they run."""
    found = []
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape)))
    net(torch.empty(pixels_shape, device="meta"))
    return found


# --- counts and shapes of the originals


@pytest.mark.parametrize(("preset", "in_channels", "classes"), COUNTS)
def test_counts_are_those_of_the_originals(preset, in_channels, classes):
    assert parameters(bare(preset, in_channels, classes)) == COUNTS[preset, in_channels, classes]


@pytest.mark.parametrize(
    ("preset", "count"),
    [("wzm-vgg16-bn", 14_723_136), ("bubbliiiing-vgg", 14_714_688), ("bubbliiiing-resnet50", 23_508_032)],
)
def test_encoders_are_what_freezing_freezes(preset, count):
    net = bare(preset)
    assert sum(p.numel() for p in net.encoder_parameters()) == count
    assert list(net.encoder_modules()) == [net.encoder]


def test_a_network_without_an_encoder_has_nothing_to_freeze():
    assert list(bare("unet").encoder_parameters()) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_complete(preset):
    found = PRESETS[preset]
    assert found.name == preset
    assert found.source
    assert found.description
    net = bare(preset, 4, 3, width=4)
    assert (net.in_channels, net.classes) == (4, 3)


def test_the_paper_has_23_convolutions():
    kinds = nn.Conv2d, nn.ConvTranspose2d
    assert sum(isinstance(m, kinds) for m in bare("paper").modules()) == 23


def test_sides_of_the_paper():
    """572 px in, 388 out, as traced; what is cropped of the skips."""
    net = bare("paper", 1, 2)
    sides = [s[2] for s in shapes(net, (1, 1, 572, 572), (nn.Conv2d, nn.MaxPool2d, nn.ConvTranspose2d))]
    assert sides == [
        *(570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28),
        *(56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388),
    ]
    kept = [
        net._cropped(torch.empty(1, 1, side, side), i).shape[2] for i, side in enumerate((64, 136, 280, 568))
    ]
    assert kept == [56, 104, 200, 392]


def test_sides_of_unet_plus_plus():
    """Batch 8 of 96 x 96; widths of the joined maps."""
    net = bare("nested", 3, 1)
    expected = {"0_0": (32, 96), "1_0": (64, 48), "2_0": (128, 24), "3_0": (256, 12), "4_0": (512, 6)}
    expected |= {"1_1": (64, 48), "0_4": (32, 96)}
    found = {}
    for name, node in net.node.items():
        node.register_forward_hook(lambda _, __, out, name=name: found.update({name: tuple(out.shape)}))
    net(torch.empty(8, 3, 96, 96, device="meta"))
    assert {name: found[name] for name in expected} == {n: (8, c, s, s) for n, (c, s) in expected.items()}
    joined = {"0_1": 96, "0_2": 128, "0_3": 160, "0_4": 192, "1_1": 192, "1_2": 256, "1_3": 320}
    joined |= {"2_1": 384, "2_2": 512, "3_1": 768}
    assert {name: net.node[name][0].in_channels for name in joined} == joined


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("bubbliiiing-vgg", [(64, 512), (128, 256), (256, 128), (512, 64), (512, 32)]),
        ("bubbliiiing-resnet50", [(64, 256), (256, 128), (512, 64), (1024, 32), (2048, 16)]),
        ("resnet50", [(64, 256), (256, 128), (512, 64), (1024, 32), (2048, 16)]),
    ],
)
def test_maps_of_encoders(preset, expected):
    maps = bare(preset).encoder(torch.empty(1, 3, 512, 512, device="meta"))
    assert [(m.shape[1], m.shape[2]) for m in maps] == expected


@pytest.mark.parametrize(
    ("preset", "takes", "refuses"),
    [
        ("bubbliiiing-vgg", (144, 160), (120, 136)),
        ("bubbliiiing-resnet50", (160,), (120, 136, 144)),
        ("nested", (96,), (100,)),
        ("leejunhyun", (96,), (100,)),
        ("cropland", (96,), (100,)),
        ("milesial", (100, 959, 640), (15,)),
        ("wzm", (565, 584), (15,)),
    ],
)
def test_sizes_that_are_taken(preset, takes, refuses):
    net = bare(preset, width=2)
    for side in takes:
        assert net(torch.empty(1, 3, side, 160, device="meta")).shape[2] == net.out_size(side) == side
    for side in refuses:
        with pytest.raises(UsageError, match=f"got {side}; the nearest are"):
            net(torch.empty(1, 3, 160, side, device="meta"))


@pytest.mark.parametrize("more", [{"attention": True}, {"down": "conv"}, {"padding": "reflect"}])
@pytest.mark.parametrize("side", [35, 37, 44])
def test_odd_sizes_go_with_gates_and_strided_convolutions(more, side):
    """Gates met maps of two sizes; what strided convolutions make too much was cut off at the left."""
    torch.manual_seed(0)
    net = make("milesial", 3, 2, width=2, depth=2, **more).eval()
    assert net.out_size(side) == side
    pixels_NCHW = torch.rand(1, 3, side + 4, side + 4)
    with torch.no_grad():
        part, whole = net(pixels_NCHW[..., :side, :side]), net(pixels_NCHW)
    assert part.shape == (1, 2, side, side)
    # Only the last rows and columns know of the size.
    assert torch.allclose(part[..., :8, :8], whole[..., :8, :8], atol=1e-5)


def test_drive_level_by_level():
    """565 x 584 px: poolings round down."""
    found = shapes(bare("wzm", width=2), (1, 3, 584, 565), nn.MaxPool2d)
    assert [(w, h) for _, _, h, w in found] == [(282, 292), (141, 146), (70, 73), (35, 36)]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_maps_pixels_to_logits(preset):
    """Values too; and again after a detour by JSON."""
    torch.manual_seed(0)
    net = make(preset, 3, 2, width=2).eval()
    side = net.geometry.least
    pixels_NCHW = torch.rand(1, 3, side, side + 2 * net.stride)
    again = from_json(json.loads(json.dumps(to_json(net)))).eval()
    assert again.options == net.options
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        logits_NKHW = net(pixels_NCHW)
        assert torch.equal(again(pixels_NCHW), logits_NKHW)
    assert logits_NKHW.shape == (1, 2, net.out_size(side), net.out_size(side + 2 * net.stride))
    assert logits_NKHW.isfinite().all()
    assert logits_NKHW.std() > 0


# --- legal sizes without padding


def test_legal_sizes_of_the_paper():
    geometry = PRESETS["paper"].options(1, 2).geometry
    legal = [n for n in range(1, 573) if _takes(geometry, n)]
    assert legal == list(range(188, 573, 16))
    assert len(legal) == 25
    assert [geometry.out_size(n) for n in (188, 204, 572, 684)] == [4, 20, 388, 500]
    assert all(n % 16 == 12 and geometry.out_size(n) == n - 184 for n in legal)
    assert geometry.margin == 92
    # An image of so many pixels by overlapping windows of 572.
    windows = {n: -(-n // geometry.out_size(572)) for n in (256, 512, 1000)}
    assert {n: (k, 388 * k + 184) for n, k in windows.items()} == {
        256: (1, 572),
        512: (2, 960),
        1000: (3, 1348),
    }


def _takes(geometry, n):
    try:
        return geometry.out_size(n) > 0
    except UsageError:
        return False


@pytest.mark.parametrize(
    ("depth", "lost", "least", "scores", "residue"),
    [(1, 16, 18, 2, 0), (2, 40, 44, 4, 0), (3, 88, 92, 4, 4), (4, 184, 188, 4, 12), (5, 376, 380, 4, 28)],
)
def test_legal_sizes_of_other_depths(depth, lost, least, scores, residue):
    net = make("paper", 1, 2, depth=depth, width=1).eval()
    assert (2 * net.margin, net.geometry.least, net.geometry.residue) == (lost, least, residue)
    assert net.out_size(least) == scores
    with torch.no_grad():
        assert net(torch.rand(1, 1, least, least + 2**depth)).shape == (1, 2, scores, scores + 2**depth)
    with pytest.raises(UsageError, match=f"at least {least}, got {least - 2**depth}"):
        net.out_size(least - 2**depth)


def test_an_illegal_size_names_the_nearest():
    with pytest.raises(
        UsageError, match=r"12 more pixels, at least 188, got 576; the nearest are 572 and 588"
    ):
        bare("paper", 1, 2, width=2).out_size(576)
    with pytest.raises(UsageError, match=r"a multiple of 16 pixels.* got 100; the nearest are 96 and 112"):
        bare("unet").out_size(100)


# --- sub-pixel heads


@pytest.mark.parametrize(
    ("order", "first"), [("dcr", (0, 3, 6, 9, 12, 15, 18, 21, 24)), ("crd", tuple(range(9)))]
)
def test_order_of_sub_pixels(order, first):
    """Of 27 channels, those that make the first of three classes, place by place."""
    channels = torch.arange(27.0).reshape(1, 27, 1, 1)
    found = ToPlaces(3, order)(channels)
    assert found.shape == (1, 3, 3, 3)
    assert found[0, 0].flatten().tolist() == list(first)


@pytest.mark.parametrize(("order", "mode"), [("dcr", {}), ("crd", {"mode": "CRD"})])
def test_orders_of_sub_pixels_are_those_of_onnx(order, mode):
    """Whose default, depth to columns to rows, is TensorFlow's; PyTorch's is the other."""
    channels = torch.rand(2, 27, 3, 4)
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=3, **mode)
    (expected,) = ReferenceEvaluator(node).run(None, {"x": channels.numpy()})
    found = ToPlaces(3, order)(channels)
    assert torch.equal(found, torch.from_numpy(expected))
    assert torch.equal(found, torch.nn.functional.pixel_shuffle(channels, 3)) == (order == "crd")


def test_scores_three_times_as_fine():
    net = bare("tf-3x", 3, 3)
    assert (net.scale, net.out_size(64)) == (3, 192)
    assert net(torch.empty(2, 3, 64, 80, device="meta")).shape == (2, 3, 192, 240)
    assert net.head.out_channels == 27


# --- deep supervision


def supervised(classes=2, depth=3):
    torch.manual_seed(0)
    return build(NestedOptions(3, classes, depth, 2))


def test_training_returns_all_heads_and_evaluation_the_last():
    net, pixels_NCHW = supervised(), torch.rand(2, 3, 16, 24)
    heads = net.train()(pixels_NCHW)
    assert [h.shape for h in heads] == [(2, 2, 16, 24)] * 3
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    heads = net(pixels_NCHW)
    net.eval()
    assert torch.equal(net(pixels_NCHW), heads[-1])
    average = with_head(net, "average")
    assert torch.allclose(average(pixels_NCHW), sum(heads) / 3, atol=1e-6)


@pytest.mark.parametrize(("level", "count"), [(1, 103_041), (2, 519_105), (3, 2_236_161), (4, 9_163_329)])
def test_counts_of_pruned_networks(level, count):
    assert parameters(with_head(bare("nested-supervised", 3, 1), str(level))) == count


def test_a_head_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="average, 1, 2, 3"):
        with_head(supervised(), "4")
    with pytest.raises(UsageError, match="UNet with one head"):
        with_head(make("unet", 3, 2), "1")


# --- options


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"padding": "same"}, "--padding is one of zero, reflect, valid, got 'same'"),
        ({"norm": "layer"}, "norm"),
        ({"head_kernel": 2}, "--head-kernel is one of 1, 3, got 2"),
        ({"dropout": (0.5, 1.0)}, "dropout"),
        ({"dropout": (0.5,)}, "dropout"),
        ({"padding": "valid", "up": "bilinear"}, "got --up bilinear"),
        ({"padding": "valid", "odd": True}, "got --odd$"),
        ({"padding": "valid", "dilation": 2}, "got --dilation 2"),
        ({"halving": "block"}, "got --up transposed"),
        ({"upscale": 0}, "upscale"),
        ({"depth": 7}, "depth"),
    ],
)
def test_options_that_make_no_u_net(wrong, word):
    with pytest.raises(UsageError, match=word):
        UNetOptions(3, 2, **wrong)


def test_options_that_make_no_other_network():
    with pytest.raises(UsageError, match="answer=average is of several heads, got --no-supervision"):
        NestedOptions(3, 2, supervision=False, answer="average")
    with pytest.raises(UsageError, match="--up is one of bilinear, bilinear-aligned"):
        NestedOptions(3, 2, up="transposed")
    with pytest.raises(UsageError, match="encoder is one of vgg16"):
        EncodedOptions(3, 2, "vgg19")
    with pytest.raises(UsageError, match="--odd is for VGG"):
        EncodedOptions(3, 2, "resnet18", odd=True)


def test_presets_and_options_that_are_not_there_are_named():
    with pytest.raises(UsageError, match=r"--preset is one of unet, paper, .*, got 'unet3'"):
        make("unet3", 3, 2)
    with pytest.raises(UsageError, match=r"--preset resnet18 has .*--up.*, and no --depth; leave it out"):
        make("resnet18", 3, 2, depth=3)


def test_what_a_run_is_told_changes_the_preset_and_nothing_else():
    assert NetworkOptions().options(3, 2) == UNetOptions(3, 2)
    told = NetworkOptions("milu", width=8, dropout=0.1).options(4, 3)
    assert told == make("milu", 4, 3, width=8, dropout=(0.1, 0.1)).options
    assert (told.padding, told.width, told.dropout) == ("reflect", 8, (0.1, 0.1))
    assert NetworkOptions("nested-supervised", supervision=False).options(3, 1).supervision is False
    with pytest.raises(UsageError, match=r"--preset resnet18 has .*, and no --block"):
        NetworkOptions("resnet18", block="dense")
    with pytest.raises(UsageError, match=r"--preset resnet18 has [^;]* and no --nonlinearity;"):
        NetworkOptions("resnet18", activation="leaky")


def test_networks_saved_before_there_were_several_are_read():
    """Then ``nearest`` was the name of a 1x1 convolution and repetition."""
    old = {"in_channels": 3, "classes": 2, "depth": 2, "width": 4, "up": "nearest"}
    assert from_json(old).options == UNetOptions(3, 2, 2, 4, "nearest1")
    keys = list(from_json(old).state_dict())
    assert keys[0] == "first.0.weight"
    assert keys[-1] == "head.bias"
    assert {"down.0.4.running_var", "up.1.0.bias", "merge.1.3.weight"} <= set(keys)
    with pytest.raises((KeyError, TypeError)):
        from_json({"network": "transformer"})


@pytest.mark.parametrize("block", ["plain", "residual", "dense"])
@pytest.mark.parametrize("norm", ["none", "batch", "group", "instance"])
def test_blocks_and_norms_learn(block, norm):
    """One step down the gradient lowers the loss; every weight has a gradient."""
    torch.manual_seed(0)
    net = build(UNetOptions(2, 2, 2, 8, block=block, norm=norm, attention=True, dilation=2))
    pixels_NCHW, target_NHW = torch.rand(2, 2, 16, 16), torch.randint(0, 2, (2, 16, 16))
    losses = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(5):
        loss = nn.functional.cross_entropy(net(pixels_NCHW), target_NHW)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("kind", "layer", "count"),
    [("channel", nn.Dropout2d, 10), ("element", nn.Dropout, 10), ("bottom", nn.Dropout, 1)],
)
def test_dropout_is_where_it_was_asked_for(kind, layer, count):
    net = build(UNetOptions(3, 2, 2, 4, dropout=(0.3, 0.4), dropout_kind=kind))
    found = [m.p for m in net.modules() if isinstance(m, layer)]
    assert len(found) == count
    assert found == ([0.4] if kind == "bottom" else [0.3, 0.4] * 5)
    net.eval()
    pixels_NCHW = torch.rand(1, 3, 8, 8)
    assert torch.equal(net(pixels_NCHW), net(pixels_NCHW))
    assert not torch.equal(net.train()(pixels_NCHW), net(pixels_NCHW))


# --- weights to begin with, and sums


@pytest.mark.parametrize("kind", INITS[1:])
def test_weights_begin_as_asked(kind):
    torch.manual_seed(0)
    net = build(UNetOptions(3, 2, 1, 64))
    initialise(net, kind)
    weight = net.first[3].weight  # 3 x 3 of 64 channels: 576 values come in
    expected = {"normal": 0.02, "kaiming": math.sqrt(2 / 576)}
    expected["xavier"] = 0.02 * math.sqrt(2 / (576 + 576))
    if kind == "orthogonal":
        rows = weight.detach().flatten(1)
        assert torch.allclose(rows @ rows.T, 0.02**2 * torch.eye(64), atol=1e-7)
    else:
        assert weight.std().item() == pytest.approx(expected[kind], rel=0.02)
    assert not net.head.bias.any()
    assert kind != "kaiming" or round(expected["kaiming"], 4) == 0.0589


def test_default_weights_are_left_alone():
    net = build(UNetOptions(3, 2, 1, 4))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    initialise(net, "default")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(UsageError, match="one of default, normal"):
        initialise(net, "zeros")


def test_summary_by_hand():
    """Depth 1, width 2, one band: eight 3x3, transposed and 1x1 convolutions on 4 x 4 px, added up."""
    net = build(UNetOptions(1, 3, 1, 2, norm="none"))
    fine, coarse = 16, 4
    macs = 9 * fine * (1 * 2 + 2 * 2 + 4 * 2 + 2 * 2) + 9 * coarse * (2 * 4 + 4 * 4)
    macs += 4 * coarse * 4 * 2 + fine * 2 * 3  # growing, head
    found = summary(net, 4)
    assert found.gflops * 1e9 == pytest.approx(2 * macs)
    # Six convolutions of the blocks, pooling, growing, head; activations work in place.
    assert found.activations == 4 * (
        2 * 2 * fine + 2 * coarse + 2 * 4 * coarse + 2 * fine + 2 * 2 * fine + 3 * fine
    )
    assert found.parameters == parameters(net)
    assert str(found).startswith(f"{parameters(net):,} parameters; at 4 x 4 px")
    with pytest.raises(UsageError, match="got 5"):
        summary(net, 5)


def test_options_need_no_pytorch():
    """A run's options are checked before PyTorch is loaded."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from train.models.presets import NetworkOptions\n"
        "g = NetworkOptions('paper').options(3, 2).geometry\n"
        "print(g.out_size(572), g.halo, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["388", "96", "False"]


def test_all_options_are_plain_values():
    for preset in PRESETS.values():
        for value in asdict(preset.options(3, 2)).values():
            assert isinstance(value, str | int | float | bool | tuple)

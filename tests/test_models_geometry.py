"""Stride, halo and exactness: what networks say, what their graphs say, and what tiles of them do."""

from __future__ import annotations

import io
import warnings
from functools import cache

import onnx
import pytest

torch = pytest.importorskip("torch")

from tiler.analysis import analyse  # noqa: E402
from tiler.analysis.interval import Interval  # noqa: E402
from train.models.build import build  # noqa: E402
from train.models.options import EncodedOptions, NestedOptions, UNetOptions  # noqa: E402
from train.models.presets import PRESETS, make  # noqa: E402
from train.models.same_size import same_size  # noqa: E402

VARIANTS = {
    "depth 1, dilated": UNetOptions(2, 2, 1, 1, dilation=3),
    "depth 2, reflecting, dilated": UNetOptions(2, 2, 2, 1, padding="reflect", dilation=2),
    "depth 3, bilinear": UNetOptions(2, 2, 3, 1, "bilinear"),
    "depth 3, nearest3, strided": UNetOptions(2, 2, 3, 1, "nearest3", down="conv"),
    "valid, depth 3, nearest1": UNetOptions(2, 2, 3, 1, "nearest1", padding="valid"),
    "valid, finer": UNetOptions(2, 2, 2, 1, padding="valid", upscale=2),
    "valid, gated": UNetOptions(2, 2, 2, 2, padding="valid", attention=True),
    "halved by blocks": UNetOptions(2, 2, 2, 2, "bilinear", halving="block"),
    "UNet++ of depth 2": NestedOptions(2, 2, 2, 1),
    "average of heads": NestedOptions(2, 2, 2, 1, answer="average"),
    "group": UNetOptions(2, 2, 2, 1, norm="group"),
    "instance": UNetOptions(2, 2, 2, 1, norm="instance"),
}


def network(name):
    """A narrow network in evaluation mode: of a preset, or one of `VARIANTS`."""
    torch.manual_seed(0)
    if name in VARIANTS:
        return build(VARIANTS[name]).eval()
    return make(name, 2, 2, width=1 if PRESETS[name].kind is not EncodedOptions else 2).eval()


@cache
def graph(name, same):
    """By the exporter of old, which takes a tenth of the time; the other is tried in test_models_export."""
    net = same_size(network(name)) if same else network(name)
    side = net.geometry.least + 2 * net.stride
    stream, axes = io.BytesIO(), {"pixels": {0: "n", 2: "h", 3: "w"}}
    example = torch.rand(1, net.in_channels, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["pixels"], "output_names": ["logits"]}
        torch.onnx.export(net, (example,), stream, dynamo=False, dynamic_axes=axes, opset_version=17, **names)
    return net, analyse(onnx.load_from_string(stream.getvalue()))


@pytest.mark.parametrize("name", [*PRESETS, *VARIANTS])
def test_the_graph_agrees(name):
    """Of the network as it is: with margins, and with scores finer than pixels."""
    net, analysis = graph(name, same=False)
    told = net.geometry
    assert analysis.exact == net.exact
    if not net.exact and analysis.rows is None:
        return
    for axis in (analysis.rows, analysis.columns):
        assert (axis.stride, axis.before, axis.after) == (net.stride, *told.reach)
        assert (axis.margin_before, axis.margin_after) == (net.margin * net.scale,) * 2
        assert (axis.scale, axis.residue) == (net.scale, told.residue)
        assert axis.smallest == told.least or not net.exact
        size = told.least + 3 * net.stride
        assert axis.scores(size) == net.out_size(size)


@pytest.mark.parametrize("name", ["paper", "tf-3x", "valid, depth 3, nearest1", "valid, gated"])
def test_the_graph_of_the_same_size_agrees(name):
    """Of the network as it is exported: one score per pixel, and exact."""
    net, analysis = graph(name, same=True)
    assert analysis.reasons == ()
    for axis in (analysis.rows, analysis.columns):
        assert (axis.stride, axis.before, axis.after) == (net.stride, *net.geometry.reach)
        assert (axis.margin_before, axis.margin_after, axis.scale, axis.residue) == (0, 0, 1, 0)
        assert net.out_size(6 * net.stride) == 6 * net.stride


def test_a_network_that_returns_a_score_per_pixel_is_its_own_same_size():
    net = network("unet")
    assert same_size(net) is net


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].options(1, 2).inexact])
def test_inexact_networks_say_why(name):
    net, analysis = graph(name, same=False)
    assert "align_corners" in net.inexact[0]
    assert any("align_corners" in reason for reason in analysis.reasons)
    assert "not exact" in PRESETS[name].description


def test_statistics_of_the_tile_are_inexact():
    assert "over the whole tile (norm=group)" in network("group").inexact[0]
    assert "over the whole tile (norm=instance)" in network("instance").inexact[0]


# --- published halos


def seen(geometry, first, last):
    """Pixels that these scores depend on."""
    found = Interval(first, last)
    for layer in geometry.path:
        found = layer.sources(found)
    return found


def any_phase(geometry):
    """Largest halos before and after one score, wherever in a cell it lies."""
    found = {p: seen(geometry, p, p) for p in range(geometry.stride)}
    return max(p - f.first for p, f in found.items()), max(f.last - p for p, f in found.items())


MILU = {"up": "nearest1", "down": "conv", "head_kernel": 3}


@pytest.mark.parametrize(
    ("options", "aligned", "phase", "halos"),
    [
        *(
            ({"depth": depth, "up": up}, (aligned, aligned), (phase, phase), halos)
            for up in ("transposed", "nearest1")
            for depth, aligned, phase, halos in (
                *((2, 22, 23, (24, 24)), (3, 46, 51, (48, 56))),
                *((4, 94, 107, (96, 112)), (5, 190, 219, (192, 224))),
            )
        ),
        *(
            ({"depth": depth, "up": up}, (aligned, aligned), (phase, phase), halos)
            for up in ("bilinear", "nearest3")
            for depth, aligned, phase, halos in ((4, 110, 122, (112, 128)), (5, 222, 250, (224, 256)))
        ),
        (MILU, (109, 94), (123, 108), (112, 128)),
    ],
)
def test_published_halos(options, aligned, phase, halos):
    """For cores on multiples of the stride, and for any; rounded up to whole strides."""
    geometry = UNetOptions(3, 2, **options).geometry
    assert geometry.reach == aligned
    assert any_phase(geometry) == phase
    assert (geometry.halo, -(-max(phase) // geometry.stride) * geometry.stride) == halos


@pytest.mark.parametrize(
    ("preset", "halo"),
    [("unet", 96), ("milesial", 96), ("cropland", 96), ("keras", 96), ("leejunhyun", 112), ("milu", 112)],
)
def test_halos_of_presets(preset, halo):
    assert PRESETS[preset].options(3, 2).geometry.halo == halo


@pytest.mark.parametrize(("up", "spans"), [("transposed", {188, 204}), ("bilinear", {220, 236})])
def test_pixels_that_one_score_sees(up, spans):
    geometry = UNetOptions(3, 2, up=up).geometry
    found = (seen(geometry, p, p) for p in range(16))
    assert {f.last - f.first + 1 for f in found} == spans


def test_pixels_that_the_bottom_sees():
    """Of the paper: 140, one bottom pixel every 16."""
    path = PRESETS["paper"].options(1, 2).geometry.path
    found = [Interval(i, i) for i in (0, 1)]
    for layer in path[-2 - 3 * 4 :]:  # the bottom, and four times a pooling and two convolutions
        found = [layer.sources(f) for f in found]
    assert found[0].last - found[0].first + 1 == 140
    assert found[1].first - found[0].first == 16


# --- tiles, in double precision


def positive(net):
    """Weights above zero that add up to one, so that nothing cancels, dies or explodes."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.weight.copy_(torch.rand_like(module.weight) + 0.1)
                module.weight.div_(module.weight.flatten(1).sum(1).max())
    return net.double().eval()


def disagreement(net, halo, origin=0, core=64):
    """Largest difference of a core from the whole image's, in deviations; random pixels."""
    torch.manual_seed(1)
    first = 144 + origin
    image = torch.rand(1, net.in_channels, *[2 * 144 + core + 32] * 2, dtype=torch.float64)
    cut = slice(first - halo, first + core + halo)
    with torch.no_grad():
        whole, tile = net(image), net(image[:, :, cut, cut])
    here, there = slice(first, first + core), slice(halo, halo + core)
    difference = (tile[:, :, there, there] - whole[:, :, here, here]).abs().max()
    return float(difference / whole.std())


@pytest.mark.parametrize(
    ("up", "halo"), [("transposed", 96), ("nearest1", 96), ("bilinear", 112), ("nearest3", 112)]
)
def test_tiles_are_exact_at_the_halo_and_not_a_stride_below(up, halo):
    torch.manual_seed(0)
    net = positive(build(UNetOptions(1, 2, 4, 1, up)))
    assert net.halo == halo
    assert disagreement(net, halo) < 1e-12
    assert disagreement(net, halo + 16) < 1e-12
    assert disagreement(net, halo - 16) > 1e-12
    assert disagreement(net, halo, origin=8) > 1e-9, "tiles begin on multiples of the stride"


@pytest.mark.parametrize("name", ["leejunhyun-attention", "milu", "cropland", "unet++", "denseunet", "vgg16"])
def test_tiles_of_other_networks_are_exact(name):
    torch.manual_seed(0)
    net = make(name, 1, 2, width=1).double().eval()
    assert net.exact
    assert disagreement(net, net.halo) < 1e-12


@pytest.mark.parametrize("halo", [64, 96, 112, 128])
def test_no_halo_makes_aligned_interpolation_exact(halo):
    torch.manual_seed(0)
    net = build(UNetOptions(1, 2, 4, 2, "bilinear-aligned")).double().eval()
    assert disagreement(net, halo) > 1e-5


def test_a_dense_run_of_the_paper_is_one_window_per_block_of_scores():
    """Ciresan's way: of each 188 px window the 4 x 4 scores in its middle."""
    torch.manual_seed(0)
    net = make("paper", 1, 2, width=1).double().eval()
    image = torch.rand(1, 1, 220, 220, dtype=torch.float64)
    with torch.no_grad():
        dense = net(image)
        for top in (0, 16, 32):
            for left in (0, 16, 32):
                window = net(image[:, :, top : top + 188, left : left + 188])
                assert torch.allclose(window, dense[:, :, top : top + 4, left : left + 4], atol=1e-12)


def test_mirrored_tiles_of_the_paper_are_exact():
    torch.manual_seed(0)
    net = same_size(make("paper", 1, 2, width=1)).double().eval()
    assert (net.halo, net.stride, net.margin) == (96, 16, 0)
    assert disagreement(net, 96) < 1e-12


@pytest.mark.parametrize("side", [16, 48, 208])
def test_the_mirror_is_that_of_numpy(side):
    """Before the image 92 pixels, after it 96, as 188 + 16 k has it; repeated where the image is small."""
    import numpy as np

    net = same_size(make("paper", 1, 2, width=1)).eval()
    pixels_NCHW = torch.rand(1, 1, side, 2 * side)
    expected = np.pad(pixels_NCHW.numpy(), ((0, 0), (0, 0), (92, 96), (92, 96)), mode="reflect")
    with torch.no_grad():
        whole = net.net(torch.from_numpy(expected))
        assert torch.equal(net(pixels_NCHW), whole[:, :, :side, : 2 * side])


def test_finer_scores_of_repeated_pixels_are_the_networks_own():
    torch.manual_seed(0)
    net = make("tf-3x", 3, 3, width=2).eval()
    same = same_size(net)
    assert (same.stride, same.halo, same.scale) == (48, 288, 1)
    pixels_NCHW = torch.rand(1, 3, 32, 48)
    repeated = pixels_NCHW.repeat_interleave(3, 2).repeat_interleave(3, 3)
    with torch.no_grad():
        assert torch.allclose(same(repeated), net(pixels_NCHW), atol=1e-5)


@pytest.mark.parametrize("side", [384, 389, 392, 395])
def test_odd_sizes_touch_their_last_rows_and_columns_only(side):
    """A map of odd size loses its last row to pooling; far from there, nothing changes."""
    torch.manual_seed(0)
    net = make("milesial", 1, 2, width=1).double().eval()
    image = torch.rand(1, 1, 400, 400, dtype=torch.float64)
    inner = slice(0, side // 16 * 16 - 112)
    with torch.no_grad():
        whole, part = net(image), net(image[:, :, :side, :side])
    assert part.shape[2:] == (side, side)
    assert torch.equal(part[..., inner, inner], whole[..., inner, inner])

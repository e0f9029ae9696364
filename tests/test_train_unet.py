"""The U-Net's claims about itself, against its gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tiler.errors import UsageError  # noqa: E402
from train.models.network import parameters  # noqa: E402
from train.models.options import UPS, UNetOptions  # noqa: E402
from train.models.unet import UNet  # noqa: E402

EXACT_UPS = UPS[:-1]


def positive(net):
    """All weights positive, so that no dependency cancels or is cut off by a ReLU."""
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(value.abs() + 0.01)
    return net.double().eval()


def averaging(net):
    """Mean in place of max pooling: a maximum has a gradient only where it is reached."""
    net.pool = torch.nn.ModuleList(torch.nn.AvgPool2d(2) for _ in net.pool)
    return net


@pytest.mark.parametrize("up", EXACT_UPS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_reach_is_what_gradients_reach(depth, up):
    """A cell of stride x stride logits depends on just the pixels within `reach`: no fewer, no more."""
    net = averaging(positive(UNet(UNetOptions(1, 2, depth, 2, up))))
    side = net.stride * (2 * (net.halo // net.stride) + 5)
    first = net.stride * (side // net.stride // 2)
    cell = slice(first, first + net.stride)
    pixels_NCHW = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    net(pixels_NCHW)[0, :, cell, cell].sum().backward()

    touched = pixels_NCHW.grad[0, 0].nonzero()
    reach = first - int(touched.min()), int(touched.max()) - (cell.stop - 1)
    assert reach == net.geometry.reach
    assert net.halo % net.stride == 0
    assert 0 <= net.halo - max(reach) < net.stride


@pytest.mark.parametrize(
    ("up", "reach", "halo"), [("transposed", 94, 96), ("nearest1", 94, 96), ("bilinear", 110, 112)]
)
def test_published_reach_at_depth_four(up, reach, halo):
    net = UNet(UNetOptions(3, 2, 4, 1, up))
    assert (net.geometry.reach, net.halo, net.stride, net.exact) == ((reach, reach), halo, 16, True)


@pytest.mark.parametrize("up", EXACT_UPS)
def test_a_tile_with_its_halo_equals_the_whole(up):
    """What `exact` claims, on random weights and pixels."""
    torch.manual_seed(0)
    net = UNet(UNetOptions(3, 2, 2, 4, up)).eval()
    side, core = 4 * net.stride + 2 * net.halo, slice(net.halo, net.halo + 2 * net.stride)
    whole_NCHW = torch.rand(1, 3, side, side)
    tile_NCHW = whole_NCHW[..., : 2 * net.halo + 2 * net.stride, : 2 * net.halo + 2 * net.stride]
    with torch.inference_mode():
        expected, got = net(whole_NCHW)[..., core, core], net(tile_NCHW)[..., core, core]
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("up", EXACT_UPS)
def test_any_multiple_of_the_stride_goes_in_and_comes_out(up):
    net = UNet(UNetOptions(5, 3, 3, 4, up)).eval()
    assert net(torch.zeros(2, 5, 24, 40)).shape == (2, 3, 24, 40)


def test_the_default_network_fits_three_megabytes():
    assert 4 * parameters(UNet(UNetOptions(3, 2))) < 3e6


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"depth": 0}, "depth"), ({"up": "no"}, "up"), ({"width": 0}, "width"), ({"classes": 0}, "classes")],
)
def test_options_that_make_no_network(wrong, word):
    with pytest.raises(UsageError, match=word):
        UNetOptions(**{"in_channels": 3, "classes": 2, **wrong})

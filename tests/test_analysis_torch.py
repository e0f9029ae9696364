"""What PyTorch's exporters write: the U-Nets of `train`, and those of others."""

from __future__ import annotations

import copy
import io
import warnings
from fractions import Fraction
from functools import cache

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from export.onnx import quiet_exporter, trace  # noqa: E402
from tiler.analysis import analyse  # noqa: E402
from train.models.options import UPS, UNetOptions  # noqa: E402
from train.models.unet import UNet  # noqa: E402
from zoo import agree, dependence, pixels, runner  # noqa: E402


def exported(net, cell, dynamo, bands=1, example=None):
    """The graph of a network with dynamic axes, sides multiples of a cell, from either exporter."""
    side = example or 4 * cell
    image = torch.rand(2 if dynamo else 1, bands, side, side)
    names = {"input_names": ["pixels"], "output_names": ["scores"], "verbose": False}
    net = net.eval()
    if dynamo:
        dims = {0: torch.export.Dim("n"), 2: cell * torch.export.Dim("h"), 3: cell * torch.export.Dim("w")}
        if example:
            dims = {0: torch.export.Dim("n"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        with quiet_exporter():
            program = torch.onnx.export(
                net, (image,), dynamo=True, dynamic_shapes=(dims,), external_data=False, **names
            )
        return program.model_proto
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"pixels": {0: "n", 2: "h", 3: "w"}}
        torch.onnx.export(net, (image,), stream, dynamo=False, dynamic_axes=axes, opset_version=17, **names)
    return onnx.load_from_string(stream.getvalue())


def double(inside, outside, padding=1, norm=None):
    layers = []
    for c in (inside, outside):
        layers += [
            nn.Conv2d(c, outside, 3, padding=padding),
            norm(outside) if norm else nn.Identity(),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Classic(nn.Module):
    """A U-Net of one or two channels with everything that may differ."""

    def __init__(self, depth=2, up="transposed", padding=1, norm=None, head=1, strided=False, odd=False):
        super().__init__()
        self.depth, self.padding, self.odd = depth, padding, odd
        self.down = nn.ModuleList(
            [double(1, 2, padding, norm), *(double(2, 2, padding, norm) for _ in range(depth))]
        )
        self.pool = nn.ModuleList(
            nn.Conv2d(2, 2, 3, 2, 1) if strided else nn.MaxPool2d(2) for _ in range(depth)
        )
        self.grow = nn.ModuleList(grown(up) for _ in range(depth))
        self.merge = nn.ModuleList(double(4, 2, padding, norm) for _ in range(depth))
        self.head = nn.Conv2d(2, 2, head, padding=head // 2)

    def forward(self, x):
        x = self.down[0](x)
        skips = []
        for down, pool in zip(self.down[1:], self.pool, strict=True):
            skips.append(x)
            x = down(pool(x))
        for grow, merge in zip(self.grow, self.merge, strict=True):
            x = merge(self.join(skips.pop(), grow(x)))
        return self.head(x)

    def join(self, skip, x):
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if self.odd:  # as milesial pads for odd sizes
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        elif not self.padding:
            top, left = rows // 2, columns // 2
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        return torch.cat([skip, x], 1)


def grown(up):
    if up == "transposed":
        return nn.ConvTranspose2d(2, 2, 2, 2)
    if up == "nearest":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 1))
    if up == "nearest3":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1))
    if up == "shuffle":
        return nn.Sequential(nn.Conv2d(2, 8, 1), nn.PixelShuffle(2))
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=up == "corners")


def receptive(net, cell, cells, core):
    """Pixels before and after a core that its scores' gradient reaches, in float64 with positive weights."""
    net = net.double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.05 + torch.rand_like(weight) / 10)
    # The same value everywhere would let max-pooling choose one side only.
    found = []
    for seed in range(4):
        torch.manual_seed(seed)
        image = torch.rand(1, 1, cells * cell, cells * cell, dtype=torch.float64, requires_grad=True)
        net(image)[..., core * cell : (core + 1) * cell, core * cell : (core + 1) * cell].sum().backward()
        hit = image.grad[0, 0].abs().sum(0).nonzero()
        found.append((core * cell - int(hit.min()), int(hit.max()) - (core + 1) * cell + 1))
    return max(f[0] for f in found), max(f[1] for f in found)


def positive(net):
    """The network with positive weights, so that no ReLU masks anything."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.abs_()
    return net


def averaged(net):
    """Average instead of largest: it depends on all that the largest may depend on."""
    for name, child in net.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(net, name, nn.AvgPool2d(2))
        else:
            averaged(child)
    return net


@cache
def own(depth, up):
    """One of our U-Nets and what its graph says."""
    torch.manual_seed(0)
    net = UNet(UNetOptions(1, 2, depth, 1, up)).eval()
    return net, analyse(trace(net))


DEPTHS = [1, 2, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (3, 4))]


@pytest.mark.parametrize("up", UPS[:-1])
@pytest.mark.parametrize("depth", DEPTHS)
def test_our_own_unets(up, depth):
    net, analysis = own(depth, up)
    assert analysis.exact
    assert (analysis.stride, analysis.rows.before, analysis.rows.after) == (net.stride, *net.geometry.reach)
    assert analysis.rows == analysis.columns
    assert analysis.rows.smallest == net.stride
    assert analysis.rows.scale == 1


@pytest.mark.parametrize("up", UPS[:-1])
@pytest.mark.parametrize("depth", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_autograd_agrees(up, depth):
    """The third opinion: neither the graph nor the network's own formula."""
    net, analysis = own(depth, up)
    cells = 2 * -(-analysis.halo // net.stride) + 3
    found = receptive(averaged(copy.deepcopy(net)), net.stride, cells, cells // 2)
    assert found == (analysis.rows.before, analysis.rows.after)


PUBLISHED = {
    # From docs of the seed systems: depth, arguments, halo before and after.
    "transposed 2": (2, {}, 22, 22),
    "transposed 3": (3, {}, 46, 46),
    "transposed 4": (4, {}, 94, 94),
    "transposed 5": (5, {}, 190, 190),
    "nearest 4": (4, {"up": "nearest"}, 94, 94),
    "bilinear 4": (4, {"up": "bilinear"}, 110, 110),
    "bilinear 5": (5, {"up": "bilinear"}, 222, 222),
    "nearest and 3x3, 4": (4, {"up": "nearest3"}, 110, 110),
    "sub-pixel 4": (4, {"up": "shuffle"}, 94, 94),
    "strided and 3x3 head, 4": (4, {"up": "nearest", "strided": True, "head": 3}, 109, 94),
    "padded to the skip, 4": (4, {"odd": True}, 94, 94),
}


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [(name, False) for name in PUBLISHED]
    + [pytest.param(name, True, marks=pytest.mark.slow) for name in PUBLISHED],
)
def test_published_halos(name, dynamo):
    depth, arguments, before, after = PUBLISHED[name]
    torch.manual_seed(0)
    analysis = analyse(exported(Classic(depth, **arguments), 2**depth, dynamo))
    assert analysis.reasons == ()
    for axis in (analysis.rows, analysis.columns):
        assert (axis.stride, axis.before, axis.after) == (2**depth, before, after)
        assert (axis.residue, axis.margin_before, axis.scale) == (0, 0, Fraction(1))


VALID = {1: (16, 18, 2, 0), 2: (40, 44, 4, 0), 3: (88, 92, 4, 4), 4: (184, 188, 4, 12), 5: (376, 380, 4, 28)}
"""Depth -> pixels lost, smallest size, its scores, residue modulo 2^depth."""


@pytest.mark.parametrize(
    ("depth", "dynamo"),
    [
        (1, False),
        (2, False),
        (3, False),
        (4, False),
        (5, False),
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_the_classic_without_padding(depth, dynamo):
    lost, least, scores, residue = VALID[depth]
    torch.manual_seed(0)
    net = Classic(depth, padding=0)
    axis = analyse(exported(net, 2**depth, dynamo, example=least + 2**depth)).rows
    assert (axis.margin_before, axis.margin_after) == (lost // 2, lost // 2)
    assert axis.before == lost // 2
    assert (axis.smallest, axis.scores(least), axis.residue) == (least, scores, residue % 2**depth)
    assert depth != 4 or axis.scores(572) == 388
    if depth == 2:
        proto = exported(positive(net), 4, dynamo, example=least + 4)
        length = least + 5 * 4
        assert dependence(runner(proto), axis, 1, length, axis.margin_before) == (axis.before, axis.after)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))


class Attention(nn.Module):
    """Every position with every other."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = tokens, tokens * 2, tokens * 3
        mixed = torch.softmax(q @ k.transpose(1, 2), -1) @ v
        return mixed.transpose(1, 2).reshape(n, c, h, w)


INEXACT = {
    "corners": (lambda: Classic(up="corners"), "align_corners"),
    "instance": (lambda: Classic(norm=nn.InstanceNorm2d), "InstanceNormalization"),
    "group": (lambda: Classic(norm=lambda c: nn.GroupNorm(1, c)), "ormalization"),
    "gate": (Gate, "GlobalAveragePool' or 'ReduceMean"),
    "attention": (Attention, "attention"),
}


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [(name, False) for name in INEXACT]
    + [pytest.param(name, True, marks=() if name == "group" else pytest.mark.slow) for name in INEXACT],
)
def test_inexact_networks_name_the_operator(name, dynamo):
    build, reason = INEXACT[name]
    torch.manual_seed(0)
    analysis = analyse(exported(build(), 4, dynamo))
    assert not analysis.exact
    assert any(part in found for part in reason.split("' or '") for found in analysis.reasons), (
        analysis.reasons
    )


def block(inside, outside, stride=1):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU())


class Residual(nn.Module):
    """The shape of a U-Net on a ResNet: 7x7 stem, overlapping pooling, targets sized as the skips are."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 7, 2, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.down = nn.ModuleList([nn.Sequential(nn.MaxPool2d(3, 2, 1), block(4, 4)), block(4, 4, 2)])
        self.merge = nn.ModuleList([block(8, 4), block(8, 4)])
        self.head = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        fine = self.stem(x)
        middle = self.down[0](fine)
        y = self.down[1](middle)
        for merge, skip in zip(self.merge, (middle, fine), strict=True):
            y = merge(torch.cat([F.interpolate(y, size=skip.shape[2:], mode="bilinear"), skip], 1))
        return F.interpolate(self.head(y), size=x.shape[2:], mode="bilinear")


class Modern(nn.Module):
    """A patch stem, a wide depthwise window, layer norm and layers over channels: ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(1, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.layers = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Conv2d(8, 32, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.layers(self.wide(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(self.head(x + y), 4)


@pytest.mark.parametrize(("build", "stride"), [(Residual, 8), (Modern, 4)])
def test_other_architectures(build, stride):
    torch.manual_seed(0)
    proto = exported(build(), stride, False)
    analysis, run = analyse(proto), runner(proto)
    assert analysis.exact
    assert analysis.stride == stride
    axis = analysis.columns
    tile = -(-axis.before // stride) * stride + -(-axis.after // stride) * stride + 2 * stride
    image = pixels(1, 2 * stride, tile + 3 * stride)
    whole = image, run(image)
    assert all(agree(run, whole, axis, i * stride, tile) for i in range(4))


@pytest.mark.parametrize("up", ["bilinear", "shuffle"])
def test_exported_networks_in_tiles(up):
    torch.manual_seed(0)
    net = Classic(2, up)
    proto = exported(positive(net), 4, False)
    analysis, run = analyse(proto), runner(proto)
    image = pixels(1, 16, 160)
    whole = image, run(image)
    for start in (0, 32, 64):
        assert agree(run, whole, analysis.columns, start, 96)
    assert not agree(run, whole, analysis.columns, 32, 96, halo=(analysis.columns.before - 8,) * 2)
    assert np.isfinite(whole[1]).all()

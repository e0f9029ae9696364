"""What public repositories compute, written down anew from what is known of their layers.

Each function runs a network of one of them on given pixels, with weights by the names that the repository's
files have; `Weights` makes them up as they are asked for. So a run gives both a state dict and the truth.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812


class Weights:
    """Random weights by name, made when they are first used."""

    def __init__(self, seed=0):
        self.state, self.made = {}, torch.Generator().manual_seed(seed)

    def get(self, name, *shape, low=-0.3, high=0.3):
        """Uniform values."""
        if name not in self.state:
            self.state[name] = low + (high - low) * torch.rand(*shape, generator=self.made)
        return self.state[name]

    def conv(self, name, x, outside, k=3, stride=1, bias=True, reflect=False):
        weight = self.get(f"{name}.weight", outside, x.shape[1], k, k)
        b = self.get(f"{name}.bias", outside) if bias else None
        pad = k // 2
        if reflect and pad:
            return F.conv2d(F.pad(x, [pad] * 4, mode="reflect"), weight, b, stride)
        return F.conv2d(x, weight, b, stride, pad)

    def grow(self, name, x, outside):
        """A transposed convolution."""
        weight = self.get(f"{name}.weight", x.shape[1], outside, 2, 2)
        return F.conv_transpose2d(x, weight, self.get(f"{name}.bias", outside), 2)

    def norm(self, name, x):
        """Batch normalisation in evaluation mode."""
        c = x.shape[1]
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        mean, var = self.get(f"{name}.running_mean", c), self.get(f"{name}.running_var", c, low=0.5, high=1.5)
        return F.batch_norm(
            x, mean, var, self.get(f"{name}.weight", c, high=1.0), self.get(f"{name}.bias", c)
        )

    def pair(self, prefix, x, channels, at=(0, 1, 3, 4), act=F.relu, **more):
        """Two convolutions, each with batch normalisation, at these places of a sequence."""
        names = [f"{prefix}{i}" for i in at]
        for conv, norm, c in zip(names[::2], names[1::2], channels, strict=True):
            x = act(self.norm(norm, self.conv(conv, x, c, **more)))
        return x


def aligned(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def to_skip(x, skip):
    rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
    return F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])


def milesial_like(w, x, c, classes, bilinear, names):
    """Of milesial and of WZMIAOMIAO, which call the same layers otherwise."""
    first, down, up, merge, head = names
    skips = [w.pair(first, x, (c, c), bias=False)]
    for i in range(1, 5):
        out = c * 2**i // (2 if bilinear and i == 4 else 1)
        skips.append(w.pair(down.format(i), F.max_pool2d(skips[-1], 2), (out, out), bias=False))
    x = skips.pop()
    for i in range(1, 5):
        level, skip = 4 - i, skips.pop()
        out = c * 2**level // (2 if bilinear and level else 1)
        x = to_skip(aligned(x) if bilinear else w.grow(up.format(i), x, c * 2**level), skip)
        x = torch.cat([skip, x], 1)
        middle = x.shape[1] // 2 if bilinear else out
        x = w.pair(merge.format(i), x, (middle, out), bias=False)
    return w.conv(head, x, classes, 1)


def milesial(w, x, c, classes, bilinear=False):
    dc = "double_conv."
    names = f"inc.{dc}", f"down{{}}.maxpool_conv.1.{dc}", "up{}.up", f"up{{}}.conv.{dc}", "outc.conv"
    return milesial_like(w, x, c, classes, bilinear, names)


def wzm(w, x, c, classes, bilinear=True):
    names = "in_conv.", "down{}.1.", "up{}.up", "up{}.conv.", "out_conv.0"
    return milesial_like(w, x, c, classes, bilinear, names)


VGG = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Places of VGG-16's convolutions among its layers, by level; times of the width are 1, 2, 4, 8, 8."""
VGG_NORMED = ((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40))


def vgg(w, x, c, prefix, normed):
    maps = []
    for level, places in enumerate(VGG_NORMED if normed else VGG):
        x = F.max_pool2d(x, 2) if level else x
        for i in places:
            x = w.conv(f"{prefix}{i}", x, c * min(2**level, 8))
            x = F.relu(w.norm(f"{prefix}{i + 1}", x) if normed else x)
        maps.append(x)
    return maps


def wzm_vgg(w, x, c, classes):
    *skips, x = vgg(w, x, c, "backbone.", normed=True)
    for i in range(1, 5):
        skip = skips.pop()
        x = torch.cat([skip, to_skip(aligned(x), skip)], 1)
        x = w.pair(f"up{i}.conv.", x, (x.shape[1] // 2, skip.shape[1]), bias=False)
    return w.conv("conv.0", x, classes, 1)


def merged(w, x, skips, c):
    for i in range(4, 0, -1):
        x = torch.cat([skips.pop(), aligned(x)], 1)
        for k in (1, 2):
            x = F.relu(w.conv(f"up_concat{i}.conv{k}", x, c * 2 ** (i - 1)))
    return x


def bubbliiiing_vgg(w, x, c, classes):
    *skips, x = vgg(w, x, c, "vgg.features.", normed=False)
    return w.conv("final", merged(w, x, skips, c), classes, 1)


def bottleneck(w, x, name, planes, stride):
    y = F.relu(w.norm(f"{name}.bn1", w.conv(f"{name}.conv1", x, planes, 1, bias=False)))
    y = F.relu(w.norm(f"{name}.bn2", w.conv(f"{name}.conv2", y, planes, 3, stride, bias=False)))
    y = w.norm(f"{name}.bn3", w.conv(f"{name}.conv3", y, 4 * planes, 1, bias=False))
    if x.shape != y.shape:
        x = w.norm(
            f"{name}.downsample.1", w.conv(f"{name}.downsample.0", x, 4 * planes, 1, stride, bias=False)
        )
    return F.relu(x + y)


def resnet50(w, x, c, prefix, pool):
    maps = [F.relu(w.norm(f"{prefix}bn1", w.conv(f"{prefix}conv1", x, c, 7, 2, bias=False)))]
    x = pool(maps[0])
    for stage, count in enumerate((3, 4, 6, 3)):
        for i in range(count):
            stride = 2 if stage and i == 0 else 1
            x = bottleneck(w, x, f"{prefix}layer{stage + 1}.{i}", c * 2**stage, stride)
        maps.append(x)
    return maps


def bubbliiiing_resnet50(w, x, c, classes):
    *skips, x = resnet50(w, x, c, "resnet.", lambda y: F.max_pool2d(y, 3, 2, 0, ceil_mode=True))
    x = aligned(merged(w, x, skips, c))
    for i in (1, 3):
        x = F.relu(w.conv(f"up_conv.{i}", x, c))
    return w.conv("final", x, classes, 1)


def milu(w, x, c, classes, *, listing=False):
    """V2; or the listing after V1, without its sigmoid."""
    convs, down, up, head = ("C{}.layer.", "D{}.Down.", "U{}.Up", "pred") if listing else (
        "c{}.layer.", "d{}.layer.", "u{}.layer", "out",
    )  # fmt: skip
    style = {
        "at": (0, 1, 4, 5),
        "act": lambda y: F.leaky_relu(y, 0.01),
        "bias": listing,
        "reflect": not listing,
    }
    skips = [w.pair(convs.format(1), x, (c, c), **style)]
    for i in range(1, 5):
        x = w.conv(f"{down.format(i)}0", skips[-1], c * 2 ** (i - 1), 3, 2, bias=listing, reflect=not listing)
        x = F.leaky_relu(x if listing else w.norm(f"{down.format(i)}1", x), 0.01)
        skips.append(w.pair(convs.format(i + 1), x, (c * 2**i,) * 2, **style))
    x = skips.pop()
    for i in range(1, 5):
        out = c * 2 ** (4 - i)
        x = w.conv(up.format(i), F.interpolate(x, scale_factor=2, mode="nearest"), out, 1)
        x = w.pair(convs.format(i + 5), torch.cat([x, skips.pop()], 1), (out, out), **style)
    return w.conv(head, x, classes, 3)


def vgg_block(w, name, x, out):
    for k in (1, 2):
        x = F.relu(w.norm(f"{name}.bn{k}", w.conv(f"{name}.conv{k}", x, out)))
    return x


def nested_unet(w, x, c, classes):
    maps = [vgg_block(w, "conv0_0", x, c)]
    for i in range(1, 5):
        maps.append(vgg_block(w, f"conv{i}_0", F.max_pool2d(maps[-1], 2), c * 2**i))
    x = maps.pop()
    for i in range(3, -1, -1):
        x = vgg_block(w, f"conv{i}_{4 - i}", torch.cat([maps.pop(), aligned(x)], 1), c * 2**i)
    return w.conv("final", x, classes, 1)


def nested(w, x, c, classes, *, supervised=False):
    """All heads, or the one."""
    made = {}
    for j in range(5):
        for i in range(5 - j):
            below = x if i == 0 else F.max_pool2d(made[i - 1, 0], 2) if j == 0 else None
            if j:
                below = torch.cat([*(made[i, k] for k in range(j)), aligned(made[i + 1, j - 1])], 1)
            made[i, j] = vgg_block(w, f"conv{i}_{j}", below, c * 2**i)
    if supervised:
        return [w.conv(f"final{j}", made[0, j], classes, 1) for j in range(1, 5)]
    return w.conv("final", made[0, 4], classes, 1)


def lee(w, x, c, classes, *, attention=False):
    skips = [w.pair("Conv1.conv.", x, (c, c))]
    for i in range(2, 6):
        skips.append(w.pair(f"Conv{i}.conv.", F.max_pool2d(skips[-1], 2), (c * 2 ** (i - 1),) * 2))
    x = skips.pop()
    for i in range(5, 1, -1):
        out, skip = c * 2 ** (i - 2), skips.pop()
        x = F.relu(w.norm(f"Up{i}.up.2", w.conv(f"Up{i}.up.1", F.interpolate(x, scale_factor=2), out)))
        if attention:
            sums = [
                w.norm(f"Att{i}.{side}.1", w.conv(f"Att{i}.{side}.0", y, out // 2, 1))
                for side, y in (("W_g", x), ("W_x", skip))
            ]
            psi = w.norm(f"Att{i}.psi.1", w.conv(f"Att{i}.psi.0", F.relu(sum(sums)), 1, 1))
            skip = skip * torch.sigmoid(psi)
        x = w.pair(f"Up_conv{i}.conv.", torch.cat([skip, x], 1), (out, out))
    return w.conv("Conv_1x1", x, classes, 1)


def cropland(w, x, c, classes):
    style = {"at": (0, 1, 4, 5), "act": lambda y: F.leaky_relu(y, 0.01), "reflect": True}
    skips = [w.pair("inc.double_conv.", x, (c, c), **style)]
    for i in range(1, 5):
        x = F.max_pool2d(skips[-1], 2)
        skips.append(w.pair(f"down{i}.maxpool_conv.1.double_conv.", x, (c * 2**i,) * 2, **style))
    x = skips.pop()
    for i in range(1, 5):
        out = c * 2 ** (4 - i)
        x = torch.cat([skips.pop(), w.grow(f"up{i}.up", x, out)], 1)
        x = w.pair(f"up{i}.conv.double_conv.", x, (out, out), **style)
    return w.conv("outc.conv", x, classes, 1)

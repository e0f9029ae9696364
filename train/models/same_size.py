"""Networks made to return one score per pixel that they are fed, as `tiler` wants them.

Pixels without a score get one from a mirror image around what is fed; scores finer than pixels are fed
pixels as fine as they are. Both are part of the network that is exported and evaluated, and are exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - as everyone calls it

from tiler.analysis.interval import Window
from train.models.geometry import Geometry
from train.models.network import Network

if TYPE_CHECKING:
    from torch import Tensor

    from tiler.spec import ModelSpec


class Mirrored(Network):
    """A network without padding on its image and a mirror image of it around; any multiple of the stride.

    Before the image lies the margin, after it as much more as legal sizes ask. A small image is mirrored
    repeatedly, as ``numpy.pad(mode="reflect")`` does it.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net, self.options = net, net.options
        self.before = net.margin
        self.after = net.margin + (net.geometry.residue - 2 * net.margin) % net.stride

    @property
    def geometry(self) -> Geometry:
        """See `Network.geometry`."""
        own = self.net.geometry
        return Geometry((*own.path, Window(1, 1, self.before)), own.stride, own.scale, least=own.stride)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Logits (N, K, H, W); with ``upscale`` r (N, K, r H, r W)."""
        self.check_size(pixels_NCHW)
        height, width = pixels_NCHW.shape[2:]
        padded_NCHW = self._mirrored(self._mirrored(pixels_NCHW, 2), 3)
        logits_NKHW: Tensor = self.net(padded_NCHW)
        return logits_NKHW[:, :, : height * self.scale, : width * self.scale]

    def _mirrored(self, x: Tensor, axis: int) -> Tensor:
        there = torch.arange(-self.before, x.shape[axis] + self.after, device=x.device)
        last = there[-1:] - self.after  # as a tensor: the exporter divides by nothing else
        return x.index_select(axis, last - (there % (2 * last) - last).abs())


class Finer(Network):
    """A network of finer scores than pixels, fed pixels as fine as its scores: their means come first.

    So images, labels and maps lie on one grid, r times as fine as what the network sees, and that grid's
    resolution is the one of the model's spec. A coarser image is brought to it with ``--resolution`` (metres
    per pixel), and ``--grid model`` keeps the map there; of an image whose pixels are repeated r x r times it
    makes what the network makes of the image.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net, self.options, self.times = net, net.options, net.scale

    @property
    def geometry(self) -> Geometry:
        """See `Network.geometry`."""
        own, r = self.net.geometry, self.times
        return Geometry((*own.path, Window(r, r)), own.stride * r, least=own.least * r)

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        """Logits (N, K, H, W)."""
        self.check_size(pixels_NCHW)
        logits_NKHW: Tensor = self.net(F.avg_pool2d(pixels_NCHW, self.times))
        return logits_NKHW


def same_size(net: Network) -> Network:
    """A network with one score per pixel; the network itself if it has that."""
    wrapped = Mirrored(net) if net.margin else net
    return Finer(wrapped) if wrapped.scale > 1 else wrapped


def same_size_spec(spec: ModelSpec, net: Network) -> ModelSpec:
    """A spec with the stride, the halo and the exactness of `same_size` of a network."""
    same = same_size(net)
    return replace(spec, stride=same.stride, halo=same.halo, exact=same.exact)

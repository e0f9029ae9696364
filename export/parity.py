"""Does the exported file compute what the network does? Asked on real pixels, at sizes it has not seen.

Shapes: N images, C bands, K classes, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiler.errors import InputError
from tiler.geometry import Window
from tiler.tiles import network_input, read_mirrored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from tiler.finish import Finisher
    from tiler.ports import Raster
    from tiler.spec import ModelSpec

    Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two networks on one batch."""

    shape: tuple[int, ...]
    """Of the input: N, C, H, W."""
    difference: float
    """Largest absolute difference of their logits, in standard deviations of the first one's."""
    labels: float
    """Share of labels that are the same, in [0, 1]."""

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return f"{shape:>20} {self.difference:>14.2e} {self.labels:>14.4%}"


HEADER = f"{'input (N, C, H, W)':>20} {'max |diff| / sd':>14} {'same labels':>14}"


def compare(
    reference: Network, candidate: Network, batches: Iterable[NDArray[np.float32]], finisher: Finisher
) -> list[Agreement]:
    """Run both on each batch; ``finisher`` is how their scores become labels."""
    return [
        agreement(batch_NCHW, reference(batch_NCHW), candidate(batch_NCHW), finisher)
        for batch_NCHW in batches
    ]


def agreement(
    batch_NCHW: NDArray[Any],
    expected_NKHW: NDArray[np.float32],
    got_NKHW: NDArray[np.float32],
    finisher: Finisher,
) -> Agreement:
    """Compare two results for one batch; a difference that is no number counts as infinite."""
    spread = float(expected_NKHW.std()) or 1.0
    difference = float(np.abs(got_NKHW - expected_NKHW).max()) / spread
    valid_HW = np.ones(batch_NCHW.shape[2:], np.bool_)
    same = [
        (finisher(a_KHW, valid_HW) == finisher(b_KHW, valid_HW)).mean()
        for a_KHW, b_KHW in zip(*map(np.ascontiguousarray, (expected_NKHW, got_NKHW)), strict=True)
    ]
    finite = difference if np.isfinite(difference) else float("inf")
    return Agreement(batch_NCHW.shape, finite, float(np.mean(same)))


def real_batches(raster: Raster, spec: ModelSpec, least: int = 1) -> Iterator[NDArray[np.float32]]:
    """Pixels around the raster's middle as the network is fed them: three sizes, one image and three.

    ``least`` is the smallest side that it takes, in pixels.
    """
    stride = spec.stride or 1
    near = max(1, 96 // stride, -(-least // stride))
    for count, rows, columns in ((1, near, near + 1), (3, near + 2, near), (1, 2 * near + 1, 3 * near)):
        yield _batch(raster, spec, count, (rows * stride, columns * stride))


def _batch(raster: Raster, spec: ModelSpec, count: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    top, left = (raster.info.height - shape[0]) // 2, (raster.info.width - shape[1]) // 2
    middle = Window(top, left, top + shape[0], left + shape[1])
    windows = [middle.shifted(17 * n, 29 * n) for n in range(count)]
    pixels = [read_mirrored(raster, window) for window in windows]
    if not any(p.valid_HW.any() for p in pixels):
        raise InputError(f"--raster has data in its middle, got none in {raster.info.name}; name another")
    return np.stack([network_input(p, spec, np.dtype(np.float32)) for p in pixels])

"""Losses of edges: three that go by differences of neighbours, and one by the distance to the edge.

Each is 0 or lowest for the perfect answer, larger for one that says nothing, largest for the inverted one;
and finite where there is no edge. The border of the image is no edge, nor is that of unknown pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from train.losses.across import ratio, summed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from train.losses.comparison import Comparison
    from train.losses.options import LossOptions

LEAST: Final = 1e-2
"""Probability of an edge where there is none at all, so that its logarithm and slope stay small."""


def boundary_gradient(both: Comparison, options: LossOptions) -> Tensor:
    """One minus the Dice of the steps between neighbours, signs included: 0 to 2, mean over classes."""
    del options
    pairs = _pairs(both.known)
    found, true = _steps(both.shares) * pairs, _steps(both.truth_NKHW) * pairs
    over = (0, 1, 3, 4)
    overlap_K, sizes_K = summed(torch.stack([2 * (found * true).sum(over), (found**2 + true**2).sum(over)]))
    # One step in both, so that an edge of a hair where there should be none does not cost everything.
    loss: Tensor = (1 - (overlap_K + 1) / (sizes_K + 1)).mean()
    return loss


def boundary_band(both: Comparison, options: LossOptions) -> Tensor:
    """Cross entropy of each class in the band around its edge, plus that in the rest; mean over classes."""
    del options
    cost_NKHW = functional.binary_cross_entropy_with_logits(
        both.binary_logits, both.truth_NKHW, reduction="none"
    )
    return _halves(cost_NKHW, band(both.truth_NKHW, both.known), both.known, over=(0, 2, 3))


def band(truth_NKHW: Tensor, known: Tensor) -> Tensor:
    """1 in the pixels that have a known neighbour (of 8) of the other kind."""
    grown_NKHW = functional.max_pool2d(truth_NKHW, 3, stride=1, padding=1)
    other_NKHW = functional.max_pool2d((1 - truth_NKHW) * known, 3, stride=1, padding=1)
    return grown_NKHW * other_NKHW * known


def boundary_edge(both: Comparison, options: LossOptions) -> Tensor:
    """Cross entropy of edges, where there are some plus where there are none; mean over classes.

    Rising and falling edges differ: else the inverted answer would be as good as the perfect one.
    """
    del options
    found, true = _edges(both.shares), _edges(both.truth_NKHW)
    share = LEAST + (1 - 2 * LEAST) * found
    cost = -torch.where(true > 0, share, 1 - share).log()
    pairs = _pairs(both.known).expand(2, *both.truth_NKHW.shape)
    return _halves(cost, true, torch.cat([pairs, pairs]), over=(0, 1, 3, 4))


def boundary_distance(both: Comparison, options: LossOptions) -> Tensor:
    """Mean of probability times signed distance to the edge, pixels (Kervadec et al. 2019, arXiv:1812.07032).

    It may be negative. The distances are computed on the CPU, a tenth of a second per Mpx and class.
    """
    del options
    distance_NKHW = torch.stack(
        [
            _signed_distances(truth_KHW, known_KHW)
            for truth_KHW, known_KHW in zip(
                both.truth_NKHW, both.known.expand_as(both.truth_NKHW), strict=True
            )
        ]
    )
    known = both.known.expand_as(distance_NKHW)
    return ratio((both.shares * distance_NKHW * known).sum(), known.sum())


def _signed_distances(truth_KHW: Tensor, known_KHW: Tensor) -> Tensor:
    planes = [
        signed_distance(truth_HW.cpu().numpy() > 0, known_HW.cpu().numpy() > 0)
        for truth_HW, known_HW in zip(truth_KHW, known_KHW, strict=True)
    ]
    return torch.from_numpy(np.stack(planes)).to(truth_KHW.device)


def signed_distance(inside_HW: NDArray[np.bool_], known_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest one inside; of those inside, 1 minus that to the nearest outside.

    So both sides of the edge are at 1 and 0. All 0 where there is no inside, or no outside.
    """
    outside_HW = known_HW & ~inside_HW
    if not inside_HW.any() or not outside_HW.any():
        return np.zeros(inside_HW.shape, np.float32)
    to_inside_HW, to_outside_HW = distance_transform_edt(~inside_HW), distance_transform_edt(~outside_HW)
    return np.asarray(np.where(inside_HW, 1 - to_outside_HW, to_inside_HW), np.float32)


def _steps(x_NKHW: Tensor) -> Tensor:
    """Differences to the next column and to the next row, (2, N, K, H, W); 0 at the last."""
    across = functional.pad(x_NKHW[..., 1:] - x_NKHW[..., :-1], (0, 1))
    down = functional.pad(x_NKHW[..., 1:, :] - x_NKHW[..., :-1, :], (0, 0, 0, 1))
    return torch.stack([across, down])


def _pairs(known: Tensor) -> Tensor:
    """1 where both pixels of a step are known, shaped as `_steps`."""
    across = functional.pad(known[..., 1:] * known[..., :-1], (0, 1))
    down = functional.pad(known[..., 1:, :] * known[..., :-1, :], (0, 0, 0, 1))
    return torch.stack([across, down])


def _edges(x_NKHW: Tensor) -> Tensor:
    """Rising, then falling steps, (4, N, K, H, W), 0 to 1."""
    steps = _steps(x_NKHW)
    # Not relu: its slope at 0 is 0, and an answer without any edge would never get one.
    return torch.cat([steps, -steps]).clamp(0, 1)


def _halves(cost: Tensor, chosen: Tensor, known: Tensor, over: tuple[int, ...]) -> Tensor:
    """Mean cost of what is chosen plus mean cost of the rest, per class; then the mean over classes."""
    weights = torch.stack([chosen * known, (1 - chosen) * known])
    part_2K = torch.stack([(cost * weight).sum(over) for weight in weights])
    whole_2K = torch.stack([weight.sum(over) for weight in weights])
    return ratio(part_2K, whole_2K).sum(dim=0).mean()

"""The boundary losses: what they prefer, and what they do where there is no edge."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from train.data.target import IGNORE  # noqa: E402
from train.losses.boundary import band, signed_distance  # noqa: E402
from train.losses.make import make_loss  # noqa: E402
from train.losses.options import LossOptions  # noqa: E402

BOUNDARY = ("boundary-gradient", "boundary-band", "boundary-edge", "boundary-distance")
SQUARE_NHW = torch.zeros(1, 12, 12, dtype=torch.long)
SQUARE_NHW[:, 4:8, 4:8] = 1


def cost(term, logits_HW, target_NHW=SQUARE_NHW, *, softmax=False):
    """Of one foreground logit per pixel, alone or against a background of 0."""
    logits_N1HW = logits_HW[None, None].float()
    zeros_N1HW = torch.zeros_like(logits_N1HW)
    logits_NKHW = torch.cat([zeros_N1HW, logits_N1HW], dim=1) if softmax else logits_N1HW
    options = LossOptions(term, activation="softmax" if softmax else "sigmoid")
    return float(make_loss(options)(logits_NKHW, target_NHW, torch.ones(1, 1, 1)))


def sure(target_NHW):
    """Logits of the perfect answer."""
    return 40.0 * (2 * target_NHW[0] - 1)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("term", BOUNDARY)
def test_perfect_is_less_than_constant_is_less_than_inverted(term, softmax):
    perfect = sure(SQUARE_NHW)
    costs = [cost(term, z, softmax=softmax) for z in (perfect, torch.zeros(12, 12), -perfect)]
    assert costs[0] < costs[1] < costs[2]
    assert all(map(math.isfinite, costs))


@pytest.mark.parametrize("term", BOUNDARY[:3])
def test_perfect_costs_next_to_nothing(term):
    assert cost(term, sure(SQUARE_NHW)) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("term", BOUNDARY)
def test_masks_without_an_edge_are_finite(term, softmax, value):
    """All background, or all foreground."""
    target_NHW = torch.full((1, 12, 12), value)
    logits_NKHW = torch.randn(
        1, 1 + softmax, 12, 12, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    options = LossOptions(term, activation="softmax" if softmax else "sigmoid")
    loss = make_loss(options)(logits_NKHW, target_NHW, torch.ones(1, 1, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits_NKHW.grad).all()


@pytest.mark.parametrize("term", BOUNDARY)
def test_a_false_object_away_from_the_edge_costs(term):
    with_blob = sure(SQUARE_NHW)
    with_blob[0:3, 0:3] = 40
    assert cost(term, with_blob) > cost(term, sure(SQUARE_NHW)) + 1e-3


@pytest.mark.parametrize("term", BOUNDARY)
def test_a_constant_answer_learns(term):
    """Its gradient points to the truth: more inside, or less outside."""
    logits_NKHW = torch.zeros(1, 1, 12, 12, requires_grad=True)
    make_loss(LossOptions(term, activation="sigmoid"))(
        logits_NKHW, SQUARE_NHW, torch.ones(1, 1, 1)
    ).backward()
    inside, outside = logits_NKHW.grad[0, 0, 4:8, 4:8].mean(), logits_NKHW.grad[0, 0, 1:11, 1:11].mean()
    assert inside < outside


def test_the_band_of_a_square():
    """Of 4 x 4 pixels: an outer ring of 20 and an inner one of 12."""
    truth_NKHW = SQUARE_NHW[:, None].float()
    band_NKHW = band(truth_NKHW, torch.ones_like(truth_NKHW))
    assert int((band_NKHW * (1 - truth_NKHW)).sum()) == 20
    assert int((band_NKHW * truth_NKHW).sum()) == 12
    assert int(band_NKHW.sum()) == 32


def test_neither_the_border_nor_the_unknown_is_an_edge():
    truth_NKHW = torch.ones(1, 1, 8, 8)
    known_NKHW = torch.ones(1, 1, 8, 8)
    known_NKHW[..., 4:] = 0
    assert int(band(truth_NKHW * known_NKHW, known_NKHW).sum()) == 0


def test_the_signed_distance_by_hand():
    """Inside counts from 0 down, outside from 1 up."""
    inside_HW = np.array([[False, False, True, True, True]])
    known_HW = np.ones_like(inside_HW)
    assert signed_distance(inside_HW, known_HW).tolist() == [[2, 1, 0, -1, -2]]
    known_HW[0, 1] = False
    assert signed_distance(inside_HW, known_HW)[0, 2:].tolist() == [-1, -2, -3]


def test_a_band_of_unknown_pixels_leaves_the_rest_as_it_is():
    target_NHW = SQUARE_NHW.clone()
    target_NHW[:, :, 10:] = IGNORE
    for term in BOUNDARY:
        one = torch.randn(12, 12, generator=torch.Generator().manual_seed(2))
        other = one.clone()
        other[:, 10:] = 9
        assert cost(term, one, target_NHW) == cost(term, other, target_NHW)

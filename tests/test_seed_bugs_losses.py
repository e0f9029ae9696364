"""Mistakes in the losses of the systems that this project replaces, none of which may come back."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiler import kernels  # noqa: E402
from train.data.target import IGNORE  # noqa: E402
from train.losses.boundary import band  # noqa: E402
from train.losses.make import make_loss  # noqa: E402
from train.losses.options import LossOptions  # noqa: E402
from train.optimizers import OptimizerOptions, make_optimizer  # noqa: E402
from train.schedules import ScheduleOptions, make_schedule  # noqa: E402

SQUARE_NHW = torch.zeros(1, 12, 12, dtype=torch.long)
SQUARE_NHW[:, 4:8, 4:8] = 1
EMPTY_NHW = torch.zeros_like(SQUARE_NHW)


def loss(terms, logits_NKHW, target, **options):
    """As a number."""
    return float(make_loss(LossOptions(terms, **options))(logits_NKHW, target, torch.ones(len(target), 1, 1)))


def sure(target_NHW, by=40.0):
    """The perfect answer, as one logit per pixel."""
    return by * (2.0 * target_NHW[:, None] - 1)


def boundary(term, logits_N1HW, target_NHW=SQUARE_NHW):
    """A boundary loss of one class."""
    return loss(term, logits_N1HW, target_NHW, activation="sigmoid")


@pytest.mark.parametrize(("bands", "side"), [(1, 1), (1, 2), (3, 3), (2, 40)])
def test_d1_1_the_box_mean_runs_on_any_bands_and_sides(bands, side):
    """The seed called numpy.zero, took one band, and was off centre and quadratic in the side."""
    raw_CHW = np.full((bands, 5, 4), 7, np.uint8)
    out_CHW = np.zeros_like(raw_CHW)
    kernels.box_mean(raw_CHW, side, out_CHW)
    assert (out_CHW == 7).all()


def test_d1_2_a_box_mean_does_not_overflow():
    """The seed summed a 3x3 block of 200s in uint8 to 8, so that its mean was 0."""
    raw_1HW = np.full((1, 3, 3), 200, np.uint8)
    out_1HW = np.zeros_like(raw_1HW)
    kernels.box_mean(raw_1HW, 3, out_1HW)
    assert (out_1HW == 200).all()


def test_d1_3_the_gradient_loss_does_not_reward_having_no_edges():
    """The seed's was 1 for the perfect mask, 0 for a constant one, 1 for the inverse, NaN for none."""
    perfect, constant, inverted = sure(SQUARE_NHW), torch.zeros(1, 1, 12, 12), -sure(SQUARE_NHW)
    costs = [boundary("boundary-gradient", logits) for logits in (perfect, constant, inverted)]
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs[0] < costs[1] < costs[2]
    assert boundary("boundary-gradient", constant, EMPTY_NHW) == 0


def test_d1_4_the_band_is_a_band_and_the_loss_has_a_floor():
    """The seed's "band" was +1 inside and -1 around; its loss was -5.76 when perfect, and unbounded below."""
    truth_NKHW = SQUARE_NHW[:, None].float()
    band_NKHW = band(truth_NKHW, torch.ones_like(truth_NKHW))
    assert set(band_NKHW.unique().tolist()) == {0.0, 1.0}
    assert 0 <= boundary("boundary-band", sure(SQUARE_NHW)) < 1e-6
    far = sure(SQUARE_NHW)
    far[:, :, 0, 0] = 40  # a false positive away from the band changed nothing
    assert boundary("boundary-band", far) > 0.1


def test_d1_5_the_edge_loss_runs_and_does_not_vanish_on_sparse_edges():
    """The seed's raised for every size above 2, swapped its arguments, and was scaled by the edge density."""
    large_NHW = torch.zeros(1, 64, 64, dtype=torch.long)
    large_NHW[:, 4:8, 4:8] = 1
    missed = [boundary("boundary-edge", sure(torch.zeros_like(t)), t) for t in (SQUARE_NHW, large_NHW)]
    assert missed[1] == pytest.approx(missed[0], rel=0.05)
    assert missed[0] > 1


@pytest.mark.parametrize("term", ["boundary-gradient", "boundary-band", "boundary-edge", "bce"])
def test_d1_6_losses_take_logits_of_half_precision(term):
    """The seed's took probabilities and added 1e-8 in their logarithm, which is 0 in half precision."""
    logits_N1HW = (-sure(SQUARE_NHW, by=30)).half().requires_grad_()
    cost = make_loss(LossOptions(term, activation="sigmoid"))(logits_N1HW, SQUARE_NHW, torch.ones(1, 1, 1))
    cost.backward()
    assert torch.isfinite(cost)
    assert torch.isfinite(logits_N1HW.grad).all()


def test_d3_11_the_default_dice_sees_a_missing_class():
    """The seed's micro Dice loss was 0.0100 for all background of 99 % background."""
    target_NHW = torch.zeros(1, 10, 10, dtype=torch.long)
    target_NHW[0, 0, 0] = 1
    logits_NKHW = torch.tensor([40.0, -40.0])[None, :, None, None].expand(1, 2, 10, 10)
    assert loss("dice", logits_NKHW, target_NHW) == pytest.approx(0.5025, abs=5e-5)


@pytest.mark.parametrize("terms", ["ce", "ce+dice", "dice-image"])
def test_d3_19_an_all_ignored_crop_is_zero_not_nan(terms):
    """The seed's cross entropy was NaN, and its Dice 1."""
    logits_NKHW = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ignored_NHW = torch.full((1, 4, 4), IGNORE)
    cost = make_loss(LossOptions(terms))(logits_NKHW, ignored_NHW, torch.ones(1, 1, 1))
    cost.backward()
    assert float(cost.detach()) == 0
    assert not logits_NKHW.grad.any()


def test_d3_22_no_class_weighs_more_unless_told():
    """The seed silently applied weights of 1 and 2 whenever there were two classes."""
    logits_NKHW = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    target_NHW = SQUARE_NHW[:, 3:9, 3:9]
    expected = torch.nn.functional.cross_entropy(logits_NKHW, target_NHW)
    assert loss("ce", logits_NKHW, target_NHW) == pytest.approx(float(expected), rel=1e-6)
    assert loss("ce", logits_NKHW, target_NHW, class_weights=(1.0, 2.0)) != pytest.approx(
        float(expected), rel=1e-3
    )


@pytest.mark.parametrize("ignored", [0, 2, 5])
@pytest.mark.parametrize("terms", ["dice", "dice-image", "dice-micro"])
def test_d4_2_dice_does_not_count_ignored_pixels(terms, ignored):
    """The seed kept the probabilities of ignored pixels: perfect was 0.499, and half ignored 0.666."""
    target_NHW = torch.zeros(1, 6, 6, dtype=torch.long)
    target_NHW[:, :, ::2] = 1
    logits_NKHW = 40.0 * torch.stack([1.0 - target_NHW, 1.0 * target_NHW], dim=1)
    target_NHW[:, :ignored] = IGNORE
    assert loss(terms, logits_NKHW, target_NHW) == pytest.approx(0, abs=1e-6)


def test_d4_3_focal_weights_stand_outside_p():
    """The seed had p = exp(-weight * cross entropy), and divided by ignored pixels too."""
    logits_NKHW, target_NHW = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 1, IGNORE, IGNORE]]])
    expected = (math.log(2) / 4 + 5 * math.log(2) / 4) / 2
    assert loss("focal", logits_NKHW, target_NHW, class_weights=(1.0, 5.0)) == pytest.approx(expected)
    inside = (math.log(2) / 4 + (1 - 0.5**5) ** 2 * 5 * math.log(2)) / 2
    assert loss("focal", logits_NKHW, target_NHW, class_weights=(1.0, 5.0)) < inside / 2


def test_d6_3_multistep_steps():
    """The seed never stepped its scheduler, and logged the initial rate."""
    schedule = make_schedule(ScheduleOptions("multistep", milestones=(1, 2), gamma=2 / 3), 10, 4)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(2))], OptimizerOptions("sgd", 0.1))
    rates = []
    for step in range(40):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * schedule.factor(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 10 + [0.1 * 2 / 3] * 10 + [0.1 * 4 / 9] * 20)

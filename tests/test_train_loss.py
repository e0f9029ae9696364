"""The loss against values worked out by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from train.loss import IGNORE, cross_entropy, dice_loss, segmentation_loss  # noqa: E402

LOGITS_NKHW = torch.tensor([[[[2.0, 0], [0, 0]], [[0, 0], [0, 2.0]]]])
TARGET_NHW = torch.tensor([[[0, 1], [IGNORE, 1]]])


def test_cross_entropy_by_hand():
    """Twice log(1 + exp(-2)) and once log 2, over three known pixels."""
    assert float(cross_entropy(LOGITS_NKHW, TARGET_NHW)) == pytest.approx(0.3156678, abs=1e-6)


def test_dice_by_hand():
    """Dice 0.7046377 and 0.7890269."""
    assert float(dice_loss(LOGITS_NKHW, TARGET_NHW)) == pytest.approx(0.2531677, abs=1e-6)


def test_the_loss_is_their_sum():
    expected = 0.3156678 + 0.2531677
    assert float(segmentation_loss(LOGITS_NKHW, TARGET_NHW)) == pytest.approx(expected, abs=1e-6)


def test_nothing_known_costs_nothing():
    """0 with zero gradients, never NaN."""
    logits_NKHW = LOGITS_NKHW.clone().requires_grad_()
    loss = segmentation_loss(logits_NKHW, torch.full_like(TARGET_NHW, IGNORE))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits_NKHW.grad, torch.zeros_like(logits_NKHW))


def test_ignored_pixels_have_no_gradient():
    logits_NKHW = LOGITS_NKHW.clone().requires_grad_()
    segmentation_loss(logits_NKHW, TARGET_NHW).backward()
    assert torch.equal(logits_NKHW.grad[0, :, 1, 0], torch.zeros(2))
    assert (logits_NKHW.grad[0, :, 0, 0] != 0).all()


def test_an_absent_class_does_not_count():
    """Perfect on the classes that occur is a Dice loss of 0, however many there are."""
    logits_NKHW = torch.zeros(1, 3, 2, 2)
    logits_NKHW[:, 0] = 50
    assert float(dice_loss(logits_NKHW, torch.zeros(1, 2, 2, dtype=torch.long))) == pytest.approx(0, abs=1e-6)

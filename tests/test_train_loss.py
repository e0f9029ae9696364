"""The losses of pixels and overlaps against values worked out by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from tiler.errors import UsageError  # noqa: E402
from train.data.target import IGNORE  # noqa: E402
from train.losses.lovasz import jaccard_weights  # noqa: E402
from train.losses.make import FUNCTIONS, make_loss  # noqa: E402
from train.losses.options import TERMS, LossOptions  # noqa: E402

LOGITS_NKHW = torch.tensor([[[[2.0, 0], [0, 0]], [[0, 0], [0, 2.0]]]])
TARGET_NHW = torch.tensor([[[0, 1], [IGNORE, 1]]])
LOGITS_N1HW = torch.tensor([[[[2.0, -1.0], [0.0, 3.0]]]])
SOFTMAX = tuple(t for t in TERMS if t != "bce")
SIGMOID = tuple(t for t in TERMS if t != "ce")
SURE = 2 * math.log1p(math.exp(-2))  # two pixels that are right by 2


def value(loss, logits=LOGITS_NKHW, target=TARGET_NHW, weight=None, **options):
    """A loss as a number."""
    weight = torch.ones(len(logits), 1, 1) if weight is None else weight
    return float(make_loss(LossOptions(loss, **options))(logits, target, weight))


def gradient(loss, logits, target, **options):
    """Of the logits."""
    logits = logits.clone().requires_grad_()
    make_loss(LossOptions(loss, **options))(logits, target, torch.ones(len(logits), 1, 1)).backward()
    return logits.grad


def test_every_term_has_a_function():
    assert set(FUNCTIONS) == set(TERMS)


# --- numbers


def test_cross_entropy_by_hand():
    """Twice log(1 + exp(-2)) and once log 2, over three known pixels."""
    assert value("ce") == pytest.approx((SURE + math.log(2)) / 3, abs=1e-6)
    assert value("ce") == pytest.approx(0.3156678, abs=1e-6)


def test_class_weights_are_divided_by_their_sum():
    assert value("ce", class_weights=(1.0, 2.0)) == pytest.approx(0.3534154, abs=1e-6)
    assert value("ce", class_weights=(2.0, 2.0)) == pytest.approx(0.3156678, abs=1e-6)


def test_dice_by_hand():
    """Dice 0.7046377 and 0.7890269; one image, so pooled or per image is the same."""
    for loss in ("dice", "dice-image"):
        assert value(loss) == pytest.approx(0.2531677, abs=1e-6)
    assert 1 - value("dice") == pytest.approx((0.7046377 + 0.7890269) / 2, abs=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    assert value("ce+dice") == pytest.approx(0.3156678 + 0.2531677, abs=1e-6)
    assert value("0.5*ce + 2*dice") == pytest.approx(0.5 * 0.3156678 + 2 * 0.2531677, abs=1e-6)


def test_binary_cross_entropy_by_hand():
    """The mean of log(1 + exp(-2)), log(1 + exp(-1)) and log(1 + exp(3)); the fourth pixel is not known."""
    target_NHW = torch.tensor([[[1, 0], [IGNORE, 0]]])
    expected = [math.log1p(math.exp(z)) for z in (-2, -1, 3)]
    assert value("bce", LOGITS_N1HW, target_NHW, activation="sigmoid") == pytest.approx(sum(expected) / 3)
    weighted = (3 * expected[0] + expected[1] + expected[2]) / 5
    found = value("bce", LOGITS_N1HW, target_NHW, activation="sigmoid", class_weights=(3.0,))
    assert found == pytest.approx(weighted)


def test_focal_by_hand():
    """Each pixel's cross entropy times (1 - p)^2, class weights outside p, over three known pixels."""
    right = 1 / (1 + math.exp(-2))
    parts = [-math.log(right) * (1 - right) ** 2, math.log(2) / 4, -math.log(right) * (1 - right) ** 2]
    assert value("focal") == pytest.approx(sum(parts) / 3, abs=1e-6)
    assert value("focal", class_weights=(1.0, 5.0)) == pytest.approx(
        (parts[0] + 5 * parts[1] + 5 * parts[2]) / 3, abs=1e-6
    )
    assert value("focal", focal_gamma=0.0) == pytest.approx(value("ce"), abs=1e-7)


def test_a_weight_map_weighs_pixels():
    weight_NHW = torch.tensor([[[1.0, 4.0], [9.0, 0.0]]])
    expected = (math.log1p(math.exp(-2)) + 4 * math.log(2)) / 5
    assert value("ce", weight=weight_NHW) == pytest.approx(expected, abs=1e-6)


def test_micro_dice_hardly_notices_a_missing_class():
    """99 % background, all predicted background: 0.0100, where the mean over classes is 0.5025."""
    target_NHW = torch.zeros(1, 10, 10, dtype=torch.long)
    target_NHW[0, 0, 0] = 1
    logits_NKHW = torch.stack([torch.full((1, 10, 10), 50.0), torch.full((1, 10, 10), -50.0)], dim=1)
    assert value("dice-micro", logits_NKHW, target_NHW) == pytest.approx(0.0100, abs=1e-6)
    assert value("dice", logits_NKHW, target_NHW) == pytest.approx(0.5025, abs=5e-5)


def test_per_image_and_pooled_dice_differ():
    """Overlaps of 1 in sizes of 2, and of 0 in sizes of 4: the mean is 1/2, of the pool 1/3."""
    logits_NKHW = torch.full((2, 1, 1, 4), -60.0)
    logits_NKHW[0, 0, 0, 0] = 60
    logits_NKHW[1, 0, 0, 2:] = 60
    target_NHW = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, 0]]])
    for loss, expected in (("dice-image", 1 / 2), ("dice", 2 / 3)):
        assert value(loss, logits_NKHW, target_NHW, activation="sigmoid") == pytest.approx(expected, abs=1e-6)


def test_an_absent_class_is_left_out_unless_asked_for():
    """Perfect on the classes that occur is a Dice loss of 0, however many there are."""
    logits_NKHW = torch.zeros(1, 3, 2, 2)
    logits_NKHW[:, 0] = 50
    target_NHW = torch.zeros(1, 2, 2, dtype=torch.long)
    for loss in ("dice", "dice-image"):
        assert value(loss, logits_NKHW, target_NHW) == pytest.approx(0, abs=1e-6)
        assert value(loss, logits_NKHW, target_NHW, dice_absent=True) == pytest.approx(2 / 3, abs=1e-4)
        smooth = value(loss, logits_NKHW, target_NHW, dice_absent=True, dice_smooth=1.0)
        assert smooth == pytest.approx(0, abs=1e-6)


# --- Lovasz


def test_lovasz_hinge_is_nothing_once_every_margin_is_one():
    target_NHW = torch.tensor([[[1, 0], [0, 1]]])
    logits_N1HW = 2.0 * target_NHW[:, None] - 1
    assert value("lovasz", logits_N1HW, target_NHW, activation="sigmoid") == 0
    assert value("lovasz", 0.9 * logits_N1HW, target_NHW, activation="sigmoid") == pytest.approx(
        0.1, abs=1e-6
    )


@pytest.mark.parametrize("truth", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 0]])
def test_jaccard_weights_sum_to_one(truth):
    """Also where there is no foreground."""
    weights = jaccard_weights(torch.tensor([[truth]], dtype=torch.float32))
    assert float(weights.sum()) == pytest.approx(1)
    assert (weights >= 0).all()


def test_lovasz_of_hard_answers_is_one_minus_iou():
    """The extension agrees with the set function at its corners: IoU 1/3 and 1/3."""
    target_NHW = torch.tensor([[[0, 0], [1, 1]]])
    logits_NKHW = torch.tensor([[[[50.0, -50], [-50, 50]]]])
    logits_NKHW = torch.cat([logits_NKHW, -logits_NKHW], dim=1)
    assert value("lovasz", logits_NKHW, target_NHW) == pytest.approx(2 / 3, abs=1e-6)
    with_unknown = torch.cat([target_NHW, torch.full((1, 2, 2), IGNORE)], dim=2)
    wide_NKHW = torch.cat([logits_NKHW, torch.randn(1, 2, 2, 2)], dim=3)
    assert value("lovasz", wide_NKHW, with_unknown) == pytest.approx(2 / 3, abs=1e-6)


# --- what holds for all of them


@pytest.mark.parametrize(
    ("term", "activation"), [(t, "softmax") for t in SOFTMAX] + [(t, "sigmoid") for t in SIGMOID]
)
def test_nothing_known_costs_nothing(term, activation):
    """0 with zero gradients, never NaN."""
    grad = gradient(
        term,
        LOGITS_NKHW,
        torch.full_like(TARGET_NHW, IGNORE)[:, None].expand(1, 2, 2, 2)
        if activation == "sigmoid"
        else torch.full_like(TARGET_NHW, IGNORE),
        activation=activation,
    )
    assert torch.equal(grad, torch.zeros_like(LOGITS_NKHW))
    target = torch.full((1, 2, 2), IGNORE)
    assert (
        value(term, LOGITS_NKHW if activation == "softmax" else LOGITS_N1HW, target, activation=activation)
        == 0
    )


@pytest.mark.parametrize("term", SOFTMAX)
def test_ignored_pixels_have_no_gradient(term):
    """And what the network says there changes nothing."""
    torch.manual_seed(0)
    logits_NKHW, target_NHW = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6))
    target_NHW[:, 2:4, 1:4] = IGNORE
    grad_NKHW = gradient(term, logits_NKHW, target_NHW)
    assert torch.equal(grad_NKHW[:, :, 2:4, 1:4], torch.zeros(2, 3, 2, 3))
    assert (grad_NKHW[:, :, 5] != 0).any()
    other_NKHW = logits_NKHW.clone()
    other_NKHW[:, :, 2:4, 1:4] = 7
    assert value(term, other_NKHW, target_NHW) == value(term, logits_NKHW, target_NHW)


@pytest.mark.parametrize("term", SIGMOID)
def test_one_class_may_be_unknown_where_another_is_known(term):
    torch.manual_seed(0)
    logits_NKHW, target_NKHW = torch.randn(2, 2, 6, 6), torch.randint(0, 2, (2, 2, 6, 6))
    target_NKHW[:, 0, :3] = IGNORE
    grad_NKHW = gradient(term, logits_NKHW, target_NKHW, activation="sigmoid")
    assert torch.equal(grad_NKHW[:, 0, :3], torch.zeros(2, 3, 6))
    assert (grad_NKHW[:, 1, :3] != 0).any()


@pytest.mark.parametrize("term", SOFTMAX)
def test_gradients_are_finite_where_the_network_is_certain(term):
    """And wrong, in half precision."""
    logits_NKHW = (60 * torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(1))).half()
    grad_NKHW = gradient(term, logits_NKHW, torch.randint(0, 2, (1, 6, 6)))
    assert torch.isfinite(grad_NKHW).all()


@pytest.mark.parametrize("term", SOFTMAX)
def test_gradients_are_those_of_finite_differences(term):
    """In the direction of the gradient."""
    torch.manual_seed(3)
    logits_NKHW, target_NHW = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    grad_NKHW = gradient(term, logits_NKHW, target_NHW)
    step_NKHW = 1e-3 * grad_NKHW / grad_NKHW.norm()
    difference = value(term, logits_NKHW + step_NKHW, target_NHW) - value(
        term, logits_NKHW - step_NKHW, target_NHW
    )
    assert difference / 2e-3 == pytest.approx(float(grad_NKHW.norm()), rel=0.02, abs=1e-4)


# --- refusals


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"loss": "ce+jaccard"}, "jaccard"),
        ({"loss": "x*ce"}, r"x\*ce"),
        ({"loss": "0*ce"}, r"0\*ce"),
        ({"loss": ""}, "sum like"),
        ({"loss": "bce"}, "use ce"),
        ({"loss": "ce", "activation": "sigmoid"}, "use bce instead"),
        ({"activation": "tanh"}, "tanh"),
        ({"class_weights": (1.0, -1.0)}, "class-weights"),
        ({"class_weights": (0.0, 0.0)}, "class-weights"),
        ({"focal_gamma": 0.5}, "focal-gamma"),
        ({"dice_smooth": -1.0}, "dice-smooth"),
    ],
)
def test_bad_options_are_refused(told, said):
    with pytest.raises(UsageError, match=said):
        LossOptions(**told)


def test_class_weights_go_with_the_channels():
    LossOptions().check_channels(3)
    with pytest.raises(UsageError, match=r"one value per class that is scored \(3\), got 2"):
        LossOptions(class_weights=(1.0, 2.0)).check_channels(3)


def test_shapes_that_do_not_belong_together_are_refused():
    """Broadcasting would make some number of them."""
    with pytest.raises(UsageError, match="one value per pixel,"):
        value("ce", LOGITS_NKHW, TARGET_NHW[:, :1])
    with pytest.raises(UsageError, match="and class"):
        value("bce", LOGITS_NKHW, TARGET_NHW, activation="sigmoid")

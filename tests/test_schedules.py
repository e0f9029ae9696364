"""Learning rates against closed forms, and against PyTorch's own schedules."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from tiler.errors import UsageError  # noqa: E402
from train.optimizers import OptimizerOptions, make_optimizer  # noqa: E402
from train.schedules import SCHEDULES, ScheduleOptions, make_schedule  # noqa: E402


def factors(options, steps_per_epoch, epochs):
    """At the first step of every epoch, and after the last step."""
    schedule = make_schedule(options, steps_per_epoch, epochs)
    return [schedule.factor(epoch * steps_per_epoch) for epoch in range(epochs + 1)]


# --- the numbers of the systems they come from


def test_poly_with_a_warm_up_of_one_epoch():
    """Base 0.01, 5 steps per epoch, 200 epochs: what was logged after each epoch, to six digits."""
    options = ScheduleOptions("poly", warmup_epochs=1, warmup_start=1e-3)
    after = factors(options, 5, 200)[1:]
    for epoch, factor in enumerate(after):
        assert 0.01 * factor == pytest.approx(0.01 * (1 - 5 * epoch / 995) ** 0.9, abs=5e-9)
    logged = [f"{0.01 * after[epoch]:.6f}" for epoch in (0, 1, 2, 199)]
    assert logged == ["0.010000", "0.009955", "0.009910", "0.000000"]
    assert make_schedule(options, 5, 200).factor(0) == pytest.approx(1e-3)


def test_cosine_with_a_parabolic_warm_up_and_a_floor():
    """From 1e-4 to 1e-6 in 100 epochs: 3 of warm-up from a tenth, the last 5 at the floor, per epoch."""
    options = ScheduleOptions(
        "cosine",
        schedule_per="epoch",
        warmup_epochs=3,
        warmup_start=0.1,
        warmup_power=2,
        floor=0.01,
        floor_epochs=5,
    )
    lr = [1e-4 * factor for factor in factors(options, 7, 100)]
    assert lr[:4] == pytest.approx([1.0e-5, 2.0e-5, 5.0e-5, 1.0e-4])
    assert lr[50] == pytest.approx(4.881e-5, abs=5e-9)
    assert lr[94] == pytest.approx(1.029e-6, abs=5e-10)
    assert lr[95:] == pytest.approx([1e-6] * 6)
    assert make_schedule(options, 7, 100).factor(6) == pytest.approx(
        0.1
    )  # within an epoch it does not change


def test_ten_stairs():
    """From 1e-2 to 1e-4 in 100 epochs."""
    lr = [1e-2 * factor for factor in factors(ScheduleOptions("stairs", floor=0.01), 3, 100)[:100]]
    assert lr[:10] == pytest.approx([1e-2] * 10)
    assert lr[10] == pytest.approx(5.995e-3, abs=5e-7)
    assert lr[90:] == pytest.approx([1e-4] * 10)


def test_halved_every_twenty_epochs():
    lr = [1e-4 * factor for factor in factors(ScheduleOptions("step", step_epochs=20, gamma=0.5), 11, 100)]
    expected = [1e-4] * 20 + [5e-5] * 20 + [2.5e-5] * 20 + [1.25e-5] * 20 + [6.25e-6] * 20
    assert lr[:100] == pytest.approx(expected)


def test_a_linear_tail():
    """The last 70 of 100 epochs; the rate falls after each of them."""
    lr = factors(ScheduleOptions("linear-tail", schedule_per="epoch", tail_epochs=70), 2, 100)
    assert lr[:31] == [1.0] * 31
    assert lr[31] == pytest.approx(69 / 70)
    assert lr[99] == pytest.approx(1 / 70)


def test_todays_default_is_a_cycle():
    """Linear over a tenth of all steps, then half a cosine."""
    schedule = make_schedule(ScheduleOptions(), 10, 4)
    rise = [schedule.factor(step) for step in range(4)]
    assert rise == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert schedule.factor(39) == pytest.approx(0.5 * (1 + math.cos(math.pi * 36 / 37)))


# --- PyTorch as the oracle


def stepped(make, epochs, lr=0.1):
    """The learning rate of each epoch under one of PyTorch's schedulers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("options", "make"),
    [
        (
            ScheduleOptions("multistep", milestones=(1, 2), gamma=2 / 3),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [1, 2], 2 / 3),
        ),
        (
            ScheduleOptions("step", step_epochs=1, gamma=0.96),
            lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.96),
        ),
        (
            ScheduleOptions("cosine", schedule_per="epoch", floor=0.01),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12, 1e-3),
        ),
        (
            ScheduleOptions("poly", schedule_per="epoch"),
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 12, 0.9),
        ),
        (ScheduleOptions("constant"), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_it_agrees_with_pytorch(options, make):
    ours = [0.1 * factor for factor in factors(options, 4, 12)[:12]]
    assert ours == pytest.approx(stepped(make, 12))


def test_a_plateau_agrees_with_pytorch():
    """Of scores that are to rise; the threshold is relative."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=2, min_lr=1e-3)
    ours = make_schedule(ScheduleOptions("plateau", gamma=0.1, patience=2, floor=1e-3), 1, 40)
    scores = torch.rand(40, generator=torch.Generator().manual_seed(4)).sort().values
    scores[10:] = scores[10]  # stays where it is: lowered until the floor
    for step, score in enumerate(scores.tolist()):
        theirs.step(score)
        ours.observe(score)
        assert ours.factor(step) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.factor(40) == pytest.approx(1e-3)


def test_a_plateau_is_resumed_where_it_was():
    options = ScheduleOptions("plateau", gamma=0.5, patience=1)
    whole, first, second = (make_schedule(options, 1, 9) for _ in range(3))
    scores = [0.2, 0.2, float("nan"), 0.2, 0.1, 0.3, 0.3]
    for score in scores:
        whole.observe(score)
    for score in scores[:3]:
        first.observe(score)
    second.load(first.state())
    for score in scores[3:]:
        second.observe(score)
    assert second.state() == whole.state()
    assert whole.factor(0) < 1


def test_a_plateau_may_begin_with_a_warm_up():
    schedule = make_schedule(ScheduleOptions("plateau", warmup_epochs=2, warmup_start=0.5), 4, 9)
    assert [schedule.factor(step) for step in (0, 4, 8)] == pytest.approx([0.5, 0.75, 1.0])


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"stairs", "multistep", "linear-tail"}))
def test_a_factor_is_a_function_of_the_step(name):
    """So that a resumed run needs no state; and never negative or above one."""
    one, other = (make_schedule(ScheduleOptions(name), 3, 5) for _ in range(2))
    values = [one.factor(step) for step in range(16)]
    assert [other.factor(step) for step in reversed(range(16))][::-1] == values
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"schedule": "sine"}, "sine"),
        ({"schedule": "poly", "schedule_per": "batch"}, "batch"),
        ({"schedule": "poly", "warmup_epochs": -1}, "warmup-epochs"),
        ({"schedule": "step", "step_epochs": 0}, "step-epochs"),
        ({"schedule": "step", "gamma": 1.0}, "gamma"),
        ({"schedule": "cosine", "floor": 2.0}, "floor"),
        ({"schedule": "stairs"}, "floor"),
        ({"schedule": "multistep"}, "milestones"),
        ({"schedule": "multistep", "milestones": (2, 1)}, "ascending"),
        ({"schedule": "linear-tail"}, "tail-epochs"),
        ({"schedule": "one-cycle", "warmup_epochs": 1}, "rise of its own"),
    ],
)
def test_bad_options_are_refused(told, said):
    with pytest.raises(UsageError, match=said):
        ScheduleOptions(**told)


def test_lengths_that_do_not_fit_into_a_run_are_refused():
    with pytest.raises(UsageError, match=r"less than --epochs, got 6 of 5"):
        make_schedule(ScheduleOptions("cosine", warmup_epochs=3, floor_epochs=3), 10, 5)


# --- optimisers


def parameters():
    """Of a convolution and a normalisation."""
    return [*torch.nn.Conv2d(1, 2, 3).parameters(), *torch.nn.BatchNorm2d(2).parameters()]


@pytest.mark.parametrize(
    ("options", "kind", "has"),
    [
        (OptimizerOptions(), torch.optim.AdamW, {"lr": 0.005, "weight_decay": 0.01, "betas": (0.9, 0.999)}),
        (OptimizerOptions("adam", 2e-4, 0, momentum=0.5), torch.optim.Adam, {"betas": (0.5, 0.999)}),
        (
            OptimizerOptions("sgd", 0.01, 1e-4, momentum=0.99, nesterov=True),
            torch.optim.SGD,
            {"momentum": 0.99, "nesterov": True},
        ),
        (
            OptimizerOptions("rmsprop", 1e-5, 1e-8, momentum=0.999, beta2=0.99),
            torch.optim.RMSprop,
            {"momentum": 0.999, "alpha": 0.99, "weight_decay": 1e-8},
        ),
    ],
)
def test_each_optimizer_has_what_it_was_told(options, kind, has):
    optimizer = make_optimizer(parameters(), options)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert has.items() <= group.items()


def test_decay_may_spare_biases_and_norms():
    optimizer = make_optimizer(parameters(), OptimizerOptions(decay_all=False))
    shapes = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in optimizer.param_groups}
    assert shapes == {0.01: [4], 0.0: [1, 1, 1]}


def test_the_rate_follows_the_batch_within_bounds():
    """Proportional to the batch, 16 being one; of Adam both bounds are 1e-4, whatever the batch."""
    sgd = OptimizerOptions("sgd", 1e-2, lr_batch=16, lr_least=5e-4, lr_most=1e-1)
    assert [sgd.peak(batch) for batch in (16, 2, 1, 1000)] == pytest.approx([1e-2, 1.25e-3, 6.25e-4, 1e-1])
    assert sgd.peak(0.1) == 5e-4
    adam = OptimizerOptions("adam", 1e-4, lr_batch=16, lr_least=1e-4, lr_most=1e-4)
    assert {adam.peak(batch) for batch in (1, 2, 16, 64)} == {1e-4}
    assert OptimizerOptions(lr=0.3).peak(7) == 0.3


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"optimizer": "lion"}, "lion"),
        ({"lr": 0.0}, "--lr"),
        ({"weight_decay": -1.0}, "weight-decay"),
        ({"momentum": 1.0}, "momentum"),
        ({"nesterov": True}, "nesterov"),
        ({"lr_most": 0.1}, "lr-batch"),
        ({"lr_batch": 16, "lr_least": 1.0, "lr_most": 0.1}, "lr-least"),
    ],
)
def test_bad_optimizers_are_refused(told, said):
    with pytest.raises(UsageError, match=said):
        OptimizerOptions(**told)

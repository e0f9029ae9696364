"""Learning rates over a run, as factors of the peak.

    one-cycle     linear rise over a tenth of all steps, then half a cosine down to nothing
    constant      1
    poly          ``(1 - share of the run) ** power``
    cosine        half a cosine down to the floor, which is kept for the last epochs
    stairs        ``stairs`` equal stretches, from 1 down to the floor, each the same factor lower
    step          times ``gamma`` every ``step_epochs``
    multistep     times ``gamma`` at each of ``milestones``
    linear-tail   1, then straight down to nothing in the last ``tail_epochs``
    plateau       times ``gamma`` when the score has not risen for more than ``patience`` evaluations

All but plateau are pure functions of the number of steps done, so a resumed run needs no state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tiler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RISE: Final = 0.1
"""Share of all steps in which ``one-cycle`` rises."""
BETTER: Final = 1e-4
"""By this share of itself a score has to rise to count as better on a plateau."""


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """How the learning rate changes. Epochs are counted from 0; lengths in epochs may be fractions."""

    schedule: str = "one-cycle"
    """A name of the table above."""
    schedule_per: str = "step"
    """Whether it changes at every ``step``, or at every ``epoch``."""
    warmup_epochs: float = 0.0
    """Length of the rise at the beginning; ``poly``, ``cosine`` and ``linear-tail`` begin after it."""
    warmup_start: float = 1e-3
    """Factor that it begins with."""
    warmup_power: float = 1.0
    """1: straight, 2: a parabola."""
    floor: float = 0.0
    """Factor that ``cosine`` and ``stairs`` end at, and ``plateau`` does not go below."""
    floor_epochs: float = 0.0
    """How long ``cosine`` stays there at the end."""
    power: float = 0.9
    """Of ``poly``."""
    stairs: int = 10
    """Number of stretches."""
    gamma: float = 0.5
    """Factor of ``step``, ``multistep`` and ``plateau``."""
    step_epochs: float = 20.0
    """Between two steps."""
    milestones: tuple[float, ...] = ()
    """Epochs at which ``multistep`` goes down."""
    tail_epochs: float = 0.0
    """Length of the fall of ``linear-tail``."""
    patience: int = 5
    """Evaluations without a better score that ``plateau`` bears."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(f"--schedule is one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.schedule_per not in {"step", "epoch"}:
            raise UsageError(f"--schedule-per is step or epoch, got {self.schedule_per!r}")
        for name in ("warmup_epochs", "floor_epochs", "tail_epochs", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{_flag(name)} is at least 0, got {getattr(self, name)}")
        for name in ("warmup_power", "power", "step_epochs", "stairs"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{_flag(name)} is above 0, got {getattr(self, name)}")
        for name in ("warmup_start", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{_flag(name)} is 0 to 1, got {getattr(self, name)}")
        if not 0 < self.gamma < 1:
            raise UsageError(f"--gamma is between 0 and 1, got {self.gamma}")
        self._check_together()

    def _check_together(self) -> None:
        if self.schedule == "one-cycle" and (self.warmup_epochs or self.schedule_per == "epoch"):
            raise UsageError(
                "one-cycle has a rise of its own, per step; give no --warmup-epochs and --schedule-per epoch"
            )
        if self.schedule == "stairs" and not (self.stairs > 1 and self.floor > 0):
            raise UsageError(
                f"stairs are 2 or more down to a --floor above 0, got {self.stairs} and {self.floor}"
            )
        if self.schedule == "multistep" and (
            not self.milestones or list(self.milestones) != sorted(set(self.milestones))
        ):
            raise UsageError(f"multistep has ascending --milestones, got {self.milestones}")
        if self.schedule == "linear-tail" and not self.tail_epochs:
            raise UsageError("linear-tail has a --tail-epochs above 0, got 0")

    def check_epochs(self, epochs: int) -> None:
        """Refuse lengths that do not fit into a run.

        Raises
        ------
        UsageError
            naming the lengths.
        """
        taken = self.warmup_epochs + self.floor_epochs + self.tail_epochs
        if taken and not taken < epochs:
            raise UsageError(
                f"--warmup-epochs, --floor-epochs and --tail-epochs together are less than --epochs, "
                f"got {taken:g} of {epochs}; make them shorter, or give --schedule constant"
            )


class Schedule(Protocol):
    """Factors of the peak learning rate."""

    def factor(self, step: int) -> float:
        """Before optimizer step ``step``, from 0; of all steps together when it is asked after the last."""

    def observe(self, score: float) -> None:
        """Take note of an evaluation; more is better."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, plain numbers."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A schedule that only depends on the number of steps done."""

    options: ScheduleOptions
    steps_per_epoch: int
    epochs: int

    def factor(self, step: int) -> float:
        """As `Schedule` has it."""
        options = self.options
        if options.schedule == "one-cycle":
            return one_cycle(step, self.steps_per_epoch * self.epochs)
        per_step = options.schedule_per == "step"
        epoch = step / self.steps_per_epoch if per_step else step // self.steps_per_epoch
        if epoch < options.warmup_epochs:
            risen: float = (epoch / options.warmup_epochs) ** options.warmup_power
            return options.warmup_start + (1 - options.warmup_start) * risen
        return SHAPES[options.schedule](epoch, self.epochs, options)

    def observe(self, score: float) -> None:
        """Nothing depends on it."""

    def state(self) -> dict[str, Any]:
        """None."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""


@dataclass(slots=True)
class Plateau:
    """A schedule that goes down when the score no longer rises, after a warm-up."""

    options: ScheduleOptions
    warmup: Curve
    lowered: float = field(default=1.0, init=False)
    """Factor now."""
    best: float | None = field(default=None, init=False)
    """Highest score yet; None before the first."""
    waited: int = field(default=0, init=False)
    """Evaluations since then."""

    def factor(self, step: int) -> float:
        """As `Schedule` has it, after the evaluations so far."""
        return self.warmup.factor(step) * self.lowered

    def observe(self, score: float) -> None:
        """Compare with the best score; NaN is no better."""
        if self.best is None or score > self.best + BETTER * abs(self.best):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.options.patience:
            self.lowered, self.waited = max(self.options.floor, self.lowered * self.options.gamma), 0

    def state(self) -> dict[str, Any]:
        """Factor, best score, and evaluations since then."""
        return {"lowered": self.lowered, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.lowered, self.best, self.waited = state["lowered"], state["best"], state["waited"]


def make_schedule(options: ScheduleOptions, steps_per_epoch: int, epochs: int) -> Schedule:
    """The schedule that the options name.

    Raises
    ------
    UsageError
        if it does not fit into ``epochs``.
    """
    options.check_epochs(epochs)
    curve = Curve(options, steps_per_epoch, epochs)
    return Plateau(options, curve) if options.schedule == "plateau" else curve


def one_cycle(step: int, steps: int) -> float:
    """A linear rise, then half a cosine down to nothing.

    >>> [round(one_cycle(step, 10), 2) for step in (0, 1, 5, 9)]
    [1.0, 0.98, 0.5, 0.02]
    """
    rise = max(1, round(RISE * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))


def _constant(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    del epoch, epochs, options
    return 1.0


def _poly(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    rest = (epochs - epoch) / (epochs - options.warmup_epochs)
    return float(max(0.0, rest) ** options.power)


def _cosine(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    span = epochs - options.warmup_epochs - options.floor_epochs
    gone = min(1.0, (epoch - options.warmup_epochs) / span)
    return options.floor + (1 - options.floor) * 0.5 * (1 + math.cos(math.pi * gone))


def _stairs(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    stair = min(options.stairs - 1, int(epoch * options.stairs // epochs))
    return float(options.floor ** (stair / (options.stairs - 1)))


def _step(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    del epochs
    return float(options.gamma ** (epoch // options.step_epochs))


def _multistep(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    del epochs
    return float(options.gamma ** sum(epoch >= milestone for milestone in options.milestones))


def _linear_tail(epoch: float, epochs: int, options: ScheduleOptions) -> float:
    return max(0.0, min(1.0, (epochs - epoch) / options.tail_epochs))


SHAPES: Final[Mapping[str, Callable[[float, int, ScheduleOptions], float]]] = {
    "constant": _constant,
    "poly": _poly,
    "cosine": _cosine,
    "stairs": _stairs,
    "step": _step,
    "multistep": _multistep,
    "linear-tail": _linear_tail,
    "plateau": _constant,  # until it is lowered
}
"""Factor at an epoch of a run of so many epochs, after the warm-up."""
SCHEDULES: Final = ("one-cycle", *SHAPES)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

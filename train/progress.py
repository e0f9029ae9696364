"""How far a run is, and which of its epochs was the best."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from train.record import Epoch

if TYPE_CHECKING:
    from tiler.metrics import Scores


@dataclass(slots=True, eq=False)
class Progress:
    """Finished epochs. All else is told by them, so that a resumed run cannot forget its best."""

    epochs: list[Epoch] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    """By number of epoch, from 1: of those that were evaluated."""

    @property
    def best_epoch(self) -> int:
        """The one with the highest score, the first among equals; 0 before any."""
        return max(self.scores, key=self.scores.__getitem__, default=0)

    @property
    def since_best(self) -> int:
        """Evaluations since then."""
        return sum(epoch > self.best_epoch for epoch in self.scores)

    def to_state(self) -> dict[str, Any]:
        """Plain values, for `from_state`."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "scores": self.scores}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """What `to_state` made."""
        return cls([Epoch(**epoch) for epoch in state["epochs"]], state["scores"])


def score(confusion: Scores, best_by: str, names: tuple[str, ...]) -> float:
    """By which epochs are compared: ``mean-iou``, ``mean-dice``, or the IoU of a class by its name."""
    if best_by in names:
        value = float(confusion.iou[names.index(best_by)])
    else:
        value = {"mean-iou": confusion.mean_iou, "mean-dice": confusion.mean_dice}[best_by]
    return -math.inf if math.isnan(value) else value

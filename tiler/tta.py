"""Test-time augmentation: a network's mean over mirrored and turned views of each tile.

The U-Net paper averages seven rotated copies of its image (Ronneberger et al., 2015, section 4); here it is
the four flips, or all eight positions of a square, which need no interpolation.

What is averaged is what the network returns, logits or probabilities, as blended tiles are. Views of a tile
are tiles of the whole image's views: their starts are on the stride, since tiles and the padded image are
multiples of it, and a halo that is alike on all sides stays one. So what is exact stays exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.errors import InputError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.model import Model
    from tiler.ports import Backend


@dataclass(frozen=True, slots=True)
class View:
    """An image mirrored or turned: first rows become columns, then each axis may be reversed."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def of(self, array_NCHW: NDArray[Any]) -> NDArray[Any]:
        """The view, without a copy."""
        turned_NCHW = array_NCHW.swapaxes(2, 3) if self.transposed else array_NCHW
        return self._reversed(turned_NCHW)

    def back(self, array_NCHW: NDArray[Any]) -> NDArray[Any]:
        """What `of` made the view of, without a copy."""
        upright_NCHW = self._reversed(array_NCHW)
        return upright_NCHW.swapaxes(2, 3) if self.transposed else upright_NCHW

    def _reversed(self, array_NCHW: NDArray[Any]) -> NDArray[Any]:
        down, across = -1 if self.upside_down else 1, -1 if self.mirrored else 1
        return array_NCHW[:, :, ::down, ::across]


FLIPS: Final = tuple(View(False, down, across) for down in (False, True) for across in (False, True))
VIEWS: Final = {
    "none": FLIPS[:1],
    "flips": FLIPS,
    "all": (*FLIPS, *(replace(view, transposed=True) for view in FLIPS)),
}
"""By the name of the option; the image as it is comes first."""


@dataclass(frozen=True, slots=True, eq=False)
class AugmentedBackend:
    """A network whose scores are the mean over views; one view is computed after the other."""

    backend: Backend
    views: tuple[View, ...]

    @property
    def workers(self) -> int:
        """Of the network."""
        return self.backend.workers

    def predict(self, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """The mean of the views' scores, each turned back; summed in the order of the views.

        Raises
        ------
        InputError
            if the network returns scores of another size than it is fed.
        """
        total_NKHW = self._scores(self.views[0], batch_NCHW).copy()
        for view in self.views[1:]:
            total_NKHW += self._scores(view, batch_NCHW)
        total_NKHW /= len(self.views)
        return total_NKHW

    def _scores(self, view: View, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """Of one view, turned back."""
        seen_NCHW = np.ascontiguousarray(view.of(batch_NCHW))
        scores_NKHW = self.backend.predict(seen_NCHW)
        if scores_NKHW.shape[2:] != seen_NCHW.shape[2:]:
            raise InputError(
                f"the network returns one score per pixel, got {scores_NKHW.shape} for {seen_NCHW.shape}; "
                "check --tile against its legal sizes"
            )
        return view.back(scores_NKHW)

    def reserve(self, size: int) -> None:
        """Pass it on."""
        self.backend.reserve(size)

    def release(self) -> None:
        """Pass it on."""
        self.backend.release()


def augmented(model: Model, tta: str) -> Model:
    """The model that computes the mean over the views of that name.

    Raises
    ------
    UsageError
        if views are turned by a quarter and the network takes tiles of one shape only, that is no square.
    """
    views = VIEWS[tta]
    height, width = model.shape[1:]
    if any(view.transposed for view in views) and height != width:
        taken = f"{width or 'any'} x {height or 'any'} px"
        raise UsageError(
            f"--tta {tta} turns tiles by a quarter, the model takes tiles of {taken}; take flips"
        )
    return model if len(views) == 1 else replace(model, backend=AugmentedBackend(model.backend, views))

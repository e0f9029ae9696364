"""Test-time augmentation: a network's mean over mirrored and turned views of each tile.

The U-Net paper averages seven rotated copies of its image (Ronneberger et al., 2015, section 4); here it is
the four flips, or all eight positions of a square, which need no interpolation.

Averaged are probabilities, so that no view outvotes the others by being very sure; of networks that return
scores which are none, the scores. Views of a tile are tiles of the whole image's views: their starts are on
the stride, since tiles and the padded image are multiples of it, and a halo that is alike on all sides stays
one. So what is exact stays exact.
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
    """A network whose probabilities are the mean over views; one view is computed after the other."""

    backend: Backend
    views: tuple[View, ...]
    activation: str
    """What the network returns; see `tiler.spec.ModelSpec`."""

    @property
    def most_workers(self) -> int:
        """Of the network."""
        return self.backend.most_workers

    @property
    def workers(self) -> int:
        """Of the network."""
        return self.backend.workers

    def predict(self, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """The mean over the views, each turned back; summed in their order.

        Raises
        ------
        InputError
            if the network returns scores of another size than it is fed, or that are no numbers.
        """
        total_NKHW = self._seen(self.views[0], batch_NCHW).copy()
        for view in self.views[1:]:
            total_NKHW += self._seen(view, batch_NCHW)
        total_NKHW /= len(self.views)
        return total_NKHW

    def _seen(self, view: View, batch_NCHW: NDArray[Any]) -> NDArray[np.float32]:
        """What the network says of one view, turned back."""
        seen_NCHW = np.ascontiguousarray(view.of(batch_NCHW))
        scores_NKHW = self.backend.predict(seen_NCHW)
        if scores_NKHW.shape[2:] != seen_NCHW.shape[2:]:
            raise InputError(
                f"the network returns one score per pixel, got {scores_NKHW.shape} for {seen_NCHW.shape}; "
                "check --tile against its legal sizes"
            )
        if not np.isfinite(scores_NKHW).all():
            # A probability of an infinite score would be a number again.
            raise InputError(
                "the network's scores are numbers, got NaN or infinity; check its input scaling, and its "
                "weights for float16 overflow"
            )
        return view.back(shares(scores_NKHW) if self.activation == "logits" else scores_NKHW)

    def reserve(self, size: int, workers: int) -> None:
        """Pass it on."""
        self.backend.reserve(size, workers)

    def release(self) -> None:
        """Pass it on."""
        self.backend.release()


def shares(logits_NKHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities: by sigmoid of one channel, by softmax of several."""
    if logits_NKHW.shape[1] == 1:
        small_NKHW = np.exp(-np.abs(logits_NKHW))
        return np.asarray(np.where(logits_NKHW >= 0, np.float32(1), small_NKHW) / (1 + small_NKHW))
    raised_NKHW: NDArray[np.float32] = logits_NKHW - logits_NKHW.max(axis=1, keepdims=True)
    np.exp(raised_NKHW, out=raised_NKHW)
    raised_NKHW /= raised_NKHW.sum(axis=1, keepdims=True)
    return raised_NKHW


def augmented(model: Model, tta: str) -> Model:
    """The model that computes the mean over the views of that name.

    Raises
    ------
    UsageError
        if views are turned by a quarter and the network takes tiles of one shape only, that is no square.
    """
    views, spec = VIEWS[tta], model.spec
    if len(views) == 1:
        return model
    height, width = model.shape[1:]
    if any(view.transposed for view in views) and height != width:
        taken = f"{width or 'any'} x {height or 'any'} px"
        raise UsageError(
            f"--tta {tta} turns tiles by a quarter, the model takes tiles of {taken}; take flips"
        )
    if spec.activation == "logits":
        spec = replace(spec, activation="sigmoid" if model.channels == 1 else "softmax")
    backend = AugmentedBackend(model.backend, views, model.spec.activation)
    return replace(model, spec=spec, backend=backend)

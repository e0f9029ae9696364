"""Weights from elsewhere: as many as fit are taken, and it is said which.

A file of another head, of other bands, or of an encoder alone is what one starts from, so not everything
must fit; but what did not is listed, and a file of which nothing fits is an error.
"""

from __future__ import annotations

import argparse
import pickle
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tiler.errors import InputError, UsageError, one_line
from train.models.origins import ORIGINS, renamed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

WRAPPERS: Final = ("model", "state_dict", "model_state_dict", "net")
"""Keys under which training scripts keep the weights among other things."""
UNREADABLE: Final = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What loading raises; of bytes that are no pickle whatever their first ones, taken for one, lead to."""
FEW: Final = 4
"""Names that a line shows of a longer list."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of the weights of a file, and of those of a network."""

    origin: str
    """Whose names the file has, a key of `train.models.origins.ORIGINS`."""
    loaded: tuple[str, ...]
    """Weights of the network that were taken from the file."""
    missing: tuple[str, ...]
    """Weights of the network that the file lacks: they stay as they were."""
    mismatched: tuple[str, ...]
    """Weights of another shape, with both shapes: they stay as they were."""
    unused: tuple[str, ...]
    """Names in the file that are nothing of this network."""

    def __str__(self) -> str:
        lines = [f"weights: {len(self.loaded)} loaded (names of {self.origin})"]
        for what in ("missing", "mismatched", "unused"):
            names: tuple[str, ...] = getattr(self, what)
            more = ", ..." if len(names) > FEW else ""
            lines += [f"weights: {len(names)} {what}: {', '.join(names[:FEW])}{more}"] if names else []
        return "\n".join(lines)


def load_weights(net: nn.Module, path: Path, origin: str | None = None) -> LoadReport:
    """Take what fits of a file.

    Parameters
    ----------
    net
        Its weights are replaced in place.
    path
        A ``.safetensors`` file, a folder of ours like RUN/best, or what ``torch.save`` wrote of a state dict.
    origin
        Whose names the file has; None: those of which most fit.

    Raises
    ------
    InputError
        if the file cannot be read, or nothing in it fits.
    UsageError
        if there is no such origin.
    """
    return fit(net, read_state(path), path, origin)


def fit(net: nn.Module, found: Mapping[str, Tensor], path: Path, origin: str | None = None) -> LoadReport:
    """As `load_weights`, of what `read_state` has read."""
    if origin is not None and origin not in ORIGINS:
        raise UsageError(f"an origin of weights is one of {', '.join(ORIGINS)}, got {origin!r}")
    reports = [take(net, found, name) for name in ([origin] if origin else ORIGINS)]
    report = max(reports, key=lambda r: len(r.loaded))
    if not report.loaded:
        raise InputError(
            f"a file of weights has some of the network's names and shapes, got none in {path}: it holds "
            f"{', '.join(list(found)[:FEW])}; choose the preset that it was made with"
        )
    names = {renamed(name, report.origin): name for name in found}
    net.load_state_dict({name: found[names[name]] for name in report.loaded}, strict=False)
    return report


def take(net: nn.Module, found: Mapping[str, Tensor], origin: str) -> LoadReport:
    """What would fit, by that origin's names; nothing is changed."""
    ours = net.state_dict()
    names = {name: renamed(name, origin) for name in found}
    given = {here: found[there] for there, here in names.items() if here in ours}
    fits = [name for name in ours if name in given and given[name].shape == ours[name].shape]
    return LoadReport(
        origin,
        tuple(fits),
        # A counter of batch normalisation is no weight; old files lack it.
        tuple(n for n in ours if n not in given and not n.endswith("num_batches_tracked")),
        tuple(
            f"{name} ({_shape(given[name])}, not {_shape(ours[name])})"
            for name in ours
            if name in given and given[name].shape != ours[name].shape
        ),
        tuple(there for there, here in names.items() if here not in ours),
    )


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; what else it holds is left out.

    Raises
    ------
    InputError
        if it cannot be read, or holds no tensors.
    """
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        raw = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FileNotFoundError:
        raise InputError(f"a file of weights is there, got {path}") from None
    except UNREADABLE as error:
        # PyTorch's own words for a pickle are how to run whatever is in it.
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = "none, or one of more than tensors" if pickled else one_line(error)
        raise InputError(
            f"weights are a .safetensors file or a state dict of torch.save, got {path}: {reason}"
        ) from None
    tensors = {name: value for name, value in _unwrapped(raw).items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"a file of weights holds tensors by name, got none in {path}")
    if all(name.startswith("module.") for name in tensors):  # as torch's data-parallel wrappers call them
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _unpickled(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    # Training scripts save their arguments beside the weights; nothing but these and tensors is unpickled.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(raw: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever was saved
    if not isinstance(raw, dict):
        return {}
    for key in WRAPPERS:
        if isinstance(raw.get(key), dict):
            return dict(raw[key])
    return {str(name): value for name, value in raw.items()}

"""Segment images too large for memory: any size, a fixed amount of memory, no seams.

    >>> import tiler
    >>> "segment" in tiler.__all__
    True

Names are loaded when they are first used, so that importing `tiler` is cheap. It never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tiler.backends.onnx import load_model
    from tiler.errors import (
        DamageError,
        InputError,
        MissingError,
        OutOfMemoryError,
        OutputError,
        RemoteError,
        TilerError,
        UsageError,
    )
    from tiler.job import plan
    from tiler.open import open_raster
    from tiler.options import RunOptions
    from tiler.run import segment

__version__: Final = "0.1.0"

_HOMES: Final = {
    "DamageError": "tiler.errors",
    "InputError": "tiler.errors",
    "MissingError": "tiler.errors",
    "OutOfMemoryError": "tiler.errors",
    "OutputError": "tiler.errors",
    "RemoteError": "tiler.errors",
    "RunOptions": "tiler.options",
    "TilerError": "tiler.errors",
    "UsageError": "tiler.errors",
    "load_model": "tiler.backends.onnx",
    "open_raster": "tiler.open",
    "plan": "tiler.job",
    "segment": "tiler.run",
}

__all__ = [
    "DamageError",
    "InputError",
    "MissingError",
    "OutOfMemoryError",
    "OutputError",
    "RemoteError",
    "RunOptions",
    "TilerError",
    "UsageError",
    "load_model",
    "open_raster",
    "plan",
    "segment",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

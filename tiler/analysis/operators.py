"""Which rule speaks for which operator. What is not here is never guessed at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tiler.analysis import layout, mixing, pointwise, sampling, windows

if TYPE_CHECKING:
    from tiler.analysis.node import Rule

RULES: Final[dict[str, Rule]] = {
    **layout.RULES,
    **mixing.RULES,
    **pointwise.RULES,
    **sampling.RULES,
    **windows.RULES,
}
"""By the operator's name in ONNX's own domain."""

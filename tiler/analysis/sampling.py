"""Resize and Upsample: along each axis, results are sampled at points between the elements."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from tiler.analysis.interval import IDENTITY, IndexMap, Sampled
from tiler.analysis.node import Link, Node, Step
from tiler.analysis.tensor import SPATIAL, Atom, Tensor, UnprovenError, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiler.analysis.node import Rule

HALF: Final = Fraction(1, 2)
SHIFTS: Final[dict[str, Callable[[Fraction], Fraction]]] = {
    # x = (i + 1/2) / scale - 1/2 in the half-pixel modes; they differ only at lengths that do not fit, or 1.
    "half_pixel": lambda scale: HALF / scale - HALF,
    "half_pixel_symmetric": lambda scale: HALF / scale - HALF,
    "pytorch_half_pixel": lambda scale: HALF / scale - HALF,
    "tf_half_pixel_for_nn": lambda scale: HALF / scale,
    "asymmetric": lambda _: Fraction(0),
    # Not exact whatever we take; the reach is that of its exact cousin.
    "align_corners": lambda scale: HALF / scale - HALF,
}
LARGEST_DENOMINATOR: Final = 64
"""Of a ratio that is taken for a fraction."""


def resize(node: Node) -> Step:
    """Resize of opset 10 and later."""
    if node.opset < 11:
        return _resize(node, _scales(node.array(1)), None)
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnprovenError("keeps the aspect ratio (not proven)")
    return _resize(node, _scales(node.array(2)), node.array(3))


def upsample(node: Node) -> Step:
    """Upsample of opsets 7 to 9, which Resize replaced."""
    given = node.get("scales")
    return _resize(node, _scales(node.array(1) if given is None else np.array(given)), None)


def _scales(array: np.ndarray | None) -> list[float] | None:
    return None if array is None or not array.size else [float(np.float32(v)) for v in array.reshape(-1)]


def _resize(node: Node, scales: list[float] | None, sizes: np.ndarray | None) -> Step:
    x = node.tensor()
    rank = len(x.axes)
    axes = [a % rank for a in node.get("axes") or range(rank)]
    lengths = list(x.shape)
    ratios = [Fraction(1)] * rank
    for k, axis in enumerate(axes):
        lengths[axis], ratios[axis] = _target(x.shape[axis], k, scales, sizes)
    result, links, reasons = x, [], []
    for axis in range(rank):
        if ratios[axis] == 1:
            links += [Link(0, role, IDENTITY) for role in x.roles(axis) if role in SPATIAL]
            continue
        result = result.with_axis(axis, _stretched(x, axis, lengths[axis], ratios[axis]))
        role = x.single(axis).role
        if role in SPATIAL:
            way, reason = _way(node, ratios[axis], lengths[axis] == ratios[axis] * x.shape[axis])
            links.append(Link(0, role, way))
            reasons += [reason] if reason else []
    return Step((result,), tuple(links), tuple(dict.fromkeys(reasons)))


def _target(
    length: int, k: int, scales: list[float] | None, sizes: np.ndarray | None
) -> tuple[int, Fraction]:
    """Results along the ``k``-th axis that is named, and results per element."""
    if sizes is not None and sizes.size:
        target = int(sizes.reshape(-1)[k])
        ratio = Fraction(target, length)
        if ratio != ratio.limit_denominator(LARGEST_DENOMINATOR):
            raise UnprovenError(f"resizes {length} to {target}, which is no simple ratio (not proven)")
        return target, ratio
    if scales is None:
        raise UnprovenError("has neither scales nor sizes that could be worked out (not proven)")
    ratio = Fraction(scales[k]).limit_denominator(LARGEST_DENOMINATOR)
    if np.float32(ratio) != np.float32(scales[k]) or ratio <= 0:
        raise UnprovenError(f"has the scale {scales[k]:g}, which is no simple fraction (not proven)")
    return int(np.floor(np.float32(length) * np.float32(scales[k]))), ratio


def _stretched(x: Tensor, axis: int, length: int, ratio: Fraction) -> tuple[Atom, ...]:
    atom = x.single(axis)
    if atom.role not in SPATIAL:
        return plain(length)
    return (Atom(length, atom.role, atom.scale * ratio, atom.origin),)


def _way(node: Node, ratio: Fraction, fits: bool) -> tuple[IndexMap, str]:
    """How results are sampled, and what is wrong with it."""
    mode = _mode(node, ratio)
    coordinates = _coordinates(node)
    if coordinates not in SHIFTS or (coordinates == "half_pixel_symmetric" and not fits):
        raise UnprovenError(f"samples in the mode {coordinates} (not proven)")
    way = Sampled(ratio, SHIFTS[coordinates](ratio), mode, bool(node.get("antialias", 0)))
    if coordinates == "align_corners":
        return way, "has align_corners: its sampling points depend on the size"
    if ratio.denominator & (ratio.denominator - 1) and way.on_edge():
        return way, f"has sampling points that rounding of the scale {ratio} can move (not proven)"
    return way, ""


def _coordinates(node: Node) -> str:
    default = "half_pixel" if node.op == "Resize" and node.opset >= 11 else "asymmetric"
    return str(node.get("coordinate_transformation_mode", default))


def _mode(node: Node, ratio: Fraction) -> str:
    """Interpolation, with the rounding of nearest spelt out."""
    mode = node.get("mode", "nearest")
    if mode in ("linear", "bilinear", "cubic"):
        return "cubic" if mode == "cubic" else "linear"
    if mode != "nearest":
        raise UnprovenError(f"interpolates by {mode} (not proven)")
    if _coordinates(node) == "asymmetric" and (node.op == "Upsample" or node.opset < 11):
        return "floor" if ratio > 1 else "ceil"  # as ONNX Runtime does; the specification is silent
    return str(node.get("nearest_mode", "round_prefer_floor"))


RULES: Final[dict[str, Rule]] = {"Resize": resize, "Upsample": upsample}

"""Operators that move elements: transposes, reshapes, crops, padding, sub-pixel blocks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tiler.analysis.fold import slices, split_sizes, target_shape
from tiler.analysis.interval import IDENTITY, Repeated, Window
from tiler.analysis.node import Link, Node, Step, identity_links, same_place, words
from tiler.analysis.regroup import regroup
from tiler.analysis.tensor import SPATIAL, Atom, Axis, Constant, Tensor, UnprovenError, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from tiler.analysis.node import Rule


def transpose(node: Node) -> Step:
    """Axes in another order."""
    x = node.tensor()
    order = node.get("perm") or list(reversed(range(len(x.axes))))
    return same_place(node, Tensor(tuple(x.axes[i] for i in order)))


def reshape(node: Node) -> Step:
    """Axes folded together or cut."""
    target = node.integers("shape", 1)
    if target is None:
        raise UnprovenError("has a shape that could not be worked out (not proven)")
    x = node.tensor()
    return _regrouped(x, target_shape(x.shape, target, bool(node.get("allowzero", 0))))


def flatten(node: Node) -> Step:
    """Two axes."""
    x = node.tensor()
    axis = node.get("axis", 1) % (len(x.axes) + 1)
    return _regrouped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _regrouped(x: Tensor, shape: Iterable[int]) -> Step:
    result, ways = regroup(x, shape)
    links = (
        Link(0, role, ways.get(role, IDENTITY)) for role in SPATIAL if x.atom(role) and result.atom(role)
    )
    return Step((result,), tuple(links))


def squeeze(node: Node) -> Step:
    """Leave out axes of length one."""
    x = node.tensor()
    given = node.integers("axes", 1)
    gone = [i for i, n in enumerate(x.shape) if n == 1] if given is None else given
    gone = [i % len(x.axes) for i in gone]
    if given is None and any(role in SPATIAL for i in gone for role in x.roles(i)):
        raise UnprovenError("drops rows or columns where there is one (not proven)")
    if any(x.shape[i] != 1 for i in gone):
        raise UnprovenError(f"drops an axis of shape {x.shape} that is longer than one (not proven)")
    return same_place(node, Tensor(tuple(axis for i, axis in enumerate(x.axes) if i not in gone)))


def unsqueeze(node: Node) -> Step:
    """Insert axes of length one."""
    x = node.tensor()
    given = node.integers("axes", 1) or []
    rank = len(x.axes) + len(given)
    new = {i % rank for i in given}
    old = iter(x.axes)
    return same_place(node, Tensor(tuple(plain(1) if i in new else next(old) for i in range(rank))))


def expand(node: Node) -> Step:
    """Repeat axes of length one."""
    x = node.tensor()
    target = [int(v) for v in _array(node, 1)]
    rank = max(len(x.axes), len(target))
    old = (plain(1),) * (rank - len(x.axes)) + x.axes
    new = [1] * (rank - len(target)) + target
    axes = [
        axis if length == 1 or Tensor((axis,)).shape == (length,) else _longer(axis, length)
        for axis, length in zip(old, new, strict=True)
    ]
    return same_place(node, Tensor(tuple(axes)))


def _longer(axis: Axis, length: int) -> Axis:
    if axis[0].length != 1 or axis[0].role:
        raise UnprovenError(f"expands an axis to a length of {length} that does not fit (not proven)")
    return plain(length)


def tile(node: Node) -> Step:
    """Repeat whole axes."""
    x = node.tensor()
    times = [int(v) for v in _array(node, 1)]
    for i, n in enumerate(times):
        if n != 1 and x.roles(i):
            raise UnprovenError(f"repeats {words(x.roles(i))} as a whole")
    axes = (
        axis if n == 1 else plain(length * n) for axis, length, n in zip(x.axes, x.shape, times, strict=True)
    )
    return same_place(node, Tensor(tuple(axes)))


def _array(node: Node, i: int) -> list[float]:
    array = node.array(i)
    if array is None:
        raise UnprovenError("lacks a parameter (not proven)")
    return list(array.reshape(-1).tolist())


def concat(node: Node) -> Step:
    """One after another along an axis that is neither rows nor columns."""
    values = [value for value in node.inputs if value is not None]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if any(value.shape is None for value in values):
        raise UnprovenError("reads a constant that could not be worked out (not proven)")
    rank = len(tensors[0].axes)
    axis = node.axis(1, rank)
    if any(t.roles(axis) for t in tensors):
        raise UnprovenError(f"joins along {words(tensors[0].roles(axis))} (not proven)")
    shapes = [value.shape or () for value in values]
    others = {(*s[:axis], *s[axis + 1 :]) for s in shapes}
    if len(others) > 1:
        raise UnprovenError(
            "joins tensors that do not fit each other at other sizes of the tile (not proven)"
        )
    result = tensors[0].with_axis(axis, plain(sum(s[axis] for s in shapes)))
    reasons = tuple(dict.fromkeys(r for value in values if (r := _misfit(value, result, axis))))
    return Step((result,), identity_links(node, result), reasons)


def _misfit(value: Tensor | Constant, result: Tensor, axis: int) -> str:
    """What keeps a part of a Concat from belonging to the others."""
    places = [i for i in range(len(result.axes)) if i != axis]
    spatial = [i for i in places if set(result.roles(i)) & set(SPATIAL)]
    if isinstance(value, Constant):
        varies = any(value.shape and value.shape[i] > 1 for i in spatial)
        return "joins a constant that may vary along rows or columns (not proven)" if varies else ""
    if any(value.roles(i) != result.roles(i) for i in places if result.shape[i] > 1):
        return "joins values that were not followed (not proven)"
    if any(value.atom(r) != result.atom(r) and _scale(value, r) != _scale(result, r) for r in SPATIAL):
        return "joins tensors of different scales (not proven)"
    return ""


def _scale(x: Tensor, role: str) -> object:
    atom = x.atom(role)
    return None if atom is None else atom.scale


def split(node: Node) -> Step:
    """Parts along an axis that is neither rows nor columns."""
    x = node.tensor()
    axis = node.axis(0, len(x.axes))
    if x.roles(axis):
        raise UnprovenError(f"cuts {words(x.roles(axis))} into parts (not proven)")
    sizes = split_sizes(node, x.shape[axis], node.integers("split", 1))
    parts = tuple(x.with_axis(axis, plain(size)) for size in sizes)
    return Step(parts, identity_links(node, parts[0]))


def crop(node: Node) -> Step:
    """Slice: of rows and columns, what begins at a fixed distance from the start."""
    result = x = node.tensor()
    links = {role: IDENTITY for role in x.roles() if role in SPATIAL}
    for axis, cut in slices(node, len(x.axes), *(node.array(i) for i in range(1, len(node.inputs)))):
        begin, end, step = cut.indices(x.shape[axis])
        count = len(range(begin, end, step))
        if begin == 0 and step == 1 and count == x.shape[axis]:
            continue
        role = x.single(axis).role
        if role and step < 0:
            raise UnprovenError(f"turns {words((role,))} around")
        result = result.with_axis(axis, (_cropped(x.single(axis), begin, count, step),))
        if role in SPATIAL:
            links[role] = Window(1, step, -begin)
    return Step((result,), tuple(Link(0, role, way) for role, way in links.items()))


def _cropped(atom: Atom, begin: int, count: int, step: int = 1) -> Atom:
    if not atom.role:
        return Atom(count)
    return Atom(count, atom.role, atom.scale / step, atom.origin + begin / atom.scale)


def pad(node: Node) -> Step:
    """Grow, or with negative amounts cut, axes at their ends."""
    result = x = node.tensor()
    amounts = node.integers("pads", 1)
    rank = len(x.axes)
    if amounts is None:
        raise UnprovenError("has amounts that could not be worked out (not proven)")
    axes = [int(a) % rank for a in _array(node, 3)] if node.value(3) is not None else list(range(rank))
    links = {role: IDENTITY for role in x.roles() if role in SPATIAL}
    reasons = []
    for k, axis in enumerate(axes):
        before, after = amounts[k], amounts[k + len(axes)]
        if (before, after) == (0, 0):
            continue
        atom = x.single(axis)
        if node.get("mode", "constant") == "reflect" and max(before, after) >= atom.length:
            raise UnprovenError(f"reflects more than the {atom.length} elements that are there (not proven)")
        result = result.with_axis(axis, (_cropped(atom, -before, atom.length + before + after),))
        if atom.role in SPATIAL:
            links[atom.role] = Window(1, 1, before)
        if atom.role and node.get("mode", "constant") == "wrap":
            reasons.append("wraps one end of the tile around to the other")
    made = tuple(Link(0, role, way) for role, way in links.items())
    return Step((result,), made, tuple(dict.fromkeys(reasons)))


def centre(node: Node) -> Step:
    """CenterCropPad: cut or grow to a length, at both ends alike."""
    result = x = node.tensor()
    lengths = [int(v) for v in _array(node, 1)]
    axes = [a % len(x.axes) for a in node.get("axes") or range(len(x.axes))]
    links = {role: IDENTITY for role in x.roles() if role in SPATIAL}
    for axis, length in zip(axes, lengths, strict=True):
        atom = x.single(axis)
        more = length - atom.length
        begin = (-more) // 2 if more < 0 else -(more // 2)
        result = result.with_axis(axis, (_cropped(atom, begin, length),))
        if atom.role in SPATIAL:
            links[atom.role] = Window(1, 1, -begin)
    return Step((result,), tuple(Link(0, role, way) for role, way in links.items()))


def gather(node: Node) -> Step:
    """Elements of an axis that is neither rows nor columns; or all rows or columns, with more around them."""
    x = node.tensor()
    axis = node.axis(0, len(x.axes))
    indices = node.array(1)
    if indices is not None and not x.roles(axis):
        result = Tensor((*x.axes[:axis], *map(plain, indices.shape), *x.axes[axis + 1 :]))
        return replace(same_place(node, result), fixed=(indices.tobytes(),))
    atom = x.single(axis)
    before = None if indices is None else _before(indices, atom.length)
    if before is None or indices is None or atom.role not in SPATIAL:
        raise UnprovenError("picks rows or columns by their position (not proven)")
    result = x.with_axis(axis, (_cropped(atom, -before, len(indices)),))
    links = {role: IDENTITY for role in x.roles() if role in SPATIAL} | {atom.role: Window(1, 1, before)}
    return Step((result,), tuple(Link(0, role, way) for role, way in links.items()))


def _before(indices: NDArray[Any], length: int) -> int | None:
    """How many are picked before all elements come in their order; where they do so often, in the middle.

    What is picked around them is padding, as a mirror makes it that repeats where the image is small: from no
    farther inside than it is wide. From farther, as from the other end, a tile would pick other pixels.
    """
    if indices.ndim != 1 or len(indices) < length:
        return None
    indices = np.where(indices < 0, indices + length, indices)
    runs = np.lib.stride_tricks.sliding_window_view(indices, length)
    found = np.flatnonzero((runs == np.arange(length)).all(axis=1))
    middle = (len(indices) - length) / 2
    before = int(min(found, key=lambda start: abs(start - middle), default=0))
    last = length - 1 - (len(indices) - length - before)
    near = (indices[:before] <= before).all() and (indices[before + length :] >= last).all()
    return before if len(found) and near else None


def depth_to_space(node: Node) -> Step:
    """Channels become blocks of pixels; which ones (DCR or CRD) makes no difference here."""
    x, block = _blocks(node)
    result = x.with_axis(1, plain(x.shape[1] // block**2))
    for axis in (2, 3):
        atom = x.single(axis)
        scale = atom.scale * block if atom.role else atom.scale
        result = result.with_axis(axis, (replace(atom, length=atom.length * block, scale=scale),))
    return Step((result,), tuple(Link(0, r, Repeated(block)) for r in x.roles(2, 3) if r in SPATIAL))


def space_to_depth(node: Node) -> Step:
    """Blocks of pixels become channels."""
    x, block = _blocks(node)
    result = x.with_axis(1, plain(x.shape[1] * block**2))
    for axis in (2, 3):
        atom = x.single(axis)
        if atom.length % block:
            raise UnprovenError(f"cuts a length of {atom.length} into blocks of {block} (not proven)")
        scale = atom.scale / block if atom.role else atom.scale
        result = result.with_axis(axis, (replace(atom, length=atom.length // block, scale=scale),))
    return Step((result,), tuple(Link(0, r, Window(block, block)) for r in x.roles(2, 3) if r in SPATIAL))


def _blocks(node: Node) -> tuple[Tensor, int]:
    x = node.tensor()
    if len(x.axes) != 4 or x.roles(1) or set(x.roles(0)) & set(SPATIAL):
        raise UnprovenError("does not find channels, rows and columns where it needs them (not proven)")
    return x, int(node.get("blocksize"))


RULES: Final[dict[str, Rule]] = {
    "CenterCropPad": centre,
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": crop,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}

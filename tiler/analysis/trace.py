"""The network followed forward at one size of the input: what each tensor is, and how it was read."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from tiler.analysis.fold import SHAPES, fold
from tiler.analysis.graph import STANDARD_DOMAINS
from tiler.analysis.node import Node, Step
from tiler.analysis.operators import RULES
from tiler.analysis.tensor import (
    BATCH,
    COLUMNS,
    ROWS,
    Atom,
    Constant,
    Tensor,
    UnprovenError,
    Value,
    plain,
)

if TYPE_CHECKING:
    from tiler.analysis.graph import Network, Operator

Size = dict[str, int]
"""Input pixels, by role."""
SIZED: Final = frozenset(
    (
        "CenterCropPad",
        "Expand",
        "Gather",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Tile",
        "Unsqueeze",
        "Upsample",
    )
)
"""Operators whose rule knows what it means that a parameter depends on the size."""
UNEXPECTED: Final = (IndexError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError)
"""What a rule or numpy raises on a node that is not as the specification has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What is known of a network at one size."""

    size: Size
    values: dict[str, Value]
    """By name; what is not known is missing."""
    steps: tuple[tuple[Operator, Step], ...]
    """Those that depend on the image, in the order in which they run."""
    reasons: tuple[str, ...]
    """Why tiles do not equal the whole image."""
    result: Tensor | None
    """The scores, if they could be followed."""

    def stride(self, role: str) -> int:
        """Input pixels by which every grid of the network, as far as it was followed, is shifted evenly."""
        scales = [_atom_scale(value, role) for value in self.values.values()]
        return math.lcm(*(scale.denominator for scale in scales))


def _atom_scale(value: Value, role: str) -> Fraction:
    atom = value.atom(role) if isinstance(value, Tensor) else None
    return Fraction(1) if atom is None else atom.scale


def constants(network: Network) -> Network:
    """The network with everything worked out that depends on nothing."""
    known: dict[str, Value] = dict(network.weights)
    left = []
    for operator in network.operators:
        if operator.op in SHAPES or not _all_known(operator, known) or _unknown(operator):
            left.append(operator)
            continue
        try:
            made = fold(_node(operator, known, network.opset))
        except (UnprovenError, *UNEXPECTED):
            left.append(operator)
            continue
        known.update(zip(operator.outputs, made, strict=False))
    weights = {name: value for name, value in known.items() if isinstance(value, Constant)}
    return replace(network, operators=tuple(left), weights=weights)


def follow(network: Network, size: Size) -> Trace:
    """The network at one size."""
    values: dict[str, Value] = {network.source: _image(network, size)}
    values.update(network.weights)
    steps, reasons = [], []
    for operator in network.operators:
        try:
            step = _step(operator, values, network.opset)
        except UnprovenError as error:
            step = Step((), reasons=(str(error),))
        except UNEXPECTED:
            step = Step((), reasons=("is not as the ONNX specification has it (not proven)",))
        values.update(
            (n, v) for n, v in zip(operator.outputs, step.outputs, strict=False) if n and v is not None
        )
        reasons += [_reason(operator, reason) for reason in step.reasons]
        steps.append((operator, step))
    result = values.get(network.result)
    return Trace(
        size,
        values,
        tuple(steps),
        tuple(dict.fromkeys(reasons)),
        result if isinstance(result, Tensor) else None,
    )


def _image(network: Network, size: Size) -> Tensor:
    rows, columns = ((Atom(size[role], role),) for role in (ROWS, COLUMNS))
    # An open batch is followed as one that happens to be 1; a fixed one may mix its only image with itself.
    batch = plain(1) if network.batch == 1 else (Atom(network.batch or 1, BATCH),)
    return Tensor((batch, plain(network.channels), rows, columns))


def _reason(operator: Operator, reason: str) -> str:
    return reason if reason.startswith("unknown operator") else f"{operator.label} {reason}"


def _step(operator: Operator, values: dict[str, Value], opset: int) -> Step:
    if _unknown(operator):
        what = " (it runs a graph of its own)" if operator.has_graph else ""
        raise UnprovenError(f"unknown operator {operator.label}{what} (not proven)")
    if any(name and name not in values for name in operator.inputs):
        return Step(())  # what it reads could not be followed, and the reason is given there
    node = _node(operator, values, opset)
    if operator.op in SHAPES or _all_known(operator, values):
        return Step(fold(node))
    if operator.op not in RULES:
        raise UnprovenError(f"unknown operator {operator.label} (not proven)")
    step = RULES[operator.op](node)
    return step if operator.op in SIZED else replace(step, fixed=_sized(node))


def _sized(node: Node) -> tuple[bytes, ...]:
    """The values of constants that may depend on the size."""
    values = [value for value in node.inputs if isinstance(value, Constant) and value.sized]
    if any(value.array is None for value in values):
        raise UnprovenError("computes with the size of the tile (not proven)")
    return tuple(value.array.tobytes() for value in values if value.array is not None)


def _unknown(operator: Operator) -> bool:
    return operator.domain not in STANDARD_DOMAINS or operator.has_graph


def _all_known(operator: Operator, values: dict[str, Value]) -> bool:
    return all(isinstance(values.get(name), Constant) for name in operator.inputs if name)


def _node(operator: Operator, values: dict[str, Value], opset: int) -> Node:
    inputs = tuple(values.get(name) if name else None for name in operator.inputs)
    return Node(operator.op, operator.attributes, inputs, len(operator.outputs), opset)

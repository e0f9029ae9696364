"""One operator of a graph with what is known of its inputs, and what its rule says of its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from tiler.analysis.interval import IDENTITY, IndexMap
from tiler.analysis.tensor import NAMES, SPATIAL, Constant, Tensor, UnprovenError, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Rule = Callable[["Node"], "Step"]

STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Link:
    """How the outputs of a node read one input along one axis."""

    source: int
    """Which input."""
    role: str
    """`ROWS` or `COLUMNS`."""
    way: IndexMap
    """From the output to the input."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a rule says."""

    outputs: tuple[Value | None, ...]
    """None: not known."""
    links: tuple[Link, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why tiles do not equal the whole image, without the node's name."""
    fixed: tuple[bytes, ...] = ()
    """Constants that went into the result: they must not depend on the size."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator, as its rule sees it."""

    op: str
    attributes: dict[str, Any]
    inputs: tuple[Value | None, ...]
    """None: left out, or not known."""
    outputs: int
    """Number of its outputs."""
    opset: int

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - ONNX attributes have any type
        """An attribute; text as ``str``."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def tensor(self, i: int = 0) -> Tensor:
        """An input that depends on the image."""
        value = self.value(i)
        if not isinstance(value, Tensor):
            raise UnprovenError("reads a constant where the image should be (not proven)")
        return value

    def value(self, i: int) -> Value | None:
        """An input, None if it was left out."""
        return self.inputs[i] if i < len(self.inputs) else None

    def constant(self, i: int) -> Constant | None:
        """An input that does not depend on the image, None if it was left out."""
        value = self.value(i)
        if isinstance(value, Tensor):
            raise UnprovenError("takes a parameter from the image (not proven)")
        return value

    def array(self, i: int) -> NDArray[Any] | None:
        """The values of a constant input, None if it was left out."""
        constant = self.constant(i)
        if constant is not None and constant.array is None:
            raise UnprovenError("has a parameter that could not be worked out (not proven)")
        return None if constant is None else constant.array

    def integers(self, name: str, i: int) -> list[int] | None:
        """Integers that are an attribute in old opsets and an input in newer ones."""
        if name in self.attributes:
            value = self.attributes[name]
            return [int(v) for v in value] if isinstance(value, list) else [int(value)]
        array = self.array(i)
        return None if array is None else [int(v) for v in array.reshape(-1)]

    def axis(self, default: int, rank: int) -> int:
        """The attribute ``axis``, counted from the front."""
        return int(self.get("axis", default)) % rank


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Its attributes by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def identity_links(node: Node, result: Tensor) -> tuple[Link, ...]:
    """Every output element reads the same place of every input that has the axis."""
    return tuple(
        Link(i, role, IDENTITY)
        for i, value in enumerate(node.inputs)
        if isinstance(value, Tensor)
        for role in SPATIAL
        if value.atom(role) and result.atom(role)
    )


def same_place(node: Node, result: Tensor, *reasons: str) -> Step:
    """All outputs alike, each element of the same place as what it reads."""
    return Step((result,) * node.outputs, identity_links(node, result), reasons)


def words(roles: tuple[str, ...]) -> str:
    """For a message: ``rows and columns``.

    >>> words(("H", "W"))
    'rows and columns'
    """
    return " and ".join(NAMES[role] for role in roles)

"""From a graph to what is proven of it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from tiler.analysis.graph import Network, read_network
from tiler.analysis.reach import margins, reach
from tiler.analysis.result import Analysis, AxisReach
from tiler.analysis.sizes import LARGEST_STRIDE, Strides, family, smallest, unstable
from tiler.analysis.tensor import COLUMNS, ROWS, SPATIAL, UnprovenError
from tiler.analysis.trace import Trace, constants

if TYPE_CHECKING:
    import onnx

NOT_FOLLOWED = "the output could not be followed back to rows and columns of the input (not proven)"

ORDER = "the output's axes are not (batch, class, row, column)"


def analyse(proto: onnx.ModelProto) -> Analysis:
    """What tiles must be like for this network, and whether they equal the whole image.

    Declared heights and widths are ignored: what is said holds for the same graph at any legal size, or it
    is said that the graph is tied to one.
    """
    try:
        network = constants(read_network(proto))
    except UnprovenError as error:
        return Analysis(None, None, (f"{error} (not proven)",))
    trace, strides = family(network)
    if max(strides.values()) > LARGEST_STRIDE:
        return Analysis(None, None, (*trace.reasons, "the total stride is too large (not proven)"))
    if trace.result is None or not set(SPATIAL) <= set(trace.result.roles()):
        return Analysis(None, None, trace.reasons or (NOT_FOLLOWED,))
    if [trace.result.roles(i) for i in range(2, len(trace.result.axes))] != [(ROWS,), (COLUMNS,)]:
        return Analysis(None, None, (*trace.reasons, ORDER))
    varying = unstable(network, trace, strides)
    if varying:
        return Analysis(None, None, (*trace.reasons, *varying))
    rows, columns = (_axis(network, trace, strides, role) for role in (ROWS, COLUMNS))
    return Analysis(rows, columns, trace.reasons)


def _axis(network: Network, trace: Trace, strides: Strides, role: str) -> AxisReach:
    before, after = reach(trace, network.result, role)
    margin_before, margin_after = margins(trace, role)
    atom = None if trace.result is None else trace.result.atom(role)
    scale = Fraction(1) if atom is None else atom.scale
    shift = margin_before / scale
    return AxisReach(
        stride=strides[role],
        before=max(math.ceil(before + shift), 0),
        after=max(math.ceil(after - shift), 0),
        margin_before=margin_before,
        margin_after=margin_after,
        scale=scale,
        residue=trace.size[role] % strides[role],
        smallest=smallest(network, trace, strides, role),
    )

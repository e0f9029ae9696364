"""Stride, halo and exactness of a network, proven from its ONNX graph without running it.

The graph is followed forward at a few sizes of the input, with what each tensor's axes came from
(`trace`). If every operator does the same at all of them (`sizes`), a walk backward from a block of scores
says which pixels they depend on (`reach`). What an operator does is said by one rule for it (`operators`);
one without a rule is named, and nothing is claimed.
"""

from tiler.analysis.analyse import analyse
from tiler.analysis.result import Analysis, AxisReach

__all__ = ["Analysis", "AxisReach", "analyse"]

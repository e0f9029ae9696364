"""The stages of a run: first the decoder alone, on an encoder that is frozen, then all.

A pretrained encoder is not thrown off by the first gradients of a decoder that knows nothing yet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """Epochs that are trained alike."""

    epochs: range
    """From 0."""
    frozen: bool
    """Whether the encoder stays as it is."""
    batch: int
    """Samples per step of the optimizer, in all processes together."""
    lr: float
    """Peak learning rate."""
    steps: int
    """Per epoch."""

"""What a network runs on, as ``--device`` names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tiler.errors import UsageError

NAMES: Final = "auto, cpu, cuda, cuda:N, cuda:N,M.., openvino or openvino:bf16"


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of device and, after the colon, which ones or how precise."""

    kind: str
    """auto, cpu, cuda or openvino."""
    cards: tuple[int, ...] = ()
    """NVIDIA cards, numbered from 0."""
    precision: str = "f32"
    """Of OpenVINO: f32, or bf16 with 8 bits of mantissa."""

    @classmethod
    def parse(cls, text: str) -> Device:
        """Read the name of a device.

        >>> Device.parse("cuda:0,2").cards, Device.parse("openvino:bf16").precision
        ((0, 2), 'bf16')

        Raises
        ------
        UsageError
            if it names none.
        """
        if text in {"auto", "cpu", "openvino"}:
            return cls(text)
        if text == "openvino:bf16":
            return cls("openvino", precision="bf16")
        match = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", text, re.ASCII)
        cards = tuple(int(number) for number in (match[1] or "0").split(",")) if match else ()
        if not cards or len(set(cards)) < len(cards):
            raise UsageError(f"device is {NAMES}, each card once, got {text!r}")
        return cls("cuda", cards)

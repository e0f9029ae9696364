"""Options to networks, and both to JSON and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from train.models.encoded import EncodedUNet
from train.models.nested import NestedUNet
from train.models.options import KINDS, EncodedOptions, NestedOptions, Options
from train.models.unet import UNet

if TYPE_CHECKING:
    from train.models.network import Network

KIND: Final = "network"
"""The key that names the kind; networks saved before there were several lack it."""


def build(options: Options) -> Network:
    """A network with random weights, in training mode."""
    if isinstance(options, NestedOptions):
        return NestedUNet(options)
    if isinstance(options, EncodedOptions):
        return EncodedUNet(options)
    return UNet(options)


def to_json(net: Network) -> dict[str, Any]:
    """What determines a network but for its weights, as plain values."""
    kind = next(name for name, options in KINDS.items() if type(net.options) is options)
    return {KIND: kind, **asdict(net.options)}


def from_json(raw: dict[str, Any]) -> Network:
    """The network that `to_json` was given, with random weights.

    Raises
    ------
    UsageError, TypeError, KeyError
        if these are no options.
    """
    told: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
    kind = told.pop(KIND, None)
    if kind is None:
        kind = "unet"
        told["up"] = {"nearest": "nearest1"}.get(told["up"], told["up"])
    return build(KINDS[kind](**told))

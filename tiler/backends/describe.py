"""Who says what about a model: options win over its own metadata, that over its graph, then defaults.

What nobody says and nothing can tell is asked for by name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tiler.errors import InputError, UsageError
from tiler.spec import ModelSpec, default_classes

if TYPE_CHECKING:
    from tiler.backends.graph import Graph
    from tiler.options import RunOptions

PER_BAND = ("scale", "mean", "std")


def describe(graph: Graph, channels: int, options: RunOptions) -> tuple[ModelSpec, dict[str, str]]:
    """The spec to work by, and where each of its fields came from.

    Raises
    ------
    InputError
        if something that changes the result is said nowhere.
    """
    values, origins = _from_metadata(graph)
    if graph.spec is None:
        values.update(_from_graph(graph, channels, options))
        origins.update(dict.fromkeys(values, "graph"))
    told = _from_options(graph, options)
    values.update(told)
    origins.update(dict.fromkeys(told, "option"))
    _ask_for_missing(graph, values)
    _check_bands(graph, values)
    spec = ModelSpec(**values)
    return spec, {f.name: origins.get(f.name, "default") for f in fields(ModelSpec)}


def _from_metadata(graph: Graph) -> tuple[dict[str, Any], dict[str, str]]:
    if graph.spec is None:
        return {}, {}
    values = {f.name: getattr(graph.spec, f.name) for f in fields(ModelSpec)}
    return values, dict.fromkeys(values, "metadata")


def _from_graph(graph: Graph, channels: int, options: RunOptions) -> dict[str, Any]:
    count = max(channels, 2)
    values: dict[str, Any] = {
        "bands": tuple(f"band {i}" for i in range(1, graph.channels + 1)),
        "classes": default_classes(tuple(f"class {i}" for i in range(count))),
    }
    if graph.stride is not None:
        values["stride"] = graph.stride
    if None not in graph.shape[1:] and options.halo is None:
        # Blended tiles of a fixed size may start at any pixel; exact ones must start on the stride.
        values["stride"] = 1
    return values


def _from_options(graph: Graph, options: RunOptions) -> dict[str, Any]:
    told = {
        name: getattr(options, name)
        for name in (*PER_BAND, "activation", "threshold", "stride", "halo")
        if getattr(options, name) is not None
    }
    if graph.dtype.kind == "u" and set(told) & set(PER_BAND):
        raise UsageError(
            f"the network takes raw {graph.dtype} pixels and scales them itself, got "
            + ", ".join(f"--{name}" for name in PER_BAND if name in told)
        )
    for name in PER_BAND:
        if len(told.get(name, ())) == 1:
            told[name] *= graph.channels
    if options.classes is not None:
        told["classes"] = default_classes(options.classes)
    return told


def _ask_for_missing(graph: Graph, values: dict[str, Any]) -> None:
    missing = []
    if graph.dtype.kind == "f" and "scale" not in values:
        missing.append("--scale (e.g. 1/255 for bytes fed as 0 to 1, or 1)")
    if "activation" not in values:
        missing.append("--activation (what it returns: logits, softmax, sigmoid or none)")
    if values.get("stride") is None:
        missing.append("--stride (its total down-sampling, e.g. 16)")
    if missing:
        raise InputError("the model does not describe itself: pass " + ", ".join(missing))


def _check_bands(graph: Graph, values: dict[str, Any]) -> None:
    if len(values["bands"]) != graph.channels:
        raise InputError(
            f"the model's metadata names {len(values['bands'])} bands but its input has {graph.channels}"
        )

"""Who says what about a model: options win over its own metadata, that over its graph, then defaults.

What nobody says and nothing can tell is asked for by name.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tiler.errors import InputError, UsageError
from tiler.spec import ModelSpec, default_classes

if TYPE_CHECKING:
    from tiler.analysis import Analysis
    from tiler.backends.graph import Graph
    from tiler.options import RunOptions

PER_BAND = ("scale", "mean", "std")


def describe(
    graph: Graph, channels: int, options: RunOptions, analysis: Analysis
) -> tuple[ModelSpec, dict[str, str]]:
    """The spec to work by, and where each of its fields came from.

    What the analysis proves of stride and halo goes before what the metadata say; options go before both.

    Raises
    ------
    InputError
        if something that changes the result is said nowhere.
    """
    values, origins = _from_metadata(graph)
    if graph.spec is None:
        values.update(_from_graph(graph, channels, options))
        origins.update(dict.fromkeys(values, "graph"))
    proven = _from_analysis(graph, analysis)
    values.update(proven)
    origins.update({name: "proven" if name != "stride" or analysis.exact else "graph" for name in proven})
    told = _from_options(graph, options)
    if analysis.exact and told.get("stride", 0) % (analysis.stride or 1):
        raise UsageError(
            f"--stride is a multiple of the network's own, {analysis.stride}, got {told['stride']}"
        )
    values.update(told)
    origins.update(dict.fromkeys(told, "option"))
    if analysis.exact and values["halo"] < (analysis.halo or 0):
        # A smaller halo was told: cores then do not equal the whole image.
        values["exact"], origins["exact"] = False, "option"
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


def _from_analysis(graph: Graph, analysis: Analysis) -> dict[str, Any]:
    """Stride, halo and whether tiles are exact, as the graph itself shows them.

    Raises
    ------
    InputError
        if the network returns another number of scores than it is fed pixels.
    """
    for axis in (analysis.rows, analysis.columns):
        if axis is not None and (axis.scale != 1 or axis.margin_before or axis.margin_after):
            raise InputError(
                f"a model returns one score per pixel, this one {axis.scale}, less "
                f"{axis.margin_before} at the start and {axis.margin_after} at the end; "
                "pad its convolutions, or resize its output"
            )
    if analysis.exact:
        return {"stride": analysis.stride, "halo": analysis.halo, "exact": True}
    # A graph of one size may be fed tiles from anywhere; of others the stride tells the legal sizes.
    if None not in graph.shape[1:] or analysis.stride is None:
        return {"exact": False}
    said = graph.spec.stride if graph.spec and graph.spec.stride else 1
    return {"exact": False, "stride": math.lcm(analysis.stride, said)}


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

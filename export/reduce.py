"""A network of less precision, written only if it still labels real pixels as it should."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx

from export.calibration import Calibration, calibration_batches
from export.gate import check, judge
from export.half import halve
from export.output import whole
from export.quantize import quantize
from tiler.backends.graph import precision, read_graph
from tiler.backends.onnx import load_model
from tiler.errors import InputError, one_line
from tiler.options import RunOptions
from tiler.spec import METADATA_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from export.gate import Limits, Verdict
    from tiler.model import Model
    from tiler.ports import Raster

ON_CPU: Final = RunOptions(device="cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Real pixels at the network's resolution."""

    raster: Raster
    """To judge by."""
    labels: Raster | None
    """The truth on the grid of ``raster``, if it is known."""
    calibration: tuple[Raster, ...]
    """To learn the range of activations from; of a raster that is in both, other tiles are judged by."""


def load_source(path: Path) -> Model:
    """An fp32 network that describes itself.

    Raises
    ------
    InputError
        if it is none.
    """
    graph, _ = read_graph(path)
    if graph.spec is None:
        raise InputError(
            f"a network to reduce describes itself, got no metadata {METADATA_KEY!r} in {path}; export it "
            "from its checkpoint, or add the JSON of a tiler.spec.ModelSpec under that key"
        )
    if (found := precision(graph)) != "fp32":
        raise InputError(f"a network to reduce is fp32, got {found} in {path}; name the one it was made from")
    return load_model(path, ON_CPU)


def reduce_onnx(source: Model, wanted: str, evidence: Evidence, limits: Limits, out: Path) -> Verdict:
    """Write ``out`` as ``fp16`` or ``int8``, or raise and leave nothing.

    Raises
    ------
    InputError
        if it loses more than the limits allow, or the rasters have too little to tell.
    """
    with whole(out) as partial:
        if wanted == "int8":
            batches = calibration_batches(source, evidence.calibration)
            quantize(source.path, Calibration(_input_name(source.path), batches), partial)
        else:
            halve(source.path, partial)
        describe(partial, source)
        verdict = judge(source, load_model(partial, ON_CPU), evidence.raster, evidence.labels)
        check(verdict, limits)
    return verdict


def _input_name(path: Path) -> str:
    return read_graph(path)[0].input_name


def describe(path: Path, source: Model) -> None:
    """Let the file say of itself what its source does: no scale in it depends on where a pixel lies.

    Raises
    ------
    InputError
        if the conversion made no valid graph.
    """
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: source.spec.to_json()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(
            f"a conversion makes a valid graph, got one of {source.path} that is not: {one_line(error)}; use "
            "another --precision"
        ) from None
    onnx.save(model, path)

"""Stride, halo and exactness from the graph, against what networks do when they are run.

The truth is found by trying: which pixels a block of scores changes with, and whether tiles equal the whole
image. Nothing here repeats the analysis' own formulas.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

import zoo
from tiler.analysis import analyse
from zoo import agree, dependence, pixels, runner

ROOT = Path(__file__).parents[1]
DIMS = {"rows": -2, "columns": -1}
INNER = {"tight_by_an_inner_tensor"}
"""Their halo is not that of the input alone."""


def bands(proto):
    return proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value


def open_sizes(proto):
    """The same graph without declared sizes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for i in (2, 3):
        copy.graph.input[0].type.tensor_type.shape.dim[i].dim_param = f"side{i}"
    return copy


def legal(axis, at_least):
    """The smallest legal length that is at least this."""
    return next(n for n in range(max(at_least, axis.smallest), 10**5) if axis.legal(n))


def primes(n):
    return [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]


@pytest.fixture(params=zoo.EXACT)
def found(request):
    """Name, graph, analysis and runner of each exact network of the zoo."""
    proto = zoo.EXACT[request.param]()
    return request.param, proto, analyse(proto), runner(open_sizes(proto))


def test_exact_networks_are_proven(found):
    _, proto, analysis, run = found
    assert analysis.reasons == ()
    assert analysis.exact
    rows, columns = legal(analysis.rows, 40), legal(analysis.columns, 50)
    scores = run(pixels(bands(proto), rows, columns))
    assert scores.shape[1:] == (analysis.rows.scores(rows), analysis.columns.scores(columns))


@pytest.mark.parametrize("side", DIMS)
def test_halo_is_what_scores_change_with(found, side):
    """To the pixel, on both sides."""
    name, proto, analysis, run = found
    if name in INNER:
        return
    axis, other = getattr(analysis, side), legal(getattr(analysis, {"rows": "columns"}.get(side, "rows")), 16)
    core = int(axis.margin_before / axis.scale) + axis.stride * -(-axis.before // axis.stride)
    length = legal(axis, core + 2 * axis.stride + axis.after + 4)
    before, after = dependence(run, axis, bands(proto), length, core, DIMS[side], other)
    # What is left out at the edges is no part of any core.
    margins = axis.margin_before / axis.scale, axis.margin_after / axis.scale
    assert (max(before, margins[0]), max(after, margins[1])) == (axis.before, axis.after)


@pytest.mark.parametrize("side", DIMS)
def test_tiles_equal_the_whole_image(found, side):
    _, proto, analysis, run = found
    axis, other = getattr(analysis, side), legal(getattr(analysis, {"rows": "columns"}.get(side, "rows")), 16)
    stride = axis.stride
    tile = legal(axis, axis.before + axis.after + 3 * stride + 2)
    length = tile + 4 * stride
    shape = (length, other) if side == "rows" else (other, length)
    image = pixels(bands(proto), *shape)
    whole = image, run(image)
    for start in range(0, 4 * stride + 1, stride):
        assert agree(run, whole, axis, start, tile, DIMS[side]), f"tile at {start}"


def test_smaller_strides_fail(found):
    """Starting at a fraction of the stride, no halo helps."""
    name, proto, analysis, run = found
    axis, other = analysis.columns, legal(analysis.rows, 16)
    tile = legal(axis, axis.before + axis.after + 12 * axis.stride)
    image = pixels(bands(proto), other, tile + 4 * axis.stride)
    scores = run(image)
    for prime in primes(axis.stride):
        start = axis.stride // prime
        part = run(image[..., start : start + tile])
        middle = part.shape[-1] // 2
        offset = int(start * axis.scale) if (start * axis.scale).denominator == 1 else None
        assert offset is None or not np.allclose(
            part[..., middle : middle + 4], scores[..., middle + offset : middle + offset + 4], rtol=1e-5
        ), f"{name} is exact at stride {start}"


@pytest.mark.parametrize("name", zoo.INEXACT)
def test_inexact_networks_say_why(name):
    build, reason = zoo.INEXACT[name]
    analysis = analyse(build())
    assert not analysis.exact
    assert any(reason in found for found in analysis.reasons), analysis.reasons
    assert all("\n" not in found for found in analysis.reasons)


@pytest.mark.parametrize(
    "name",
    sorted(
        set(zoo.INEXACT)
        - {
            "layer_norm_of_columns",
            "dense_along_columns",
            "mirrored",
            "begins_in_the_middle",
            "softmax_along_the_batch",
        }
    ),
)
def test_inexact_networks_are_inexact(name):
    """In the middle of a large tile too, or at the image's own edge."""
    proto = zoo.INEXACT[name][0]()
    run = runner(proto)
    image = pixels(bands(proto), 32, 128) + np.linspace(0, 1, 128, dtype=np.float32)
    scores, tile = run(image), run(image[..., :64])
    middle = slice(0, 30)
    assert not np.allclose(tile[..., middle], scores[..., middle], rtol=1e-4)


UNPROVEN = {
    "unknown": (lambda: zoo.unproven("NonZero"), "unknown operator NonZero 'nonzero0' (not proven)"),
    "cumulative": (lambda: zoo.unproven("CumSum"), "CumSum 'cumsum0'"),
    "custom": (
        lambda: zoo.unproven("Foo", "org.example"),
        "unknown operator org.example.Foo 'foo0' (not proven)",
    ),
    "fused": (lambda: zoo.unproven("FusedConv", "com.microsoft"), "com.microsoft.FusedConv 'fusedconv0'"),
    "namesake": (lambda: zoo.unproven("Relu", "org.example"), "org.example.Relu 'relu0'"),
    "subgraph": (zoo.with_subgraph, "unknown operator If 'if0' (it runs a graph of its own) (not proven)"),
    "flat": (zoo.flat_output, "the output's axes are not (batch, class, row, column)"),
    "baked": (zoo.baked, "Reshape 'reshape1' has sizes baked in"),
    "baked batch": (lambda: zoo.baked((-1, 4, 32, 64)), "Reshape 'reshape1'"),
    "varying": (zoo.varying_constant, "Add 'add0'"),
    "positions": (zoo.positions, "Add 'add4' uses a constant that varies along columns"),
    "joined": (zoo.joined_columns, "Concat 'concat1' joins along columns (not proven)"),
    "training": (zoo.training, "BatchNormalization 'batchnormalization0' is in training mode"),
    "broken": (lambda: zoo.unproven("Transpose", perm=[7, 7]), "Transpose 'transpose0'"),
}


@pytest.mark.parametrize("name", UNPROVEN)
def test_what_is_not_known_is_named_and_not_guessed(name):
    build, reason = UNPROVEN[name]
    analysis = analyse(build())
    assert not analysis.exact
    assert any(reason in found for found in analysis.reasons), analysis.reasons


def test_labels_are_followed():
    """A network that ends in ArgMax is exact; whether its output is of use is for others to say."""
    assert analyse(zoo.labels()).halo == 1


def test_a_network_of_two_inputs_is_refused():
    proto = zoo.EXACT["conv"]()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))
    assert "2 inputs" in analyse(proto).reasons[0]


@pytest.mark.parametrize("seed", range(60))
def test_networks_drawn_at_random(seed):
    proto = zoo.of_random_parts(seed)
    analysis, run = analyse(proto), runner(proto)
    if any("do not fit each other" in reason for reason in analysis.reasons):
        for side in range(100, 112):
            with pytest.raises(Fail):
                run(pixels(1, side, side))
        return
    assert analysis.reasons == ()
    axis, other = analysis.columns, legal(analysis.rows, 24)
    stride = axis.stride
    core = int(np.ceil(axis.margin_before / axis.scale)) + stride * -(-axis.before // stride)
    tile = legal(axis, axis.before + axis.after + 4 * stride)
    image = pixels(1, other, tile + 3 * stride)
    whole = image, run(image)
    assert whole[1].shape[1:] == (analysis.rows.scores(other), axis.scores(image.shape[-1]))
    for start in (0, stride, 2 * stride, 3 * stride):
        assert agree(run, whole, axis, start, tile), f"tile at {start}"
    if axis.margin_before == axis.margin_after == 0:
        length = legal(axis, core + 2 * stride + axis.after + 4)
        before, after = dependence(run, axis, 1, length, core, -1, other)
        assert before <= axis.before
        assert after <= axis.after


MODELS = {
    # stride, halo
    "cloud_unet_l8_rgbnir.onnx": (4, 22),
    "retina_unet_drive.onnx": (4, 22),
    "wnet_drive_av.onnx": (8, 94),
    "contract/one_output_sigmoid_bsx1x512x512.onnx": (1, 0),
    "contract/one_output_sigmoid_bsx512x512.onnx": None,
    "contract/one_output_sigmoid_red_detector.onnx": (1, 0),
    "contract/one_output_softmax_bsx2x512x512.onnx": (1, 0),
}


def test_the_table_names_every_model(shared):
    folder = shared / "models"
    assert {str(p.relative_to(folder).as_posix()) for p in folder.rglob("*.onnx")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_published_models(shared, name):
    check(onnx.load(shared / "models" / name), MODELS[name])


def test_the_shipped_model():
    check(onnx.load(ROOT / "tiler" / "demo" / "buildings.onnx"), (16, 94))


def check(proto, expected):
    """The verdict, and that tiles with its halo equal the whole image and with a stride less do not."""
    analysis = analyse(proto)
    assert analysis.exact == (expected is not None)
    if expected is None:
        return
    axis, run = analysis.columns, runner(open_sizes(proto))
    assert (analysis.stride, analysis.halo) == expected
    tile = legal(axis, axis.before + axis.after + 2 * axis.stride)
    image = pixels(bands(proto), legal(analysis.rows, 32), tile + 2 * axis.stride)
    whole = image, run(image)
    for start in (0, axis.stride, 2 * axis.stride):
        assert agree(run, whole, axis, start, tile)
    if axis.stride > 1:
        # Trained weights hardly use the last few pixels, so that rather much is left out.
        assert not agree(run, whole, axis, axis.stride, tile, halo=(axis.before // 4, axis.after // 4))

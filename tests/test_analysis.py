"""Stride, halo and exactness from the graph, against what networks do when they are run.

The truth is found by trying: which pixels a block of scores changes with, and whether tiles equal the whole
image. Nothing here repeats the analysis' own formulas.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import zoo
from tiler.analysis import analyse
from zoo import agree, dependence, pixels, runner

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


@pytest.mark.parametrize("name", sorted(set(zoo.INEXACT) - {"layer_norm_of_columns", "mirrored", "begins_in_the_middle"}))
def test_inexact_networks_are_inexact(name):
    """In the middle of a large tile too, or at the image's own edge."""
    proto = zoo.INEXACT[name][0]()
    run = runner(proto)
    image = pixels(bands(proto), 32, 128) + np.linspace(0, 1, 128, dtype=np.float32)
    scores, tile = run(image), run(image[..., :64])
    middle = slice(0, 30)
    assert not np.allclose(tile[..., middle], scores[..., middle], rtol=1e-4)

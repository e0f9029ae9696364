"""One axis, then two: starts, cores, weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tiler.errors import UsageError
from tiler.grid import Axis, TileGrid
from tiler.weights import WINDOWS

ANY_WINDOW = st.sampled_from([None, *WINDOWS])


@st.composite
def axes(draw, window=ANY_WINDOW):
    """Axes of up to about three tiles, every stride, overlap and window.

    Widened to one-pixel extents and to overlaps above half a tile, where a pixel has three tiles or more.
    """
    stride = draw(st.sampled_from([1, 2, 4, 16]))
    tile = stride * draw(st.integers(1, 12))
    chosen = draw(window)
    step = stride * draw(st.integers(1, tile // stride))
    overlap = tile - step
    if chosen is None:
        # In exact mode the overlap is twice a halo that is a multiple of the stride.
        overlap = overlap // (2 * stride) * 2 * stride
    return Axis(draw(st.integers(1, 3 * tile)), tile, overlap, stride, chosen)


@given(axes())
def test_tiles_start_on_the_stride_and_cover_the_axis(axis):
    """Starts are ascending multiples of the stride, from 0 to the padded end."""
    starts = axis.starts
    assert starts[0] == 0
    assert starts[-1] + axis.tile == axis.padded >= axis.extent
    assert all(start % axis.stride == 0 for start in starts)
    assert all(0 < b - a <= axis.step for a, b in itertools.pairwise(starts))


@given(axes(window=st.none()))
def test_cores_meet_and_cover_the_axis(axis):
    """Each pixel has one owner, at least a halo inside its tile but for the raster's own borders."""
    cores = [axis.core(i) for i in range(axis.count)]
    assert cores[0][0] == 0
    assert cores[-1][1] == axis.extent
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cores))
    halo = axis.overlap // 2
    for i, (first, last) in enumerate(cores):
        assert first < last
        assert i == 0 or first - axis.start(i) >= halo
        assert i == axis.count - 1 or axis.start(i) + axis.tile - last >= halo


@given(axes(window=st.none()), st.data(), st.booleans())
def test_tiles_of_a_part_cover_it_with_the_same_halo(axis, data, fixed):
    """Cores meet, cover the part and nothing else; tiles are as few as would do, none larger than before."""
    first = data.draw(st.integers(0, axis.extent - 1))
    last = data.draw(st.integers(first + 1, axis.extent))
    part = axis.within(first, last, fixed=fixed)
    cores = [part.core(i) for i in range(part.count)]
    assert (cores[0][0], cores[-1][1]) == (first, last)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cores))
    assert part.tile == axis.tile if fixed else part.tile <= axis.tile
    assert part.count <= -(-(last - first + axis.overlap + 2 * axis.stride) // axis.step)
    for i, (top, bottom) in enumerate(cores):
        start = part.start(i)
        assert top < bottom
        assert start % axis.stride == 0
        assert start >= 0
        assert start + part.tile <= axis.padded
        assert start == 0 or top - start >= axis.overlap // 2
        assert start + part.tile == axis.padded or start + part.tile - bottom >= axis.overlap // 2
    assert list(part.touching(first, last)) == list(range(part.count))
    assert part.done(part.count - 1) == last


@given(axes())
@example(Axis(209, 224, 32, 16, "hann"))
@example(Axis(225, 224, 32, 16, "hann"))  # a tiled-inference peer raises at these two sizes
def test_weights_sum_to_one(axis):
    """The one property that blending stands on."""
    total = np.zeros(axis.extent)
    for i in range(axis.count):
        first, last = axis.share(i)
        weights = axis.weights(i)
        assert weights.min() > 0
        total[first:last] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(axes(), st.data())
def test_touching_names_exactly_the_tiles_of_a_span(axis, data):
    """Column strips must not forget a tile, nor compute one that gives nothing."""
    first = data.draw(st.integers(0, axis.extent - 1))
    last = data.draw(st.integers(first + 1, axis.extent))
    expected = [i for i in range(axis.count) if axis.share(i)[0] < last and axis.share(i)[1] > first]
    assert list(axis.touching(first, last)) == expected


@given(axes())
def test_rows_leave_when_no_later_tile_reaches_them(axis):
    """`done` never goes back, and ends at the extent."""
    done = [axis.done(i) for i in range(axis.count)]
    assert done == sorted(done)
    assert done[-1] == axis.extent
    assert all(axis.share(j)[0] >= done[i] for i in range(axis.count) for j in range(i + 1, axis.count))


@given(axes(), axes(), st.integers(1, 64))
def test_strips_cover_the_width_and_clip_shares(rows, columns, width):
    """Strips meet; within each, every pixel column has a tile."""
    assume((rows.window is None) == (columns.window is None))
    grid = TileGrid(rows, columns)
    edge = 0
    for strip in grid.strips(width):
        left = strip.window.left
        assert left == edge
        edge = strip.window.right
        covered = np.zeros(strip.window.width, bool)
        for column in strip.columns:
            share = strip.share(0, column)
            covered[share.left - left : share.right - left] = True
        assert covered.all()
    assert edge == columns.extent


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extent": 0, "tile": 8}, "at least one pixel"),
        ({"extent": 9, "tile": -8}, "positive multiple of the stride 1, got -8"),
        ({"extent": 9, "tile": 24, "stride": 16}, "multiple of the stride 16, got 24"),
        ({"extent": 9, "tile": 8, "overlap": 8}, "less than the tile 8, got 8"),
        ({"extent": 9, "tile": 32, "overlap": 8, "stride": 16}, "got 32 - 8"),
        ({"extent": 9, "tile": 8, "part": (4, 10)}, r"within its 9 pixels, got \(4, 10\)"),
        ({"extent": 9, "tile": 8, "part": (4, 8), "window": "hann"}, "only cores are made for a part"),
        ({"extent": 9, "tile": 8, "window": "spline"}, "one of hann, gaussian, linear, got 'spline'"),
    ],
)
def test_an_impossible_axis_is_refused(values, message):
    """With the rule and the value, never repaired."""
    with pytest.raises(UsageError, match=message):
        Axis(**values)

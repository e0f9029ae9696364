"""Polygons of label maps: those of the whole raster at once, however it comes; simplified without gaps."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tiler.vector.polygonise import Lattice, polygonise

NODATA = 255
SMALL = 64
"""Room for nodes: so little that it overflows in small maps."""


def chunks(labels_HW, rows):
    return (labels_HW[top : top + rows] for top in range(0, len(labels_HW), rows))


def polygons(labels_HW, rows=7, room=SMALL, excluded=(NODATA, NODATA), **how):
    """(value, polygon, pixels) of every component."""
    height, width = labels_HW.shape
    areas_RC = np.ones((-(-height // 1024), -(-width // 1024)))
    found = []
    for batch in polygonise(chunks(labels_HW, rows), Lattice(width, areas_RC, excluded, **how), room):
        ends = (np.append(0, batch.ring_ends_G), np.append(0, batch.polygon_ends_P))
        shapes = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, batch.points_N2.astype(np.float64), ends
        )
        found += zip(batch.values_P.tolist(), shapes, batch.pixels_P.tolist(), strict=True)
    return found


def at_once(labels_HW, nodata=NODATA):
    """The same by GDAL, of the whole raster."""
    shapes = rasterio.features.shapes(labels_HW, mask=labels_HW != nodata, connectivity=4)
    return [(int(value), shapely.geometry.shape(shape)) for shape, value in shapes]


def bag(pairs):
    """A multiset of polygons with their values, whatever the ring's first point."""
    return Counter((value, shapely.normalize(shape).wkb) for value, shape in pairs)


def smooth(seed, side, classes, scale):
    """A map of rounded regions, about as large as ``scale`` pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    blur = np.exp(-2 * (np.pi * scale) ** 2 * (y**2 + x**2))
    fields = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * blur).real for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


PINCHED = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], np.uint8)
"""A hole that touches the outside at a corner: rings must not cross there."""
CHESS = (np.indices((5, 6)).sum(axis=0) % 2).astype(np.uint8)
NESTED = np.pad(np.pad(np.pad([[3]], 1, constant_values=2), 1, constant_values=1), 1).astype(np.uint8)
MAPS = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 1, 2, 255])
)


@given(labels_HW=MAPS, rows=st.integers(1, 15))
@settings(max_examples=150)
@example(PINCHED, 1)
@example(CHESS, 2)
@example(NESTED, 3)
@example(np.zeros((1, 1), np.uint8), 1)
@example(np.full((3, 3), 255, np.uint8), 1)
def test_polygons_are_those_of_the_whole_raster(labels_HW, rows):
    """To the corner, in any chunks; and they are valid."""
    found = polygons(labels_HW, rows)
    assert bag(pair[:2] for pair in found) == bag(at_once(labels_HW))
    assert all(shape.is_valid and shape.area == pixels for _, shape, pixels in found)


@given(labels_HW=MAPS)
def test_background_is_left_out(labels_HW):
    found = polygons(labels_HW, excluded=(NODATA, 0))
    assert bag(pair[:2] for pair in found) == bag(pair for pair in at_once(labels_HW) if pair[0])


@pytest.mark.parametrize("value", [70_000, -3, 255])
def test_labels_of_more_than_a_byte(value):
    labels_HW = np.where(CHESS, value, 5).astype(np.int64)
    labels_HW[0, 0] = -(1 << 62)
    found = polygons(labels_HW, excluded=(-(1 << 62), 0))
    assert Counter(v for v, *_ in found) == {value: 15, 5: 14}


@pytest.mark.parametrize("classes", [2, 6])
def test_a_large_map_overflows_its_room_often(classes):
    labels_HW = smooth(0, 700, classes, 3)
    labels_HW[300:340, 200:260] = NODATA
    for room in (SMALL, 1 << 20):
        found = polygons(labels_HW, rows=97, room=room)
        assert bag(pair[:2] for pair in found) == bag(at_once(labels_HW))


def test_a_spiral_that_reaches_every_row_is_one_polygon():
    """Its room grows with it."""
    labels_HW = np.zeros((201, 201), np.uint8)
    for k in range(0, 100, 4):
        labels_HW[k : 201 - k, k : 201 - k] = 1
        labels_HW[k + 2 : 199 - k, k + 2 : 199 - k] = 0
        labels_HW[k + 2 : k + 4, k + 1] = 1
    found = polygons(labels_HW, excluded=(NODATA, 0), rows=5)
    assert bag(pair[:2] for pair in found) == bag(pair for pair in at_once(labels_HW) if pair[0])


def test_small_polygons_are_left_out_by_their_area():
    labels_HW = smooth(1, 300, 4, 2)
    whole = polygons(labels_HW)
    assert bag(p[:2] for p in polygons(labels_HW, min_area=30)) == bag(p[:2] for p in whole if p[2] >= 30)


def test_areas_are_sums_over_pixels():
    """Where pixels are not equally large."""
    labels_HW = np.zeros((1030, 2100), np.uint8)
    labels_HW[1000:1028, 1000:2090] = 1
    areas_RC = np.array([[1.0, 10.0, 100.0], [3.0, 30.0, 300.0]])
    (batch,) = polygonise(chunks(labels_HW, 600), Lattice(2100, areas_RC, (NODATA, 0)))
    upper, lower = 24 * (24 * 1 + 1024 * 10 + 42 * 100), 4 * (24 * 3 + 1024 * 30 + 42 * 300)
    assert batch.areas_P == [upper + lower]


def junctions(labels_HW):
    """Pixel corners where more than two boundaries meet."""
    padded_HW = np.pad(labels_HW, 1, constant_values=NODATA)
    nw, ne, sw, se = padded_HW[:-1, :-1], padded_HW[:-1, 1:], padded_HW[1:, :-1], padded_HW[1:, 1:]
    meeting = sum(a != b for a, b in ((nw, ne), (ne, se), (se, sw), (sw, nw)))
    return {(x, y) for y, x in np.argwhere(meeting > 2).tolist()}


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.3])
@pytest.mark.parametrize("scale", [0.7, 1.5, 4, 9])
@pytest.mark.parametrize("classes", [2, 5])
def test_simplified_borders_stay_shared(tolerance, scale, classes):
    """No gap, no overlap, nothing moved by more than the tolerance; junctions stay; chunks do not matter."""
    labels_HW = smooth(int(10 * scale) + classes, 60 if scale < 1 else 110, classes, scale)
    labels_HW[20:31, 40:55] = NODATA
    exact, found = polygons(labels_HW), polygons(labels_HW, tolerance=tolerance)
    shapes = np.array([shape for _, shape, _ in found])
    assert Counter((v, p) for v, _, p in found) == Counter((v, p) for v, _, p in exact)
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    before, after = (shapely.union_all([s.boundary for _, s, _ in each]) for each in (exact, found))
    assert shapely.hausdorff_distance(before, after) <= tolerance + 1e-9
    corners = set(map(tuple, shapely.get_coordinates(shapes).tolist()))
    assert junctions(labels_HW) <= corners
    other = polygons(labels_HW, tolerance=tolerance, rows=33, room=1 << 16)
    assert bag(p[:2] for p in other) == bag(p[:2] for p in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_simplified_borders_stay_shared_in_many_maps(seed):
    rng = np.random.default_rng(seed)
    labels_HW = smooth(seed, int(rng.integers(8, 160)), int(rng.integers(2, 6)), rng.choice([0.6, 1, 2, 5]))
    labels_HW[rng.random(labels_HW.shape) < rng.choice([0, 0.01, 0.1])] = 7
    for tolerance in (0.4, 0.75, 1, 1.2, 1.5, 2, 3, 5):
        shapes = np.array([s for _, s, _ in polygons(labels_HW, tolerance=tolerance)])
        assert shapely.is_valid(shapes).all()
        assert shapely.coverage_is_valid(shapes)


def test_islands_do_not_meet_when_background_between_them_is_left_out():
    """They are told apart by pixels that make no polygons."""
    labels_HW = smooth(3, 200, 2, 3)
    shapes = np.array([s for _, s, _ in polygons(labels_HW, excluded=(NODATA, 0), tolerance=2.0)])
    assert shapely.coverage_is_valid(shapes)
    assert shapely.union_all(shapes).area == pytest.approx(shapely.area(shapes).sum())


def test_simplifying_drops_the_stairs_of_a_slope():
    labels_HW = (np.arange(300)[None] > 2.7 * np.arange(100)[:, None] + 10).astype(np.uint8)
    (shape,) = [s for v, s, _ in polygons(labels_HW, tolerance=1.5) if v]
    (exact,) = [s for v, s, _ in polygons(labels_HW) if v]
    assert len(exact.exterior.coords) > 150
    assert len(shape.exterior.coords) < 20
    assert shape.area == pytest.approx(exact.area, rel=0.02)


def test_simplifying_more_leaves_fewer_points():
    labels_HW = smooth(5, 400, 3, 6)
    sizes = [
        shapely.get_num_coordinates([s for _, s, _ in polygons(labels_HW, tolerance=t)]).sum()
        for t in (0.0, 0.75, 1.5, 3.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 2


def test_numbers_of_a_batch_are_plain():
    """They go into JSON."""
    assert json.dumps(polygons(NESTED)[0][0])

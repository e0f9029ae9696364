"""``--mask``: what lies outside is nodata and never computed; what lies inside is as if there were none."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform, transform_geom

import networks
from rasters import write_raster
from refusals import refused
from tiler.cli.main import run_command, tiler
from tiler.errors import InputError
from tiler.geometry import Window
from tiler.job import prepare
from tiler.open import open_mask, open_raster
from tiler.options import RunOptions
from tiler.run import segment
from tiler.tiles import TileReader

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = "EPSG:32633"
HERE = Affine(2, 0, 500_000, 0, -2, 5_000_000)
SIDE = 600
RING = [
    (500_200.3, 4_999_700.4),
    (500_700.2, 4_999_900.7),
    (500_500.9, 4_999_300.1),
    (500_200.3, 4_999_700.4),
]
"""No pixel centre lies on its edges."""


@pytest.fixture
def scene(tmp_path):
    raw_CHW = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE), np.uint8)
    return write_raster(tmp_path / "scene.tif", raw_CHW, crs=UTM, transform=HERE, tiled=True)


@pytest.fixture
def unet(tmp_path):
    return networks.unet(tmp_path / "unet.onnx")


def geojson(path, *rings, crs="EPSG:4326", kind="Polygon"):
    """A file of polygons whose corners are given in UTM."""
    shapes = [{"type": kind, "coordinates": [ring]} for ring in rings]
    placed = transform_geom(UTM, crs, shapes, precision=-1)
    named = {} if crs == "EPSG:4326" else {"crs": {"type": "name", "properties": {"name": crs}}}
    features = [{"type": "Feature", "properties": {}, "geometry": shape} for shape in placed]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **named}))
    return path


def inside_by_hand(ring):
    """Pixels whose centres lie in a ring, by the crossing rule."""
    x, y = np.meshgrid(500_000 + 2 * (np.arange(SIDE) + 0.5), 5_000_000 - 2 * (np.arange(SIDE) + 0.5))
    inside = np.zeros((SIDE, SIDE), bool)
    for (x1, y1), (x2, y2) in itertools.pairwise(ring):
        crosses = (y1 > y) != (y2 > y)
        inside ^= crosses & (x < (x2 - x1) * (y - y1) / ((y2 - y1) or 1) + x1)
    return inside


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize("blend", ["exact", "hann"])
@pytest.mark.parametrize("crs", ["EPSG:4326", UTM])
def test_inside_as_without_a_mask_and_nodata_outside(scene, unet, tmp_path, blend, crs):
    """To the byte, for polygons in degrees and in the scene's own CRS."""
    options = {"blend": blend, "tile": 128}
    whole = segment(scene, unet, tmp_path / "whole.tif", RunOptions(**options))
    mask = geojson(tmp_path / "mask.geojson", RING, crs=crs)
    masked = segment(scene, unet, tmp_path / "masked.tif", RunOptions(mask=str(mask), **options))
    inside = inside_by_hand(RING)
    expected = np.where(inside, read(tmp_path / "whole.tif"), 255)
    np.testing.assert_array_equal(read(tmp_path / "masked.tif"), expected)
    assert masked.tiles_computed < whole.tiles_computed


def test_tiles_outside_are_never_read(scene, unet, tmp_path, monkeypatch):
    """Only those that touch the polygon."""
    mask = geojson(tmp_path / "mask.geojson", RING)
    job = prepare(scene, unet, RunOptions(mask=str(mask), tile=128))
    read_windows = []
    kind = type(job.raster)
    once = kind.read
    monkeypatch.setattr(kind, "read", lambda self, w: read_windows.append(w) or once(self, w))
    segment(scene, unet, tmp_path / "out.tif", RunOptions(mask=str(mask), tile=128))
    grid, inside = job.plan().grid, inside_by_hand(RING)
    shares = [grid.share(r, c) for r in range(grid.rows.count) for c in range(grid.columns.count)]
    assert len(read_windows) == sum(inside[share.slices].any() for share in shares)


def test_the_plan_counts_them(scene, unet, tmp_path, capsys):
    """Tiles, time and waste are of what is left."""
    mask = geojson(tmp_path / "mask.geojson", RING)
    job = prepare(scene, unet, RunOptions(mask=str(mask), tile=128))
    plan = job.plan()
    report = segment(scene, unet, tmp_path / "out.tif", RunOptions(mask=str(mask), tile=128))
    assert plan.tiles - job.skipped(plan) == report.tiles_computed
    assert run_command(tiler, ["plan", str(scene), str(unet), "--mask", str(mask), "--tile", "128"]) == 0
    assert f"skipped                {job.skipped(plan)} tiles" in capsys.readouterr().out


def test_a_plan_of_very_many_tiles_asks_some_of_them(scene, unet, tmp_path, monkeypatch, capsys):
    """A mask is read for each that is asked; the rest is like them, and it is said so."""
    mask = geojson(tmp_path / "mask.geojson", RING)
    options = RunOptions(mask=str(mask), tile=64)
    job = prepare(scene, unet, options)
    plan = job.plan()
    exact = job.skipped(plan)
    monkeypatch.setattr("tiler.job.MOST_ASKED", plan.tiles - 1)
    monkeypatch.setattr("tiler.cli.tables.MOST_ASKED", plan.tiles - 1)
    assert job.skipped(plan) == pytest.approx(exact, abs=plan.tiles / 20)
    assert run_command(tiler, ["plan", str(scene), str(unet), "--mask", str(mask), "--tile", "64"]) == 0
    assert f"skipped                about {job.skipped(plan)} tiles" in capsys.readouterr().out
    asked = []
    monkeypatch.setattr("tiler.job.MOST_ASKED", 10)
    monkeypatch.setattr(TileReader, "skips", lambda self, share: asked.append(share) or True)
    assert job.skipped(plan) == plan.tiles
    assert len(asked) == 10


def test_a_raster_mask_of_another_resolution(scene, unet, tmp_path):
    """The nearest pixel counts; 0 and nodata are outside."""
    coarse = np.zeros((1, 60, 60), np.uint8)
    coarse[0, 20:40, 10:30], coarse[0, 25, 15] = 1, 255
    transform = HERE @ Affine.scale(10)
    mask = write_raster(tmp_path / "mask.tif", coarse, crs=UTM, transform=transform, nodata=255)
    segment(scene, unet, tmp_path / "out.tif", RunOptions(mask=str(mask)))
    wanted = np.kron(coarse[0] == 1, np.ones((10, 10), bool))
    np.testing.assert_array_equal(read(tmp_path / "out.tif") != 255, wanted)


def test_other_formats(scene, tmp_path):
    """GeoPackage and FlatGeobuf by the extra ``vector``: the same pixels as GeoJSON."""
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    info = open_raster(scene).info
    window = Window(0, 0, SIDE, SIDE)
    expected = open_mask(geojson(tmp_path / "mask.geojson", RING, crs=UTM), info).read(window)
    for name, driver in (("mask.gpkg", "GPKG"), ("mask.fgb", "FlatGeobuf")):
        path = tmp_path / name
        geometry = np.array([shapely.Polygon(RING).wkb], object)
        pyogrio.raw.write(path, geometry, [], [], driver=driver, crs=UTM, geometry_type="Polygon")
        np.testing.assert_array_equal(open_mask(path, info).read(window), expected)


def test_pixels_do_not_depend_on_the_window(scene, tmp_path):
    """Edges through pixel centres."""
    ring = [(500_101, 4_999_899), (500_901, 4_999_899), (500_901, 4_999_099), (500_101, 4_999_899)]
    mask = open_mask(geojson(tmp_path / "mask.geojson", ring, crs=UTM), open_raster(scene).info)
    whole = mask.read(Window(0, 0, SIDE, SIDE))
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, left = rng.integers(0, SIDE - 1, 2)
        window = Window(
            int(top), int(left), int(rng.integers(top + 1, SIDE)), int(rng.integers(left + 1, SIDE))
        )
        np.testing.assert_array_equal(mask.read(window), whole[window.slices])


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "is GeoJSON"),
        ("[1]", "is GeoJSON"),
        ("[" * 100_000, "is GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "got nothing"),
        ('{"type": "Point", "coordinates": [1, 2]}', "got Point"),
        ('{"type": ["Polygon"], "coordinates": [[[1, 2], [2, 3], [3, 1]]]}', "got .'Polygon'"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], "x"]]}', "cannot bring"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [null, 3], [3, 1]]]}', "cannot bring"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [NaN, 3], [3, 1]]]}', "cannot bring"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [2, 3]]]}', "three points"),
        ('{"type": "Polygon", "coordinates": []}', "are empty"),
        ('{"features": [], "crs": {"properties": {"name": "EPSG:0"}}}', "is GeoJSON"),
    ],
)
def test_what_is_no_mask(scene, tmp_path, content, words, crs):
    """Whether or not it has to be brought to another CRS."""
    path = tmp_path / "polygons.geojson"
    path.write_text(content)
    info = replace(open_raster(scene).info, crs=CRS.from_string(crs))
    with pytest.raises(InputError, match=words):
        open_mask(path, info)


def test_edges_are_bent(scene, tmp_path):
    """A rectangle of two degrees has no straight edges in UTM; each pixel centre is asked where it lies."""
    big = Affine(400, 0, 400_000, 0, -400, 5_100_000)
    info = replace(open_raster(scene).info, transform=big)
    path = tmp_path / "box.geojson"
    west, south, east, north = 14.0, 44.0, 16.0, 45.0
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    found = open_mask(path, info).read(Window(0, 0, SIDE, SIDE))
    x, y = np.meshgrid(400_000 + 400 * (np.arange(SIDE) + 0.5), 5_100_000 - 400 * (np.arange(SIDE) + 0.5))
    lon, lat = transform(UTM, "EPSG:4326", x.ravel(), y.ravel())
    inside = (
        (west < np.array(lon)) & (np.array(lon) < east) & (south < np.array(lat)) & (np.array(lat) < north)
    )
    np.testing.assert_array_equal(found, inside.reshape(SIDE, SIDE))


def test_a_mask_of_255(scene, tmp_path):
    """The commonest "yes" there is."""
    values = np.zeros((1, SIDE, SIDE), np.uint8)
    values[0, :50] = 255
    path = write_raster(tmp_path / "mask.tif", values, crs=UTM, transform=HERE)
    assert open_mask(path, open_raster(scene).info).read(Window(0, 0, SIDE, SIDE)).sum() == 50 * SIDE


def test_a_mask_beside_the_raster_is_noted(scene, unet, tmp_path):
    """All nodata, and it says why."""
    mask = geojson(tmp_path / "mask.geojson", [(x + 99_000, y) for x, y in RING])
    events = []
    report = segment(scene, unet, tmp_path / "out.tif", RunOptions(mask=mask), events.append)
    assert report.valid_pixels == 0
    assert any("leaves nothing" in getattr(event, "message", "") for event in events)


def test_damage_outside_a_mask_is_nobody_s(unet, tmp_path):
    """Not of the seam report, nor of the source's grid."""
    rng = np.random.default_rng(0)
    path = tmp_path / "scene.tif"
    raw_CHW = rng.integers(0, 255, (3, SIDE, SIDE), np.uint8)
    write_raster(
        path, raw_CHW, crs=UTM, transform=HERE, tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_9_9", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 500] = bytes(500)
    path.write_bytes(content)
    ring = [(500_010, 4_999_990), (500_400, 4_999_990), (500_400, 4_999_600), (500_010, 4_999_990)]
    mask = geojson(tmp_path / "mask.geojson", ring)
    options = RunOptions(mask=str(mask), tile=128, check_seams=True, grid="source")
    assert segment(path, unet, tmp_path / "out.tif", options).damaged == ()


def test_refusals(scene, unet, tmp_path, capsys):
    """One line each."""
    info = open_raster(scene).info
    with pytest.raises(InputError, match="no such mask"):
        open_mask(tmp_path / "none.geojson", info)
    plain = write_raster(tmp_path / "plain.png.tif", np.zeros((3, 64, 64), np.uint8))
    mask = geojson(tmp_path / "mask.geojson", RING)
    with pytest.raises(InputError, match="georeferenced"):
        open_mask(mask, open_raster(plain).info)
    arguments = ["segment", scene, unet, tmp_path / "o.tif", "--mask", tmp_path / "none.gpkg"]
    refused(capsys, tiler, arguments, "no such mask")


def test_another_mask_is_another_result(scene, unet, tmp_path, capsys):
    """A finished output is not taken for that of a changed mask."""
    mask = geojson(tmp_path / "mask.geojson", RING)
    out = tmp_path / "out.tif"
    segment(scene, unet, out, RunOptions(mask=str(mask)))
    geojson(mask, [(x + 50, y) for x, y in RING])
    refused(capsys, tiler, ["segment", scene, unet, out, "--mask", mask], "mask", "--overwrite")


def test_blocks_that_were_never_written_are_not_read(unet, tmp_path, monkeypatch):
    """A sparse file with declared nodata; the same map as of one that is written in full."""
    sparse, full = tmp_path / "sparse.tif", tmp_path / "full.tif"
    raw_CHW = np.zeros((3, SIDE, SIDE), np.uint8)
    raw_CHW[:, 300:340, 100:220] = np.random.default_rng(0).integers(1, 255, (3, 40, 120), np.uint8)
    profile = {"nodata": 0, "tiled": True, "blockxsize": 64, "blockysize": 64}
    write_raster(full, raw_CHW, **profile)
    shape = {"count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8", "sparse_ok": True}
    with rasterio.open(sparse, "w", driver="GTiff", **shape, **profile) as dataset:
        window = rasterio.windows.Window(64, 256, 192, 128)
        dataset.write(raw_CHW[:, 256:384, 64:256], window=window)
    kind = type(open_raster(sparse))
    once, count = kind.read, []
    monkeypatch.setattr(kind, "read", lambda self, w: count.append(self.info.name) or once(self, w))
    for path in (sparse, full):
        segment(path, unet, tmp_path / f"{path.stem}.out.tif", RunOptions(tile=128))
    assert count.count(str(sparse)) < count.count(str(full)) / 2
    np.testing.assert_array_equal(read(tmp_path / "sparse.out.tif"), read(tmp_path / "full.out.tif"))


def test_unwritten_blocks_without_nodata_are_pixels(tmp_path):
    """They are zeros, and zeros are valid."""
    path = tmp_path / "sparse.tif"
    shape = {"count": 1, "height": 128, "width": 128, "dtype": "uint8", "sparse_ok": True, "tiled": True}
    with rasterio.open(path, "w", driver="GTiff", **shape) as dataset:
        dataset.update_tags(a="b")
    window = Window(0, 0, 64, 64)
    assert not open_raster(path).empty(window)
    # Nor is nodata that the user names, which the file does not know.
    assert not open_raster(path, nodata=3).empty(window)

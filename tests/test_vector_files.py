"""Polygons from file to file: what is written, where it lies, and what happens when it cannot be."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from onnx import helper

import networks
import slides
from rasters import write_raster
from refusals import refused
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.errors import UsageError
from tiler.events import Noted, Polygonising
from tiler.lock import RunLock
from tiler.options import RunOptions
from tiler.run import segment
from tiler.vector.options import FORMATS, SUFFIXES

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
HERE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
"""On the central meridian of its zone, 15 degrees east."""
UTM = {"crs": "EPSG:32633", "transform": HERE}
HEIGHT, WIDTH = 700, 1100
SQUARES = [(0, 0, 40), (100, 200, 96), (500, 1000, 100), (600, 30, 7)]
"""Top, left and side, in pixels."""


@pytest.fixture
def net(tmp_path) -> Path:
    """A network that finds what is bright."""
    weights = {
        "w": np.array([[0.0], [1.0]], np.float32).reshape(2, 1, 1, 1),
        "b": np.array([0.5, 0], np.float32),
    }
    model_spec = networks.spec(1, ("ground", "roof"))
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    return networks.save(tmp_path / "net.onnx", nodes, weights, 1, model_spec=model_spec)


def make_scene(path, **profile) -> Path:
    raw_HW = np.full((HEIGHT, WIDTH), 10, np.uint8)
    for top, left, side in SQUARES:
        raw_HW[top : top + side, left : left + side] = 250
    # A roof with a hole in it.
    raw_HW[520:540, 1020:1040] = 20
    return write_raster(path, raw_HW[None], tiled=True, **profile)


@pytest.fixture
def scene(tmp_path) -> Path:
    return make_scene(tmp_path / "scene.tif", **UTM)


def latitude(metres) -> float:
    """How far north one gets along a meridian of WGS 84, in degrees: by adding up its pieces."""
    at = np.radians(np.linspace(0, 90, 1_000_001))
    steps = 6378137 * (1 - 0.00669437999014) / (1 - 0.00669437999014 * np.sin(at) ** 2) ** 1.5
    way = np.cumsum((steps[1:] + steps[:-1]) / 2 * np.diff(at))
    return float(np.degrees(np.interp(metres, way, at[1:])))


def read(path, kind):
    """(class, value, area, shape) of each feature; GeoJSON and Parquet without GDAL."""
    if kind in {"geojson", "qupath"}:
        found = json.loads(path.read_text())
        assert found["type"] == "FeatureCollection"
        shapes = [shapely.from_geojson(json.dumps(f["geometry"])) for f in found["features"]]
        facts = [f["properties"] for f in found["features"]]
        if kind == "qupath":
            return [
                (f["classification"]["name"], None, *f["measurements"].values(), s)
                for f, s in zip(facts, shapes, strict=True)
            ]
        columns = [[f[name] for f in facts] for name in facts[0]]
    elif kind == "parquet":
        table = pq.read_table(path)
        *columns, wkb = (column.to_pylist() for column in table.columns)
        shapes = shapely.from_wkb(wkb)
    else:
        _, _, wkb, columns = pyogrio.raw.read(path)
        shapes = shapely.from_wkb(wkb)
    return list(zip(*(np.asarray(column).tolist() for column in columns), shapes, strict=True))


def roofs():
    """The squares as polygons in pixels."""
    hole = shapely.box(1020, 520, 1040, 540)
    return [shapely.box(x, y, x + side, y + side).difference(hole) for y, x, side in SQUARES]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_pattern_comes_back_where_it_was(scene, net, tmp_path, kind):
    """With class, number and area; the CRS is kept, but in GeoJSON, which is in degrees."""
    report = segment(scene, net, tmp_path / "out.tif", RunOptions(vector=kind))
    path = tmp_path / f"out{SUFFIXES[kind]}"
    found = read(path, kind)
    assert report.polygons[kind]["polygons"] == len(found) == 4
    assert {f[0] for f in found} == {"roof"}
    assert {f[1] for f in found} <= {1, None}
    assert sum(f[2] for f in found) == pytest.approx(report.classes[1].area_m2, rel=1e-6)
    shapes = [f[-1] for f in found]
    assert all(s.is_valid for s in shapes)
    if kind == "qupath":
        assert all(any(s.equals(roof) for roof in roofs()) for s in shapes)
    elif kind == "geojson":
        corner = max(shapely.get_coordinates(shapes), key=lambda p: p[1])
        assert corner == pytest.approx([15.0, latitude(5_000_000 / 0.9996)], abs=1e-8)
        assert all(shapely.is_ccw(s.exterior) for s in shapes)
    else:
        placed = [
            shapely.transform(roof, lambda p: p * [0.5, -0.5] + [500_000, 5_000_000]) for roof in roofs()
        ]
        assert all(any(s.equals(roof) for roof in placed) for s in shapes)
        crs = (
            json.loads(pq.read_metadata(path).metadata[b"geo"])["columns"]["geometry"]["crs"]["id"]
            if (kind == "parquet")
            else pyogrio.read_info(path)["crs"]
        )
        assert crs in ("EPSG:32633", {"authority": "EPSG", "code": 32633})


def test_what_geoparquet_says_of_itself(scene, net, tmp_path):
    segment(scene, net, tmp_path / "out.tif", RunOptions(vector="parquet"))
    geo = json.loads(pq.read_metadata(tmp_path / "out.parquet").metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["bbox"] == [500_000, 4_999_696.5, 500_550, 5_000_000]
    assert column["crs"]["type"] == "ProjectedCRS"


def test_a_scene_in_degrees_is_exact_in_geojson(net, tmp_path):
    step = 1 / 65536
    here = Affine(step, 0, 10, 0, -step, 50)
    scene = make_scene(tmp_path / "scene.tif", crs="EPSG:4326", transform=here)
    segment(scene, net, tmp_path / "out.tif", RunOptions(vector="geojson"))
    found = {s.bounds for *_, s in read(tmp_path / "out.geojson", "geojson")}
    expected = {
        tuple(round(v, 9) for v in (10 + x * step, 50 - (y + n) * step, 10 + (x + n) * step, 50 - y * step))
        for y, x, n in SQUARES
    }
    assert found == expected


def test_long_edges_are_bent_when_they_become_degrees(tmp_path):
    """Straight in their own CRS, they would be off by rows at their middle."""
    path = write_raster(
        tmp_path / "l.tif",
        np.ones((1, 8, 20_000), np.uint8),
        crs="EPSG:32633",
        transform=Affine(10, 0, 200_000, 0, -10, 6_000_000),
    )
    assert run_command(command, ["polygons", str(path), str(tmp_path / "o.geojson")]) == 0
    ((*_, shape),) = read(tmp_path / "o.geojson", "geojson")
    assert len(shape.exterior.coords) > 2 * 20_000 / 256
    pieces = shapely.get_coordinates(shape)
    _, ys = rasterio.warp.transform("EPSG:4326", "EPSG:32633", *((pieces[:-1] + pieces[1:]) / 2).T)
    away = np.minimum(abs(np.array(ys) - 6_000_000), abs(np.array(ys) - 5_999_920))
    assert away[np.abs(np.diff(pieces[:, 0])) > 1e-3].max() < 1


def test_where_a_crs_does_not_lead_to_the_ground_areas_are_in_pixels_and_it_is_said(net, tmp_path, capsys):
    """Whoever asked for square metres would not see it in the file."""
    place = {"crs": 'LOCAL_CS["of the excavation",UNIT["metre",1]]', "transform": HERE}
    scene, out = make_scene(tmp_path / "scene.tif", **place), tmp_path / "out.tif"
    events = []
    segment(scene, net, out, RunOptions(vector="gpkg", min_area=50), events.append)
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert any(note.startswith("areas, and --min-area 50, are in pixels") for note in notes)
    assert pyogrio.read_info(tmp_path / "out.gpkg")["fields"].tolist()[-1] == "area_px"
    arguments = ["polygons", str(out), str(tmp_path / "again.fgb"), "--min-area", "50"]
    assert run_command(command, arguments) == 0
    assert "areas, and --min-area 50, are in pixels" in capsys.readouterr().err
    assert run_command(command, [*arguments[:2], str(tmp_path / "more.fgb")]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("grid", ["model", "source"])
def test_qupath_is_in_pixels_of_the_image_also_of_a_resampled_scene(scene, net, tmp_path, grid):
    """By `tiler polygons` as by --vector: the map says the size of its image."""
    options = RunOptions(vector="qupath", resolution=1.0, grid=grid)
    segment(scene, net, tmp_path / "out.tif", options)
    assert (
        run_command(command, ["polygons", str(tmp_path / "out.tif"), str(tmp_path / "b.qupath.geojson")]) == 0
    )
    made, again = (tmp_path / f"{name}.qupath.geojson" for name in ("out", "b"))
    assert made.read_bytes() == again.read_bytes()
    bounds = [
        shapely.from_geojson(json.dumps(f["geometry"])).bounds
        for f in json.loads(made.read_text())["features"]
    ]
    assert max(b[2] for b in bounds) > WIDTH - 4


def test_what_a_killed_command_left_goes_with_the_next(noisy, tmp_path):
    """But not what another one is at."""
    target, labels = tmp_path / "a.gpkg", str(noisy / "out.tif")
    started = [sys.executable, "-c", KILLED, labels, str(target)]
    assert subprocess.run(started, check=False).returncode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) >= 2
    busy = RunLock(tmp_path / "a.gpkg.0123.partial.gpkg.lock")
    assert busy.acquire()
    (tmp_path / "a.gpkg.0123.partial.gpkg").write_text("in the making")
    (tmp_path / "a.gpkg.partial.txt").write_text("mine")
    assert run_command(command, ["polygons", labels, str(target)]) == 0
    busy.release()
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "a.gpkg",
        "a.gpkg.0123.partial.gpkg",
        "a.gpkg.0123.partial.gpkg.lock",
        "a.gpkg.partial.txt",
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from tiler.vector import command
from tiler.vector.options import PolygonOptions

def stopped(*_):
    os.kill(os.getpid(), signal.SIGKILL)

command.sync_file = stopped
command.polygons_of_file(Path(sys.argv[1]), Path(sys.argv[2]), PolygonOptions("gpkg"))
"""
"""The command, killed when all is written and nothing has its name."""


def test_a_raster_without_a_place_is_in_pixels(net, tmp_path):
    """And so are its areas, and the smallest one."""
    scene = make_scene(tmp_path / "scene.tif")
    segment(scene, net, tmp_path / "out.tif", RunOptions(vector="gpkg", min_area=50))
    found = read(tmp_path / "out.gpkg", "gpkg")
    assert sorted(f[2] for f in found) == [1600, 9216, 9600]
    assert pyogrio.read_info(tmp_path / "out.gpkg")["fields"].tolist() == ["class", "value", "area_px"]
    assert all(any(f[-1].equals(roof) for roof in roofs()) for f in found)


def test_background_and_smallest_area_in_square_metres(scene, net, tmp_path):
    options = RunOptions(vector="fgb", background=True, min_area=300)
    report = segment(scene, net, tmp_path / "out.tif", options)
    found = read(tmp_path / "out.fgb", "fgb")
    assert sorted(f[0] for f in found) == ["ground", "roof", "roof", "roof"]
    # The hole of a roof is too small to be a polygon of its own; it stays a hole.
    ground = next(f for f in found if f[0] == "ground")
    assert ground[2] == pytest.approx(report.classes[0].area_m2 - 400 * 0.25 / 0.9996**2, rel=1e-6)


def test_a_slide_in_level_0_pixels_and_square_micrometres(tmp_path):
    """Fed at 1 um, the slide has 0.5."""
    squares = [(320, 480, 160), (640, 64, 96)]
    slide = slides.aperio(tmp_path / "s.svs", slides.pyramid(slides.patterned(1000, 1200, squares)))
    weights = {
        "w": np.array([[0, 0, 0], [0, -1, 0]], np.float32).reshape(2, 3, 1, 1),
        "b": np.array([0, 0.5], np.float32),
    }
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    spec = networks.spec(3, ("glass", "ink"))
    net = networks.save(tmp_path / "ink.onnx", nodes, weights, 3, model_spec=spec)
    options = RunOptions(vector="qupath", mpp=1.0, tissue="off", min_area=1000)
    report = segment(slide, net, tmp_path / "out.tif", options)
    found = json.loads((tmp_path / "out.qupath.geojson").read_text())["features"]
    assert found[0]["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "ink", "color": [230, 57, 57]},
        "isLocked": False,
        "measurements": {"Area µm^2": 6400.0},
    }
    bounds = sorted(shapely.from_geojson(json.dumps(f["geometry"])).bounds for f in found)
    assert bounds == [(64, 640, 160, 736), (480, 320, 640, 480)]
    assert report.classes[1].area_um2 == pytest.approx(6400 + 2304)
    assert not (tmp_path / "out.qml").exists()
    arguments = ["polygons", tmp_path / "out.tif", tmp_path / "again.qupath.geojson", "--min-area", "1000"]
    assert run_command(command, [*map(str, arguments)]) == 0
    made, again = (tmp_path / f"{name}.qupath.geojson" for name in ("out", "again"))
    assert made.read_bytes() == again.read_bytes()


def test_polygons_of_a_map_on_the_grid_of_a_slide(tmp_path):
    """A level of 600 x 450 px whose slide has a pixel more, which does not stretch the others."""
    levels = slides.pyramid(slides.patterned(901, 1201, [(320, 480, 160)]), (1, 2))
    slide = slides.aperio(tmp_path / "s.svs", levels)
    weights = {"w": -np.ones((2, 3, 1, 1), np.float32) * [[[[0]]], [[[1]]]], "b": np.array([0, 1.5])}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    net = networks.save(tmp_path / "n.onnx", nodes, weights, 3, model_spec=networks.spec(3, ("glass", "ink")))
    segment(slide, net, tmp_path / "o.tif", RunOptions(vector="qupath", level=1, grid="source"))
    again = tmp_path / "again.qupath.geojson"
    assert run_command(command, ["polygons", str(tmp_path / "o.tif"), str(again)]) == 0
    (found,) = json.loads(again.read_text())["features"]
    assert shapely.from_geojson(json.dumps(found["geometry"])).bounds == (480, 320, 640, 480)
    assert again.read_bytes() == (tmp_path / "o.qupath.geojson").read_bytes()


def test_classes_that_do_not_exclude_each_other(tmp_path):
    """A plane of each; its zeros are nothing, also with --background."""
    scene = write_raster(tmp_path / "scene.tif", np.full((1, 90, 90), 200, np.uint8), **UTM)
    weights = {
        "w": np.zeros((3, 1, 1, 1), np.float32),
        "b": np.array([1, -1, 2], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["y"]),
    ]
    spec = networks.spec(1, ("tree", "roof", "road"), activation="sigmoid")
    net = networks.save(tmp_path / "net.onnx", nodes, weights, 1, 3, model_spec=spec)
    segment(scene, net, tmp_path / "out.tif", RunOptions(vector="geojson", background=True))
    assert [f[:2] for f in read(tmp_path / "out.geojson", "geojson")] == [("tree", 0), ("road", 2)]
    assert not (tmp_path / "out.qml").exists()


def test_equal_runs_make_equal_files(scene, net, tmp_path):
    """Also GeoPackage, which notes a date."""
    for kind in FORMATS:
        contents = set()
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            segment(scene, net, tmp_path / name / "out.tif", RunOptions(vector=kind, overwrite=True))
            contents.add((tmp_path / name / f"out{SUFFIXES[kind]}").read_bytes())
        assert len(contents) == 1, kind


def test_polygons_of_finished_labels_are_made_without_the_network(scene, net, tmp_path):
    """In one format after the other; what is there is left alone."""
    output = tmp_path / "out.tif"
    segment(scene, net, output)
    before = output.stat().st_mtime_ns
    net_calls = []
    for kind in ("gpkg", "geojson", "gpkg"):
        report = segment(scene, net, output, RunOptions(vector=kind), net_calls.append)
    assert set(report.polygons) == {"gpkg", "geojson"}
    assert [type(e) for e in net_calls].count(Polygonising) == 2
    assert output.stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.run"))
    fresh = tmp_path / "fresh.tif"
    segment(scene, net, fresh, RunOptions(vector="geojson"))
    assert (tmp_path / "out.geojson").read_bytes() == (tmp_path / "fresh.geojson").read_bytes()
    (tmp_path / "out.gpkg").unlink()
    segment(scene, net, output, RunOptions(vector="gpkg", simplify=1.0))
    assert (tmp_path / "out.gpkg").exists()


def test_the_last_shard_makes_the_polygons(scene, net, tmp_path):
    """And a shard that comes when all is there adds those of another format."""
    for number in (1, 2):
        segment(scene, net, tmp_path / "out.tif", RunOptions(vector="fgb", shard=(number, 2)))
        assert (tmp_path / "out.fgb").exists() == (number == 2)
    segment(scene, net, tmp_path / "out.tif", RunOptions(vector="parquet", shard=(1, 2)))
    assert len(read(tmp_path / "out.parquet", "parquet")) == len(read(tmp_path / "out.fgb", "fgb")) == 4


def test_polygons_of_other_options_are_not_replaced(scene, net, tmp_path):
    segment(scene, net, tmp_path / "out.tif", RunOptions(vector="gpkg"))
    with pytest.raises(UsageError, match=r"another .*simplify: 0\.0 then, 1\.0 now\); remove it"):
        segment(scene, net, tmp_path / "out.tif", RunOptions(vector="gpkg", simplify=1.0))
    (tmp_path / "out.fgb").write_text("precious")
    with pytest.raises(UsageError, match=r"out\.fgb exists; remove it"):
        segment(scene, net, tmp_path / "out.tif", RunOptions(vector="fgb"))
    assert (tmp_path / "out.fgb").read_text() == "precious"


def test_polygons_of_an_output_that_is_replaced_go_with_it(scene, net, tmp_path):
    """Else those of one network would lie beside the map of another."""
    output, kept = tmp_path / "out.tif", RunOptions(vector="gpkg", output="both", overwrite=True)
    segment(scene, net, output, kept)
    (tmp_path / "mine.fgb").write_text("precious")
    same = segment(scene, net, output, RunOptions(vector="fgb", output="both", overwrite=True))
    assert set(same.polygons) == {"gpkg", "fgb"}
    notes = []
    segment(scene, net, output, RunOptions(vector="fgb", blend="hann", overwrite=True), notes.append)
    (said,) = [n.message for n in notes if type(n) is Noted and n.message.startswith("removed")]
    assert "out.gpkg" in said
    assert "out.probabilities.tif" in said
    left = {path.name for path in tmp_path.iterdir() if path.suffix in {".gpkg", ".fgb", ".tif"}}
    assert not {"out.gpkg", "out.probabilities.tif"} & left
    assert {"out.fgb", "mine.fgb", "out.tif"} <= left


def test_the_qgis_style_names_and_colours_the_classes(scene, net, tmp_path):
    segment(scene, net, tmp_path / "out.tif")
    qgis = ET.parse(tmp_path / "out.qml").getroot()  # noqa: S314 - ours
    entries = [(e.get("value"), e.get("label"), e.get("color")) for e in qgis.iter("paletteEntry")]
    assert entries == [("0", "ground", "#000000"), ("1", "roof", "#e63939")]
    renderer = qgis.find("renderer-v2")
    assert renderer.get("attr") == "value"
    assert [c.get("label") for c in renderer.iter("category")] == ["ground", "roof"]
    assert qgis.findtext("layerGeometryType") == "2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vector": "shp"}, "vector is one of gpkg, fgb, parquet, geojson, qupath, got 'shp'"),
        ({"min_area": 5.0}, "--vector"),
        ({"vector": "gpkg", "min_area": -1.0}, "at least 0, got -1"),
        ({"vector": "gpkg", "simplify": 17.0}, "0 to 16 pixels, got 17"),
        ({"vector": "gpkg", "simplify": float("nan")}, "got nan"),
        ({"vector": "gpkg", "output": "probabilities"}, "got --output probabilities"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(UsageError, match=words):
        RunOptions(**options)


def test_a_missing_library_is_said_before_anything_is_computed(scene, net, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    arguments = ["segment", scene, net, tmp_path / "out.tif", "--vector", "gpkg", "--quiet"]
    refused(capsys, command, arguments, "polygons need pyarrow", "'gigatiler[vector]'", code=3)
    assert not list(tmp_path.glob("out*"))


# The command of its own.


def test_any_label_raster(tmp_path, capsys):
    """More than a byte, nodata of its own, names by hand."""
    labels_HW = np.array([[0, 311, 311], [0, 9999, 2], [7, 7, 2]], np.uint16)
    path = write_raster(tmp_path / "l.tif", labels_HW[None], nodata=9999, **UTM)
    names = ["--classes", "sea,land,ice"]
    assert run_command(command, ["polygons", str(path), str(tmp_path / "o.parquet"), *names]) == 0
    assert "3 of" in capsys.readouterr().out
    found = read(tmp_path / "o.parquet", "parquet")
    assert Counter(f[:2] for f in found) == Counter([("311", 311), ("ice", 2), ("7", 7)])


def test_a_picture_of_labels_with_a_colour_table(tmp_path):
    path = tmp_path / "l.png"
    with rasterio.open(path, "w", driver="PNG", width=4, height=2, count=1, dtype="uint8") as dataset:
        dataset.write(np.array([[[0, 1, 1, 2], [0, 1, 2, 2]]], np.uint8))
        dataset.write_colormap(1, {0: (0, 0, 0), 1: (1, 2, 3), 2: (4, 5, 6)})
    assert run_command(command, ["polygons", str(path), str(tmp_path / "o.qupath.geojson")]) == 0
    facts = [f["properties"] for f in json.loads((tmp_path / "o.qupath.geojson").read_text())["features"]]
    assert [f["classification"] for f in facts] == [
        {"name": "1", "color": [1, 2, 3]},
        {"name": "2", "color": [4, 5, 6]},
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_raster_without_polygons_makes_a_file_without_any(tmp_path, kind):
    path = write_raster(tmp_path / "l.tif", np.zeros((1, 30, 40), np.uint8), **UTM)
    target = tmp_path / f"o{SUFFIXES[kind]}"
    assert run_command(command, ["polygons", str(path), str(target)]) == 0
    if kind in {"geojson", "qupath"}:
        assert json.loads(target.read_text())["features"] == []
    elif kind == "parquet":
        assert pq.read_table(target).num_rows == 0
    else:
        assert pyogrio.read_info(target, force_feature_count=True)["features"] == 0


@pytest.mark.parametrize("nodata", [None, 0, 7, 255])
def test_a_mask_of_zeros_and_255(tmp_path, nodata):
    """As other programs write them: 255 is a class unless the file says otherwise."""
    labels_HW = np.zeros((1, 60, 50), np.uint8)
    labels_HW[:, 10:20, 10:30], labels_HW[:, 40:50, :9] = 255, 254
    path = write_raster(tmp_path / "mask.tif", labels_HW, nodata=nodata, **UTM)
    target = tmp_path / "mask.geojson"
    assert run_command(command, ["polygons", str(path), str(target)]) == 0
    found = sorted(value for _, value, *_ in read(target, "geojson"))
    assert found == ([254] if nodata == 255 else [254, 255])


@pytest.mark.parametrize("name", ["b\udcff", "b\n", "\0"])
def test_a_name_that_is_no_text(scene, net, tmp_path, capsys, name):
    """Neither XML nor UTF-8 can hold it."""
    segment(scene, net, tmp_path / "out.tif")
    arguments = [tmp_path / "out.tif", tmp_path / "a.geojson", "--classes", f"a,c{name}c"]
    refused(capsys, command, ["polygons", *arguments], "a class's name is printable text")


def test_what_the_command_refuses(scene, net, tmp_path, capsys):
    segment(scene, net, tmp_path / "out.tif", RunOptions(output="both"))
    labels, shares = tmp_path / "out.tif", tmp_path / "out.probabilities.tif"
    (tmp_path / "there.gpkg").write_text("precious")
    (tmp_path / "out.geojson").mkdir()
    for source, target, *words in (
        (labels, tmp_path / "a.shp", "polygons go to .gpkg", "a.shp"),
        (labels, tmp_path / "there.gpkg", "exists; pass --overwrite"),
        (labels, tmp_path / "none" / "a.gpkg", "create it first"),
        (labels, tmp_path / "a\nb.gpkg", "printable"),
        (labels, tmp_path / ("a" * 210 + ".gpkg"), "at most 200 bytes"),
        (labels, labels.with_suffix(".geojson"), "got a directory"),
        (shares, tmp_path / "a.gpkg", "holds probabilities"),
        (scene.parent / "none.tif", tmp_path / "a.gpkg", "no such file"),
        (net, tmp_path / "a.gpkg", "cannot open"),
        (write_raster(tmp_path / "rgb.tif", np.ones((3, 9, 9), np.uint8)), tmp_path / "a.fgb", "got 3"),
        (write_raster(tmp_path / "f.tif", np.ones((1, 9, 9), np.float32)), tmp_path / "a.fgb", "float32"),
    ):
        refused(capsys, command, ["polygons", source, target], *words)
    assert (tmp_path / "there.gpkg").read_text() == "precious"
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_label_file_is_damage_and_leaves_nothing(tmp_path, capsys, kind):
    """Not fewer polygons. Also where GDAL asks for the features and our error comes from inside."""
    rng = np.random.default_rng(0)
    path = write_raster(
        tmp_path / "l.tif", rng.integers(0, 3, (1, 700, 600), np.uint8), tiled=True, compress="deflate", **UTM
    )
    content = bytearray(path.read_bytes())
    content[-3000:-2000] = bytes(1000)
    path.write_bytes(content)
    target = tmp_path / f"o{SUFFIXES[kind]}"
    refused(capsys, command, ["polygons", path, target], "l.tif", code=1)
    assert [p.name for p in tmp_path.iterdir()] == ["l.tif"]


# Real processes.


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    """A scene of noise: many polygons."""
    folder = tmp_path_factory.mktemp("noisy")
    raw_CHW = np.random.default_rng(0).integers(0, 255, (3, 600, 800), np.uint8)
    write_raster(folder / "scene.tif", raw_CHW, tiled=True, **UTM)
    networks.pixelwise(folder / "net.onnx", channels=3)
    for kind in FORMATS:
        assert here(folder, kind) == 0
    return folder


def arguments_of(folder, kind):
    files = [str(folder / name) for name in ("scene.tif", "net.onnx", "out.tif")]
    return ["segment", *files, *([] if kind is None else ["--vector", kind])]


def here(folder, kind) -> int:
    """The command in this process."""
    return run_command(command, [*arguments_of(folder, kind), "--quiet"])


def stopped(folder, kind, number) -> subprocess.CompletedProcess[str]:
    """The command in a process that gets a signal as soon as it begins with the polygons."""
    arguments = [sys.executable, "-m", "tiler", *arguments_of(folder, kind), "--log", "json"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if json.loads(line)["event"] == "Polygonising":
                process.send_signal(number)
                break
        _, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, "", err)


@pytest.fixture
def place(noisy, tmp_path) -> Path:
    """The scene and the network, without a result."""
    for name in ("scene.tif", "net.onnx"):
        os.link(noisy / name, tmp_path / name)
    return tmp_path


SLOW = pytest.mark.slow
STOPS = [("gpkg", signal.SIGKILL), ("gpkg", signal.SIGINT), ("geojson", signal.SIGTERM)]
STOPS += [pytest.param(kind, signal.SIGINT, marks=SLOW) for kind in ("fgb", "parquet", "qupath")]
STOPS += [pytest.param(kind, signal.SIGKILL, marks=SLOW) for kind in ("fgb", "parquet", "qupath")]


@pytest.mark.parametrize(("kind", "number"), STOPS)
def test_stopped_while_polygons_are_made(noisy, place, kind, number):
    """Nothing is at the outputs' names; the same command makes the same files, and computes nothing."""
    done = stopped(place, kind, number)
    assert done.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 4), done.stderr
    assert not list(place.glob("out.*[!n]"))
    assert here(place, kind) == 0
    for suffix in (".tif", SUFFIXES[kind]):
        assert (place / f"out{suffix}").read_bytes() == (noisy / f"out{suffix}").read_bytes()
    assert json.loads((place / "out.report.json").read_text())["blocks_computed"] == 0
    assert not list(place.glob("*.run*"))


@pytest.mark.parametrize(
    "kind", ["fgb", pytest.param("gpkg", marks=SLOW), pytest.param("parquet", marks=SLOW)]
)
def test_killed_while_polygons_are_added(noisy, place, kind):
    """The labels that were there stay; the same command adds them."""
    name = f"out{SUFFIXES[kind]}"
    assert here(place, None) == 0
    assert stopped(place, kind, signal.SIGKILL).returncode == -signal.SIGKILL
    assert (place / "out.tif").read_bytes() == (noisy / "out.tif").read_bytes()
    assert not (place / name).exists()
    assert here(place, kind) == 0
    assert (place / name).read_bytes() == (noisy / name).read_bytes()
    assert not list(place.glob("*.run*"))


@pytest.mark.parametrize("number", range(3))
def test_stopped_between_two_renames(noisy, place, number, monkeypatch):
    """Of report, options and polygons; the same command puts the rest right."""
    assert here(place, None) == 0
    real, calls = Path.replace, []

    def replace_some(self, target):
        if self.name.startswith("finished-"):
            calls.append(target)
            if len(calls) > number:
                raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_some)
        assert here(place, "parquet") == 4
    assert (place / "out.tif").exists()
    assert not (place / "out.parquet").exists()
    assert here(place, "parquet") == 0
    assert (place / "out.parquet").read_bytes() == (noisy / "out.parquet").read_bytes()
    assert not list(place.glob("*.run*"))


@pytest.mark.parametrize(
    "kind", ["gpkg", "fgb", *(pytest.param(k, marks=SLOW) for k in ("parquet", "geojson"))]
)
def test_a_full_disk(noisy, place, kind):
    """Found and said, not a file of fewer polygons; with room again it goes on."""
    name = f"out{SUFFIXES[kind]}"
    room = (noisy / name).stat().st_size * 3 // 4
    assert room > (noisy / "out.tif").stat().st_size

    def restrict():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    arguments = [sys.executable, "-m", "tiler", *arguments_of(place, kind), "--quiet"]
    done = subprocess.run(arguments, preexec_fn=restrict, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert name in done.stderr.splitlines()[-1]
    assert "rollback" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(place.glob("out.*[!n]"))
    assert here(place, kind) == 0
    assert (place / name).read_bytes() == (noisy / name).read_bytes()


def test_what_sqlite_says_of_a_full_disk_is_said_in_words(noisy, tmp_path, monkeypatch, capsys):
    """It has undone all by itself, and of GDAL's own rollback only that there is nothing to undo is heard."""

    def full(*_, **__):
        raise RuntimeError("sqlite3_exec(ROLLBACK) failed: cannot rollback - no transaction is active")

    monkeypatch.setattr(pyogrio, "write_arrow", full)
    arguments = ["polygons", noisy / "out.tif", tmp_path / "a.gpkg"]
    refused(capsys, command, arguments, "a.gpkg: SQLite undid it, as where the disk is full", code=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["[x] 1.tif", "(copy).tif", "-5.tif", "gpkg.tif", "sqlite_a.tif", "é.tif", "7.tif"]
)
def test_a_geopackage_of_any_name(scene, net, tmp_path, name):
    """GDAL refuses some names of layers, when everything has been computed."""
    segment(scene, net, tmp_path / name, RunOptions(vector="gpkg"))
    assert len(read((tmp_path / name).with_suffix(".gpkg"), "gpkg")) == 4


@pytest.mark.parametrize("name", ["a!b", "a;b"])
def test_a_path_that_would_lead_to_another_file(scene, net, tmp_path, monkeypatch, capsys, name):
    """Pyogrio takes ! for a place in an archive, and cuts ; off."""
    monkeypatch.chdir(tmp_path)
    Path("b.gpkg").write_text("precious")
    with pytest.raises(UsageError, match=r"has no ! or ; in it, got"):
        segment(scene, net, f"{name}.tif", RunOptions(vector="gpkg"))
    segment(scene, net, f"{name}.tif", RunOptions(vector="parquet"))
    refused(capsys, command, ["polygons", f"{name}.tif", f"{name}.fgb"], "has no !")
    Path(f"{name}.gpkg").write_text("")
    refused(capsys, command, ["segment", str(scene), str(net), "o.tif", "--mask", f"{name}.gpkg"], "has no !")
    assert Path("b.gpkg").read_text() == "precious"
    assert {p.name for p in tmp_path.glob("a*")} >= {f"{name}.tif", f"{name}.parquet"}

"""Slides: what OpenSlide reads is what the network is fed, and what it finds lies where it was found."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import openslide
import pytest
import rasterio
from affine import Affine
from onnx import helper

import networks
import slides
from conftest import DATA
from rasters import write_raster
from refusals import refused
from tiler.cli.main import run_command, tiler
from tiler.damage import DamageLog
from tiler.errors import DamageError, InputError, UsageError
from tiler.events import BlockStored
from tiler.geometry import Window
from tiler.job import prepare
from tiler.open import open_for_model, open_raster
from tiler.options import RunOptions
from tiler.readers.slide import SlideRaster
from tiler.run import segment

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
HEIGHT, WIDTH = 1003, 1301
SQUARES = [(320, 480, 160), (0, 0, 32), (640, 64, 96), (832, 1024, 128)]
FORMATS = {
    "jpeg.svs": slides.aperio,
    "jpeg2000.svs": lambda path, levels: slides.aperio(path, levels, compression=slides.JPEG_2000),
    "generic.tif": slides.generic,
    "dicom": slides.dicom,
}
REAL = {
    "CMU-1-Small-Region.svs": (0.499, "OpenSlide 4"),
    "derived_cmu1_region_generic_pyramid.tif": (0.499, "OpenSlide 4"),
    "hamamatsu_DAPI-2-(387).ndpi": (0.228, "OpenSlide 4"),
    "ihc.png": (None, "GDAL"),
    "kidney-48-5.tif": (None, "GDAL"),
    "lung_lesion_HE.jpg": (None, "GDAL"),
    "lung_lesion_Ki67.jpg": (None, "GDAL"),
}
"""Micrometres per pixel that each says, and what reads it."""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A slide of each format, all of the same picture."""
    folder = tmp_path_factory.mktemp("slides")
    levels = slides.pyramid(slides.patterned(HEIGHT, WIDTH, SQUARES))
    return {name: write(folder / name, levels) for name, write in FORMATS.items()}


@pytest.fixture
def ink(tmp_path):
    """A network that finds ink."""
    weights = {
        "w": np.array([[0, 0, 0], [-1, -1, -1]], np.float32)[..., None, None],
        "b": np.array([0, 2.1], np.float32),
    }
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    spec = networks.spec(3, ("glass", "ink"))
    return networks.save(tmp_path / "ink.onnx", nodes, weights, 3, 2, model_spec=spec)


def whole(raster):
    return raster.read(Window(0, 0, raster.info.height, raster.info.width))


def drawn(path, level, corner=(0, 0), size=None):
    """What OpenSlide itself reads, as (4, H, W)."""
    with openslide.OpenSlide(path) as slide:
        size = size or slide.level_dimensions[level]
        return np.moveaxis(np.asarray(slide.read_region(corner, level, size)), -1, 0)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def expected_ink(to_level0, height, width):
    """Which pixels of a plane have their centre in a square."""
    rows = to_level0.e * (np.arange(height) + 0.5)[:, None]
    columns = to_level0.a * (np.arange(width) + 0.5)
    inside = np.zeros((height, width), bool)
    for top, left, side in SQUARES:
        inside |= (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return inside


def near_an_edge(inside):
    """Pixels of which some neighbour is on the other side."""
    padded = np.pad(inside, 1, mode="edge")
    shifts = [padded[y : y + inside.shape[0], x : x + inside.shape[1]] for y in range(3) for x in range(3)]
    return np.any(shifts, axis=0) & ~np.all(shifts, axis=0)


# Where things lie


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mpp", [0.5, 1.0, 2.0, 0.7, 1.37, 0.3])
def test_a_pattern_comes_back_where_it_was(made, ink, tmp_path, name, mpp):
    """Level-0 coordinates of the output's pixels are those of the slide's: exactly at its own levels."""
    report = segment(made[name], ink, tmp_path / "out.tif", RunOptions(mpp=mpp, tissue="off"))
    labels_HW = read(tmp_path / "out.tif")
    inside = expected_ink(Affine(*report.output["to_level0"]), *labels_HW.shape)
    wrong = (labels_HW == 1) != inside
    assert not (wrong & ~near_an_edge(inside)).any()
    if mpp in {0.5, 1.0, 2.0}:
        assert wrong.sum() <= (0 if name == "jpeg2000.svs" else 0.02 * inside.sum())
    assert report.output["mpp"] == pytest.approx([mpp, mpp], rel=0.002)


@pytest.mark.parametrize("mpp", [0.7, 2.0])
def test_on_the_grid_of_level_0(made, ink, tmp_path, mpp):
    """``--grid source``: each pixel of level 0 has the label of what was fed under its centre."""
    options = RunOptions(mpp=mpp, tissue="off", grid="source")
    segment(made["jpeg2000.svs"], ink, tmp_path / "out.tif", options)
    labels_HW = read(tmp_path / "out.tif")
    assert labels_HW.shape == (HEIGHT, WIDTH)
    inside = expected_ink(Affine.identity(), HEIGHT, WIDTH)
    wrong_rows, wrong_columns = np.nonzero((labels_HW == 1) != inside)
    near = [
        min(abs(row + 0.5 - edge) for edge in (top, top + side)) <= mpp / 0.5
        or min(abs(column + 0.5 - edge) for edge in (left, left + side)) <= mpp / 0.5
        for row, column in zip(wrong_rows, wrong_columns, strict=True)
        for top, left, side in [min(SQUARES, key=lambda s: abs(s[0] - row) + abs(s[1] - column))]
    ]
    assert all(near)


def test_a_level_that_lacks_the_last_row_is_not_stretched(tmp_path):
    """1003 rows are 250 rows of 4, and the 250th ends at row 1000."""
    levels = slides.pyramid(slides.patterned(HEIGHT, WIDTH, SQUARES))
    path = slides.aperio(tmp_path / "a.svs", levels, compression=slides.JPEG_2000)
    raster = open_raster(path, level=2)
    assert (raster.info.height, raster.info.width) == (250, 325)
    assert tuple(raster.info.to_level0[:6]) == (4, 0, 0, 0, 4, 0)
    assert raster.info.ground == pytest.approx((2e-6, 2e-6))


def test_the_output_opens_as_a_slide(made, ink, tmp_path):
    """In OpenSlide: all levels, the right size and resolution, class colours, glass white."""
    report = segment(made["generic.tif"], ink, tmp_path / "out.tif", RunOptions(mpp=0.7))
    with openslide.OpenSlide(tmp_path / "out.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.dimensions == (report.output["width"], report.output["height"])
        assert slide.level_count > 1
        for axis, side in zip("xy", report.output["mpp"], strict=True):
            assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(side, rel=1e-5)
        row, column = (round((n + 80) / s) for n, s in zip((320, 480), (1.4, 1.4), strict=True))
        middle = slide.read_region((column, row), 0, (1, 1)).getpixel((0, 0))
        assert middle[:3] == (230, 57, 57)
        assert slide.read_region((620, 20), 0, (1, 1)).getpixel((0, 0))[:3] == (255, 255, 255)


def test_areas_are_of_the_slide(made, ink, tmp_path, capsys):
    """In square micrometres."""
    report = segment(made["jpeg2000.svs"], ink, tmp_path / "out.tif", RunOptions(tissue="off"))
    inked = sum(side**2 for _, _, side in SQUARES)
    assert report.classes[1].area_um2 == pytest.approx(inked * 0.25)
    assert report.classes[1].area_m2 is None
    command = ["segment", made["jpeg2000.svs"], ink, tmp_path / "b.tif", "--tissue", "off"]
    assert run_command(tiler, list(map(str, command))) == 0
    out = capsys.readouterr().out
    assert "area um2" in out
    assert f"{inked * 0.25:,.1f}" in out
    assert "read by     OpenSlide 4" in out


# What is read


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_are_openslides_own(made, name):
    """At every level, whatever the window."""
    for level in range(3):
        raster = open_raster(made[name], level=level)
        rgba_CHW = drawn(made[name], level)
        assert raster.info.reader.startswith("OpenSlide 4")
        np.testing.assert_array_equal(whole(raster).raw_CHW, rgba_CHW[:3])
        rng = np.random.default_rng(0)
        for _ in range(10):
            top, left = (int(rng.integers(0, n - 40)) for n in (raster.info.height, raster.info.width))
            window = Window(top, left, top + 40, left + 40)
            np.testing.assert_array_equal(raster.read(window).raw_CHW, rgba_CHW[:3, *window.slices])


def test_a_large_level_of_odd_scale_does_not_depend_on_the_window(tmp_path, monkeypatch):
    """Between whole positions OpenSlide interpolates, so it is always asked for the same ones."""
    monkeypatch.setattr("tiler.readers.slide.SMALL", 0)
    path = slides.generic(tmp_path / "a.tif", slides.pyramid(slides.textured(HEIGHT, WIDTH)))
    raster = open_raster(path, level=1)
    all_CHW = whole(raster).raw_CHW
    for window in (Window(100, 100, 400, 300), Window(255, 257, 258, 260), Window(499, 0, 501, 650)):
        np.testing.assert_array_equal(raster.read(window).raw_CHW, all_CHW[:, *window.slices])
    far = np.abs(all_CHW.astype(int) - drawn(path, 1)[:3])
    assert far.mean() < 5  # less than a quarter of a pixel away


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "hamamatsu_DAPI-2-(387).ndpi"])
def test_pixels_of_real_slides(shared, name):
    """As above."""
    path = shared / "slides" / name
    raster = open_raster(path)
    corner, size = (1500, 700), (333, 257)
    window = Window(corner[1], corner[0], corner[1] + size[1], corner[0] + size[0])
    np.testing.assert_array_equal(raster.read(window).raw_CHW, drawn(path, 0, corner, size)[:3])


def test_bands_in_another_order(made):
    """As of any raster; a fourth there is not."""
    colours_CHW = drawn(made["jpeg.svs"], 0)
    raster = open_raster(made["jpeg.svs"], bands=(3, 1))
    np.testing.assert_array_equal(whole(raster).raw_CHW, colours_CHW[[2, 0]])
    with pytest.raises(InputError, match="has bands 1 to 3"):
        open_raster(made["jpeg.svs"], bands=(4,))


SIZE, CORNER = (2000, 1600), (301, 203)


@pytest.fixture(scope="session")
def bounded(tmp_path_factory):
    """A slide of which only a part was scanned, and its picture."""
    picture_HWC = slides.textured(640, 768)
    path = tmp_path_factory.mktemp("bounded") / "a.scn"
    return slides.leica(path, slides.pyramid(picture_HWC), SIZE, CORNER), picture_HWC


@pytest.mark.parametrize("level", [0, 1, 2])
def test_bounds_are_respected(bounded, level):
    """The raster is what lies within, and coordinates count from its corner, as in QuPath."""
    path, picture_HWC = bounded
    raster, scale = open_raster(path, level=level), 2**level
    assert (raster.info.height, raster.info.width) == (640 // scale, 768 // scale)
    assert tuple(raster.info.to_level0[:6]) == (scale, 0, 0, 0, scale, 0)
    window = Window(10, 60, 90, 100)
    pixels, corner = raster.read(window), (CORNER[0] + 60 * scale, CORNER[1] + 10 * scale)
    np.testing.assert_array_equal(pixels.raw_CHW, drawn(path, level, corner, (40, 80))[:3])
    assert pixels.valid_HW.all()
    if level == 0:
        inside_CHW = np.moveaxis(picture_HWC[window.slices], -1, 0).astype(int)
        assert np.abs(pixels.raw_CHW - inside_CHW).mean() < 12  # JPEG; elsewhere it is 60


def test_where_nothing_was_scanned_is_nodata_on_white(bounded, ink, tmp_path):
    """Told by alpha; a pixel that is half there is half white."""
    raster = SlideRaster(bounded[0])
    whole_slide = replace(raster.facts, bounds=Window(0, 0, *SIZE[::-1]))
    raster.facts, raster._local.slide = whole_slide, raster._opened()
    pixels = raster.read_once(Window(200, 300, 210, 310))
    expected_HW = np.zeros((10, 10), bool)
    expected_HW[3:, 1:] = True
    np.testing.assert_array_equal(pixels.valid_HW, expected_HW)
    assert (pixels.raw_CHW[:, ~expected_HW] == 255).all()
    half = raster._composited(np.array([[[10, 20, 30, 128], [10, 20, 30, 0]]], np.uint8))
    assert half.raw_CHW[:, 0, 0].tolist() == [132, 137, 142]
    assert half.valid_HW.tolist() == [[True, False]]


# Who reads what


def test_a_scene_is_read_by_gdal(tmp_path):
    """Also one that OpenSlide would open: tiled colours with overviews, in a CRS."""
    raw_CHW = np.random.default_rng(0).integers(0, 255, (3, 600, 600), np.uint8)
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256, "photometric": "rgb"}
    scene = write_raster(
        tmp_path / "a.tif", raw_CHW, crs="EPSG:32633", transform=Affine(1, 0, 9, 0, -1, 9), **profile
    )
    picture = write_raster(tmp_path / "b.tif", raw_CHW, **profile)
    for path in (scene, picture):
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2])
        assert openslide.OpenSlide.detect_format(path) == "generic-tiff"
        assert open_raster(path).info.reader.startswith("GDAL")
    with pytest.raises(InputError, match="is georeferenced; leave it out"):
        open_raster(scene, assume_mpp=0.5)
    assert open_raster(picture, assume_mpp=0.5).info.reader.startswith("OpenSlide")


def test_a_picture_is_a_slide_when_it_is_told_so(tmp_path):
    """Read by GDAL, at its levels."""
    levels = slides.pyramid(slides.patterned(512, 512, SQUARES[:1]))
    path = write_raster(tmp_path / "a.tif", np.moveaxis(levels[0], -1, 0), photometric="rgb")
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    with pytest.raises(InputError, match="--assume-mpp"):
        open_raster(path, mpp=1)
    raster = open_raster(path, mpp=1, assume_mpp=0.5)
    assert (raster.info.reader[:4], raster.info.width, raster.info.note) == ("GDAL", 256, "")
    assert tuple(raster.info.to_level0[:6]) == (2, 0, 0, 0, 2, 0)
    assert raster.info.transform is None


# Which resolution


def test_the_models_resolution_chooses_the_level(made):
    """Within 5 % as it is, else averaged from the nearest finer level."""
    spec = networks.spec(3)
    for metres, size, note in (
        (1.02e-6, (501, 650), ""),
        (1.5e-6, (334, 433), "averaged from 650 x 501 px"),
        (None, (HEIGHT, WIDTH), ""),
    ):
        raster = open_for_model(made["jpeg.svs"], replace(spec, resolution=metres))
        assert (raster.info.height, raster.info.width) == size
        assert raster.info.note.startswith(note)
        assert bool(raster.info.note) == bool(note)


def test_one_way_to_say_it():
    """Three options that mean the same thing."""
    for told in ({"mpp": 1, "level": 0}, {"level": 0, "resolution": 1.0}, {"mpp": 1, "resolution": "native"}):
        with pytest.raises(UsageError, match="one of --mpp, --level and --resolution"):
            RunOptions(**told)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--mpp", "0"], ["mpp is micrometres per pixel above 0, got 0"]),
        (["--mpp", "1e9"], ["at 1e+09 micrometres per pixel", "--level 0"]),
        (["--mpp", "1e-6"], ["pixels are fed"]),
        (["--level", "7"], ["has levels 0 to 2, got --level 7"]),
        (["--level", "-1"], ["levels are numbered from 0, got -1"]),
        (["--assume-mpp", "nan"], ["assume-mpp is micrometres"]),
        (["--tissue-threshold", "300"], ["between 0 and 255, got 300"]),
        (["--tissue", "off", "--tissue-area", "1"], ["--tissue auto"]),
    ],
)
def test_bad_options(made, ink, tmp_path, capsys, more, words):
    """One line each."""
    command = ["segment", made["jpeg.svs"], ink, tmp_path / "out.tif", *more]
    refused(capsys, tiler, command, *words)


def test_inspect_says_the_resolution_that_is_used(tmp_path, capsys):
    """Of a level that dropped an odd row, not what the ratio of sizes would make of it."""
    levels = slides.pyramid(slides.patterned(901, 1203, SQUARES[:1]), (1, 2, 4))
    path = slides.aperio(tmp_path / "a.svs", levels)
    assert run_command(tiler, ["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for number in range(3):
        info = open_raster(path, level=number).info
        line = f"level {number}     {info.width} x {info.height} px, {info.ground[0] * 1e6:.4g} um"
        assert line in out, out


def test_a_scene_has_no_micrometres(ink, tmp_path, capsys):
    """It is told which option it has instead."""
    raw_CHW = np.zeros((3, 64, 64), np.uint8)
    scene = write_raster(tmp_path / "a.tif", raw_CHW, crs="EPSG:32633", transform=Affine(1, 0, 9, 0, -1, 9))
    for option in (["--mpp", "1"], ["--level", "1"]):
        refused(capsys, tiler, ["segment", scene, ink, tmp_path / "o.tif", *option], "--resolution METRES")


def test_a_slide_that_does_not_say_its_resolution(ink, tmp_path, capsys):
    """Is asked for it; what was told is then where it counts."""
    levels = slides.pyramid(slides.patterned(HEIGHT, WIDTH, SQUARES))
    path = slides.aperio(tmp_path / "a.svs", levels, mpp=None)
    refused(capsys, tiler, ["segment", path, ink, tmp_path / "o.tif"], "--assume-mpp")
    assert run_command(tiler, ["inspect", str(path)]) == 0
    assert "pass --assume-mpp" in capsys.readouterr().out
    report = segment(path, ink, tmp_path / "out.tif", RunOptions(assume_mpp=0.25, mpp=0.5))
    assert report.output["mpp"] == [0.5, 0.5]
    assert report.output["to_level0"][0] == 2


def test_what_a_slide_says_goes_before_what_is_assumed(made):
    """``assume_mpp`` is for slides that say nothing: in one archive some do and some do not."""
    assert open_raster(made["jpeg.svs"], assume_mpp=3).info.ground == pytest.approx((5e-7, 5e-7))


def test_a_remote_slide_is_refused():
    """Before anything is asked of the server: GDAL would make a picture of it."""
    with pytest.raises(InputError, match=r"a slide is read from a file here, got http://h/x.svs; download"):
        open_raster("http://h/x.svs?token=secret", allow_remote=True)


# Damage


@pytest.fixture
def damaged(tmp_path):
    """A slide of 5 x 6 tiles, of which number 8 (row 1, column 2) is damaged; and a sound one."""
    levels = slides.pyramid(slides.textured(HEIGHT, WIDTH))
    sound = slides.aperio(tmp_path / "sound.svs", levels)
    path = tmp_path / "damaged.svs"
    shutil.copy(sound, path)
    slides.damage_tile(path, 8)
    return path, sound


TILE = Window(240, 480, 480, 720)


def test_a_damaged_tile_is_an_error_that_names_it(damaged, ink, tmp_path, capsys):
    """Exit code 1; never zeros."""
    path, _ = damaged
    with pytest.raises(DamageError, match="rows 240:480, columns 480:720"):
        open_raster(path).read(Window(100, 100, 500, 500))
    command = ["segment", path, ink, tmp_path / "out.tif", "--quiet"]
    refused(capsys, tiler, command, "rows 240:480, columns 480:720", "--on-error nodata", code=1)


@pytest.mark.parametrize(
    "window", [Window(0, 0, HEIGHT, WIDTH), Window(300, 500, 310, 510), Window(200, 700, 600, 1000), TILE]
)
def test_the_other_tiles_are_intact(damaged, window):
    """Whatever the window; OpenSlide's handle is dead after the error and opened anew."""
    path, sound = damaged
    log = DamageLog()
    raster, expected = open_raster(path, damage=log), open_raster(sound).read(window)
    for _ in range(2):
        pixels = raster.read(window)
        lost_HW = np.zeros((HEIGHT, WIDTH), bool)
        lost_HW[TILE.slices] = True
        lost_HW = lost_HW[window.slices]
        np.testing.assert_array_equal(pixels.valid_HW, ~lost_HW)
        np.testing.assert_array_equal(pixels.raw_CHW[:, ~lost_HW], expected.raw_CHW[:, ~lost_HW])
    assert [d.window for d in log.found] == ([TILE] if window.touches(TILE) else [])


@pytest.mark.parametrize("small", [0, 1 << 22])
def test_damage_of_a_level_of_odd_scale(tmp_path, monkeypatch, small):
    """The same pixels are lost whatever the window, and those that OpenSlide draws with them."""
    monkeypatch.setattr("tiler.readers.slide.SMALL", small)
    path = slides.generic(tmp_path / "a.tif", slides.pyramid(slides.textured(2006, 2602)))
    slides.damage_tile(path, 5, level=1)  # row 0, column 5
    raster = open_raster(path, level=1, damage=DamageLog())
    height, width = raster.info.height, raster.info.width
    lost_HW = ~whole(raster).valid_HW
    assert lost_HW[:256, 1280:].all()
    assert lost_HW.sum() <= 256 * (width - 1024)
    for window in (Window(0, 0, 300, 1100), Window(250, 1000, height, width), Window(10, 1290, 20, 1300)):
        fresh = open_raster(path, level=1, damage=DamageLog())
        np.testing.assert_array_equal(~fresh.read(window).valid_HW, lost_HW[window.slices])


@pytest.mark.parametrize("how", [{"tile": 256}, {"tile": 640}, {"tile": 256, "blend": "hann"}])
def test_a_run_over_damage(damaged, tmp_path, how):
    """The tile is nodata and in the report; the map does not depend on tiles."""
    path, sound = damaged
    net = networks.pixelwise(tmp_path / "net.onnx")
    options = RunOptions(on_error="nodata", tissue="off", **how)
    report = segment(path, net, tmp_path / "out.tif", options)
    segment(sound, net, tmp_path / "sound.tif", options)
    assert [d.window for d in report.damaged] == [str(TILE)]
    expected_HW = read(tmp_path / "sound.tif")
    expected_HW[TILE.slices] = 255
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected_HW)


def test_a_damaged_thumbnail_is_no_damage_of_the_result(damaged, ink, tmp_path):
    """What cannot be seen there may be tissue, and is computed."""
    _, sound = damaged
    slides.damage_tile(sound, 0, level=2)
    report = segment(sound, ink, tmp_path / "out.tif", RunOptions(tile=256))
    assert not report.damaged
    assert (read(tmp_path / "out.tif")[:900, :900] != 255).all()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.99])
def test_a_truncated_slide_is_an_error(made, ink, tmp_path, capsys, share):
    """Wherever it is cut; GDAL is not asked to make something of the rest."""
    content = made["jpeg.svs"].read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: int(len(content) * share)])
    command = ["segment", path, ink, tmp_path / "out.tif", "--quiet"]
    code = run_command(tiler, list(map(str, command)))
    err = capsys.readouterr().err
    assert code in {1, 2}
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "damaged" in err
    assert not (tmp_path / "out.tif").exists()


def test_a_slide_that_is_taken_away_is_not_damaged(made, tmp_path):
    """It may come back."""
    path = tmp_path / "a.svs"
    shutil.copy(made["jpeg.svs"], path)
    raster = open_raster(path, damage=DamageLog())
    raster.forget_handle()
    path.unlink()
    with pytest.raises(DamageError, match="bring it back"):
        raster.read(TILE)


def test_files_of_a_dicom_series_belong_together(made, tmp_path):
    """A change in any is a change of the slide; others in the folder are not its own."""
    folder = tmp_path / "series"
    shutil.copytree(made["dicom"].parent, folder)
    (folder / "other.dcm").write_bytes(b"something else")
    names = [f"level{n}.dcm" for n in range(3)]
    assert [p.rpartition("/")[2] for p in open_raster(folder / "level0.dcm").info.files] == names


# Runs that end early


def test_killed_and_run_again(made, tmp_path):
    """The same bytes as without a kill."""
    net = networks.unet(tmp_path / "net.onnx")
    options = ["--mpp", "0.4", "--tile", "256", "--log", "json", "--memory", "2GB"]

    def start(output):
        command = [sys.executable, "-m", "tiler", "segment", made["jpeg.svs"], net, output, *options]
        return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)

    for name, kills in (("whole", 0), ("out", 2)):
        for _ in range(kills):
            process = start(tmp_path / f"{name}.tif")
            for line in process.stderr:
                if json.loads(line)["event"] == BlockStored.__name__:
                    break
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert (tmp_path / f"{name}.tif.run").exists()
        process = start(tmp_path / f"{name}.tif")
        _, err = process.communicate()
        assert process.returncode == 0, err
    for suffix in (".tif", ".tissue.png", ".config.toml"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert not list(tmp_path.glob("*.run"))


@pytest.mark.slow
def test_memory_stays_within_the_budget(tmp_path):
    """Also where 64 pixels of a slide without levels make one: for the network, and for the thumbnail."""
    path = slides.aperio(tmp_path / "a.svs", [slides.textured(8000, 8000)])
    net, output = networks.pixelwise(tmp_path / "net.onnx"), tmp_path / "out.tif"
    budget = 700_000_000
    options = ["--mpp", "4", "--memory", str(budget), "--quiet"]
    command = [sys.executable, "-m", "tiler", "segment", path, net, output, *options]
    subprocess.run(list(map(str, command)), check=True)
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["peak_memory"] <= budget


def test_a_run_is_not_carried_on_at_another_resolution(made, ink, tmp_path):
    """Nor with other tissue; without a change it is finished."""
    told = RunOptions(mpp=1.37)
    first = segment(made["jpeg.svs"], ink, tmp_path / "out.tif", told)
    assert segment(made["jpeg.svs"], ink, tmp_path / "out.tif", told) == first
    for other in ({"mpp": 1.5}, {"tissue": "off"}, {"tissue_threshold": 20}, {"tissue_area": 1}):
        with pytest.raises(UsageError, match="made with another"):
            segment(made["jpeg.svs"], ink, tmp_path / "out.tif", replace(told, **other))


# Tissue


def test_glass_is_not_computed(made, ink, tmp_path):
    """It is nodata; all of the ink is found, and the preview lies beside the output."""
    options = RunOptions(tile=128, tissue_area=0)
    report = segment(made["jpeg2000.svs"], ink, tmp_path / "out.tif", options)
    labels_HW = read(tmp_path / "out.tif")
    inside = expected_ink(Affine.identity(), *labels_HW.shape)
    np.testing.assert_array_equal(labels_HW == 1, inside)
    glass = (labels_HW == 255).mean()
    assert glass > 0.7
    assert 1 - glass == pytest.approx(report.tissue["share"], abs=0.02)
    with rasterio.open(tmp_path / "out.tissue.png") as preview:
        assert preview.count == 3
        assert report.tissue["thumbnail"] == f"{preview.width} x {preview.height} px"


def test_tissue_and_a_mask_together(made, ink, tmp_path):
    """Where both want it."""
    wanted = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    wanted[:, :480] = 1
    mask = write_raster(tmp_path / "mask.tif", wanted)
    report = segment(made["jpeg2000.svs"], ink, tmp_path / "out.tif", RunOptions(mask=str(mask)))
    without = segment(made["jpeg2000.svs"], ink, tmp_path / "all.tif")
    expected_HW = read(tmp_path / "all.tif")
    expected_HW[480:] = 255
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), expected_HW)
    assert report.valid_pixels < without.valid_pixels


def test_small_pieces_are_left_out_as_told(made, ink):
    """Squares of 16 and 48 micrometres have 0.000256 and 0.0023 mm2."""
    shares = [
        prepare(made["jpeg2000.svs"], ink, RunOptions(tissue_area=area)).tissue.facts()["share"]
        for area in (0, 0.001, 0.004)
    ]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 3


def test_a_dark_slide_has_no_glass(tmp_path, ink):
    """Fluorescence: nothing is lost, because nothing is as bright as glass."""
    levels = slides.pyramid(255 - slides.patterned(512, 512, SQUARES[:1]))
    path = slides.aperio(tmp_path / "a.svs", levels)
    assert prepare(path, ink).tissue.facts()["share"] == 1


def test_nothing_but_glass(tmp_path, ink):
    """Is nodata, and said."""
    path = slides.aperio(tmp_path / "a.svs", slides.pyramid(slides.patterned(512, 512, [])))
    said = []
    report = segment(path, ink, tmp_path / "out.tif", observer=said.append)
    assert (read(tmp_path / "out.tif") == 255).all()
    assert report.tissue["share"] == 0
    assert any("tissue: 0.0%" in getattr(event, "message", "") for event in said)


def test_a_grey_picture_has_tissue_too(tmp_path):
    """However small; the preview is in colour."""
    net = networks.pixelwise(tmp_path / "net.onnx", bands=1)
    for side, share in ((64, 1), (3, 0)):
        raw_CHW = np.full((1, side, side), 240, np.uint8)
        raw_CHW[:, : side // 2] -= 200 if side > 3 else 0
        path = write_raster(tmp_path / f"{side}.tif", raw_CHW)
        report = segment(path, net, tmp_path / f"out{side}.tif", RunOptions(assume_mpp=1))
        assert report.tissue["share"] == pytest.approx(share, abs=0.3)
        with rasterio.open(tmp_path / f"out{side}.tissue.png") as preview:
            assert preview.count == 3


def test_scenes_have_none(tmp_path, ink):
    """Neither tissue nor a preview."""
    raw_CHW = np.full((3, 64, 64), 240, np.uint8)
    scene = write_raster(tmp_path / "a.tif", raw_CHW, crs="EPSG:32633", transform=Affine(1, 0, 9, 0, -1, 9))
    report = segment(scene, ink, tmp_path / "out.tif")
    assert report.tissue is None
    assert report.valid_pixels == 64 * 64
    assert not (tmp_path / "out.tissue.png").exists()


# Real slides


def test_no_tissue_of_a_real_slide_is_lost(shared, tmp_path):
    """Against a mask made by hand; and half of the slide is skipped."""
    with rasterio.open(DATA / "cmu1_tissue.png") as dataset:
        by_hand_HW = np.kron(dataset.read(1), np.ones((4, 4), np.uint8)) != 0
    source = shared / "slides" / "CMU-1-Small-Region.svs"
    report = segment(source, networks.pixelwise(tmp_path / "net.onnx"), tmp_path / "out.tif")
    labels_HW = read(tmp_path / "out.tif")[: by_hand_HW.shape[0]]
    assert not (by_hand_HW & (labels_HW == 255)).any()
    assert report.tissue["share"] < 0.5
    assert by_hand_HW.mean() > 0.3


def test_the_table_names_every_slide(shared):
    """A new file must be added to the table."""
    assert {p.name for p in (shared / "slides").iterdir()} - {"README.md"} == set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_a_real_slide_is_segmented_at_a_stated_mpp(shared, ink, tmp_path, name, capsys):
    """Those that do not say their mpp with ``--assume-mpp``."""
    said, reader = REAL[name]
    assume = [] if said else ["--assume-mpp", "1"]
    command = ["segment", shared / "slides" / name, ink, tmp_path / "out.tif", "--mpp", "2", *assume]
    assert run_command(tiler, list(map(str, command))) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["source"]["reader"].startswith(reader)
    assert report["output"]["mpp"] == pytest.approx([2, 2], rel=0.05)
    with openslide.OpenSlide(tmp_path / "out.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2, rel=0.05)
    assert run_command(tiler, ["inspect", str(shared / "slides" / name), *assume]) == 0
    out = capsys.readouterr().out
    assert "tissue" in out
    assert max(map(len, out.splitlines())) <= 120

"""``tiler picture``: what is drawn of a map, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from onnx import helper

import networks
from refusals import refused
from tiler.cli.main import run_command, tiler
from tiler.spec import default_classes
from train.report.palette import voc_color
from training_data import blocks, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NAMES = ("background", "building")


@pytest.fixture
def place(tmp_path):
    """A picture, and a map of it by the command line: the second class is what has more red than green."""
    write(tmp_path / "scene.png", blocks(40, 60)[0])
    weight = np.array([[0, 1, 0], [1, 0, 0]], np.float32)[:, :, None, None]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    networks.save(tmp_path / "net.onnx", nodes, {"w": weight}, model_spec=networks.spec(3, NAMES))
    words = ["segment", "scene.png", "net.onnx", "map.tif", "--quiet"]
    assert run_command(tiler, [str(tmp_path / w) if "." in w else w for w in words]) == 0
    return tmp_path


def draw(place, *options):
    """The picture, and the map."""
    names = (place / "scene.png", place / "map.tif", place / "out.png")
    assert run_command(tiler, ["picture", *map(str, names), "--overwrite", *map(str, options)]) == 0
    return tuple(read(place / name) for name in ("out.png", "map.tif", "scene.png"))


def read(path):
    """All bands."""
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_a_mask_has_the_colours_of_the_classes(place):
    drawn_3HW, (labels_HW,), _ = draw(place, "--kind", "mask")
    assert {*np.unique(labels_HW)} == {0, 1}
    colors = np.array([kind.color for kind in default_classes(NAMES)], np.uint8)
    assert np.array_equal(drawn_3HW, colors[labels_HW].transpose(2, 0, 1))
    drawn_3HW, *_ = draw(place, "--kind", "mask", "--palette", "voc")
    assert np.array_equal(drawn_3HW[:, labels_HW == 1].T[0], voc_color(1))


def test_a_cutout_is_black_where_the_first_class_is(place):
    drawn_3HW, (labels_HW,), scene_3HW = draw(place, "--kind", "cutout")
    assert np.array_equal(drawn_3HW, scene_3HW * (labels_HW == 1))


def test_an_overlay_changes_the_classes_and_nothing_else(place):
    drawn_3HW, (labels_HW,), scene_3HW = draw(place)
    changed_HW = (drawn_3HW != scene_3HW).any(axis=0)
    assert not changed_HW[labels_HW == 0].any()
    assert changed_HW[labels_HW == 1].mean() > 0.95


def test_large_maps_become_small_pictures_and_any_bands_are_seen(place):
    raw_CHW = np.repeat(blocks(40, 60)[0], 2, axis=0).astype(np.uint16) * 100
    write(place / "many.tif", raw_CHW)
    words = [place / "many.tif", place / "map.tif", place / "out.png", "--longest", 30, "--bands", "6,4,2"]
    assert run_command(tiler, ["picture", *map(str, words)]) == 0
    assert read(place / "out.png").shape == (3, 20, 30)


def test_an_image_with_a_colour_table_is_seen_in_its_colours(place):
    (labels_HW,) = read(place / "map.tif")
    with rasterio.open(place / "p.png", "w", driver="PNG", count=1, height=40, width=60, dtype="uint8") as f:
        f.write(np.ones((1, 40, 60), np.uint8))
        f.write_colormap(1, {0: (0, 0, 0), 1: (10, 20, 30)})
    words = [place / "p.png", place / "map.tif", place / "out.png", "--kind", "cutout"]
    assert run_command(tiler, ["picture", *map(str, words)]) == 0
    drawn_3HW = read(place / "out.png")
    assert (drawn_3HW[:, labels_HW == 1].T == (10, 20, 30)).all()
    assert not drawn_3HW[:, labels_HW == 0].any()


def test_masks_of_other_programs_are_drawn_when_their_classes_are_named(place, capsys):
    write(place / "mask.png", blocks(40, 60)[1])
    words = ["picture", place / "scene.png", place / "mask.png", place / "out.png"]
    refused(capsys, tiler, words, "give --classes")
    assert run_command(tiler, [*map(str, words), "--classes", ",".join(NAMES), "--kind", "cutout"]) == 0
    assert np.array_equal(read(place / "out.png") > 0, np.repeat(blocks(40, 60)[1] > 0, 3, axis=0))


def test_refusals_are_one_line(place, capsys):
    scene, labels, out = (place / name for name in ("scene.png", "map.tif", "out.png"))
    refused(capsys, tiler, ["picture", scene, labels, place / "out.jpg"], ".png")
    refused(capsys, tiler, ["picture", scene, place / "none.tif", out], "none.tif")
    refused(capsys, tiler, ["picture", scene, labels, scene], "--overwrite")
    refused(capsys, tiler, ["picture", write(place / "other.png", blocks(40, 50)[0]), labels, out], "extent")
    write(place / "wide.tif", np.ones((1, 40, 60), np.uint16))
    refused(capsys, tiler, ["picture", scene, place / "wide.tif", out], "uint16")
    refused(capsys, tiler, ["picture", scene, labels, place / "none" / "out.png"], "cannot write", code=1)
    assert not out.exists()


@pytest.mark.slow
def test_it_needs_no_torch(place):
    words = ["picture", *(str(place / name) for name in ("scene.png", "map.tif", "out.png"))]
    code = f"import sys; from tiler.cli.main import run_command, tiler; run_command(tiler, {words!r}); "
    code += "print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout == "False\n"
    assert (place / "out.png").is_file()

"""``tiler labels``: what it prints, draws and writes, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refusals import refused
from tiler.cli.main import run_command, tiler
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.spec import default_classes
from train.data import picture
from train.data.command import labels
from train.data.image import View
from train.data.item import Item
from train.data.labelled import Library, Part
from train.data.legend import Legend
from training_data import blocks, write, write_pair

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TWO = ["--classes", "background,building"]


def folder(path, factor=1, count=10):
    """Images and masks of 0 and ``factor``."""
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    for seed in range(count):
        raw_CHW, mask_1HW = blocks(64, 64, seed)
        write(path / "images" / f"{seed}.png", raw_CHW)
        write(path / "masks" / f"{seed}.png", mask_1HW * np.uint8(factor))
    return path


def run(capsys, *arguments) -> str:
    """What it prints."""
    assert run_command(labels, [str(a) for a in arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_it_shows_classes_by_part_and_the_numbers_of_the_bands(capsys, tmp_path):
    said = run(capsys, folder(tmp_path), *TWO, "--val", 0.1, "--test", 0.1)
    masks_NHW = np.stack([blocks(64, 64, seed)[1][0] for seed in range(10)])
    counted = [int(line.split()[i].replace(",", "")) for line in said.splitlines() for i in (1, 3, 5)
               if line.startswith("building")]  # fmt: skip
    assert sum(counted) == masks_NHW.sum()
    assert f"values in 10 masks: 0 {1 - masks_NHW.mean():.2%}, 1 {masks_NHW.mean():.2%}" in said
    assert "known: train 100.0%, val 100.0%, test 100.0%" in said
    assert "warning" not in said


def test_without_classes_values_are_shown_as_they_are(capsys, tmp_path):
    said = run(capsys, folder(tmp_path, factor=7))
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("0 ", "7 "))] == ["0", "7"]


def test_mistakes_are_warned_of_before_they_are_refused(capsys, tmp_path):
    assert run_command(labels, [str(folder(tmp_path, factor=9)), *TWO]) == 2
    out, err = capsys.readouterr()
    assert "warning: masks hold 9, which are no classes (0 to 1)" in out
    assert err.startswith("error: mask values are the classes 0 to 1")
    assert err.count("\n") == 1


def test_labels_of_255_are_pointed_out(capsys, tmp_path):
    said = run(capsys, folder(tmp_path, factor=255), *TWO)
    assert "--coding '0=background,255=building'" in said
    assert "warning" not in run(capsys, tmp_path, *TWO, "--coding", "0=background,255=building")


def test_the_picture_shows_six_samples_and_their_labels(capsys, tmp_path):
    path = tmp_path / "six.png"
    said = run(capsys, folder(tmp_path / "set"), *TWO, "--picture", path)
    assert f"wrote {path}" in said
    info = open_raster(path).info
    assert (info.bands, info.height, info.width) == (3, 2 * 262, 6 * 262)


def test_the_first_of_classes_that_overlap_is_drawn_too(capsys, tmp_path):
    """It is no background, which stays as it is."""
    image = write(tmp_path / "a.png", np.full((3, 64, 64), 90, np.uint8))
    for name, left in (("cell", 0), ("wall", 32)):
        (tmp_path / name).mkdir()
        mask_1HW = np.zeros((1, 64, 64), np.uint8)
        mask_1HW[:, 8:56, left + 8 : left + 24] = 255
        write(tmp_path / name / "a.png", mask_1HW)
    source = Item(image, str(tmp_path / "{class}" / "a.png")).source(View(), None)
    legend = Legend(("cell", "wall"), independent=True)
    whole, classes = Window(0, 0, 64, 64), default_classes(legend.classes)
    photo_CHW, drawn_CHW = picture.pair(Part(source, whole), whole, Library(legend), classes)
    changed_HW = (photo_CHW != drawn_CHW).any(axis=0)
    assert changed_HW[16:48, 12:20].all()
    assert changed_HW[16:48, 44:52].all()
    assert not changed_HW[:6].any()


def test_a_pair_and_its_picture_of_many_bands(capsys, tmp_path):
    raster, mask = write_pair(tmp_path)
    many = write(tmp_path / "many.tif", np.repeat(blocks(64, 200)[0], 2, axis=0).astype(np.uint16) * 100)
    said = run(capsys, "--pair", many, mask, *TWO, "--picture", tmp_path / "p.png", "--seed", 3)
    assert said.count("\n6 ") == 1
    assert open_raster(tmp_path / "p.png").info.bands == 3
    assert raster.exists()


def test_a_picture_of_nothing_is_one_line(capsys, tmp_path):
    data = folder(tmp_path)
    for path in (data / "masks").iterdir():
        write(path, np.full((1, 64, 64), 255, np.uint8))
    assert run_command(labels, [str(data), *TWO, "--picture", str(tmp_path / "p.png")]) == 2
    assert capsys.readouterr().err.startswith("error: a picture shows labels")
    assert not (tmp_path / "p.png").exists()


def test_the_manifest_is_one_to_read(capsys, tmp_path):
    parts = tmp_path / "parts.csv"
    first = run(capsys, folder(tmp_path / "set"), *TWO, "--write-manifest", parts)
    again = run(capsys, parts, *TWO)
    assert first.replace(f"wrote {parts}\n", "") == again
    assert run(capsys, "--manifest", parts, *TWO) == again
    assert run(capsys, "--data", parts, *TWO) == again


def test_polygons_are_counted_by_name_before_one_is_refused(capsys, tmp_path):
    image = write(tmp_path / "a.png", blocks(64, 64)[0])
    ring = [[[2, 2], [9, 2], [9, 9], [2, 2]]]
    kinds = ["Tumor", "Tumor", "Stroma"]
    features = [
        {"geometry": {"type": "Polygon", "coordinates": ring}, "properties": {"classification": {"name": k}}}
        for k in kinds
    ]
    (tmp_path / "a.geojson").write_text(json.dumps(features))
    pair = ["--pair", str(image), str(tmp_path / "a.geojson")]
    assert run_command(labels, pair) == 2
    out, err = capsys.readouterr()
    assert "polygons: Tumor 2, Stroma 1" in out
    assert "called 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..., got 'Tumor'" in err
    said = run(capsys, *pair, "--classes", "Stroma,Tumor", "--picture", tmp_path / "p.png")
    assert "Tumor" in said


def test_bad_usage_is_one_line(capsys, tmp_path):
    data = folder(tmp_path)
    refused(capsys, labels, [], "--pair")
    refused(capsys, labels, [tmp_path / "none"], "none")
    refused(capsys, labels, [data, *TWO, "--coding", "0=water"], "water")
    refused(capsys, labels, [data, *TWO, "--layout", "coco"], "coco")
    refused(capsys, labels, [data, *TWO, "--resize", "big"], "--resize", "big")
    refused(capsys, labels, [data, *TWO, "--val", "0"], "--val")
    refused(capsys, labels, [data, *TWO, "--seed", "-1"], "--seed")
    refused(capsys, labels, [data, *TWO, "--picture", data / "images" / "0.png"], "of the data")
    pair = write_pair(tmp_path)
    parts = ["--write-manifest", tmp_path / "parts.csv"]
    refused(capsys, labels, ["--pair", *pair, *TWO, *parts], "whole images")
    assert run_command(labels, [str(data), *TWO, "--bands", "1,9"]) == 2
    assert "see --bands" in capsys.readouterr().err


def test_it_is_a_command_of_tiler_and_needs_no_torch(capsys, tmp_path):
    assert run_command(tiler, ["labels", "--help"], "tiler") == 0
    assert "DATASET" in capsys.readouterr().out
    code = (
        "import sys; from train.data.command import labels; from tiler.cli.main import run_command; "
        "print([m in sys.modules for m in ('torch', 'rasterio')]); "
        f"run_command(labels, {[str(folder(tmp_path)), *TWO]!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.startswith("[False, False]\n")
    assert done.stdout.endswith("False\n")

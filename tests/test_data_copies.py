"""``tiler augment``: copies hold what was asked for, and are a data set to train on."""

from __future__ import annotations

import csv
import errno
import shutil

import numpy as np
import pytest
import rasterio

pytest.importorskip("torch")

from refusals import refused
from tiler.cli.main import run_command, tiler
from train.data import copies as module
from train.data.augment import Augment
from train.data.copies import Copier
from train.data.labelled import Library
from train.data.options import AugmentOptions, DataOptions
from train.data.split import split_data
from train.data.survey import survey
from training_data import blocks, flags, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NAMES = ("background", "building")
OFF = dict.fromkeys(("quarter_turns", "contrast", "brightness", "band_brightness"), 0.0)


@pytest.fixture
def folder(tmp_path):
    """Six images of 40 x 64 px with masks of 0 and 255."""
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for seed in range(6):
        raw_CHW, mask_1HW = blocks(40, 64, seed)
        write(tmp_path / "set" / "images" / f"tile.{seed}.png", raw_CHW)
        write(tmp_path / "set" / "masks" / f"tile.{seed}_mask.png", mask_1HW * np.uint8(255))
    return tmp_path / "set"


def augment(folder, outdir, *more, **told):
    """The exit code; nothing is changed unless it is told."""
    words = flags({"data": folder, "classes": NAMES, "coding": ">127", **OFF, **told})
    return run_command(tiler, ["augment", str(outdir), *words, *map(str, more)])


def read(path):
    """All bands."""
    with rasterio.open(path) as dataset:
        return dataset.read()


def rows_of(outdir):
    """Of its manifest."""
    return list(csv.DictReader((outdir / "parts.csv").read_text().splitlines()))


def test_flipped_copies_are_the_originals_flipped(folder, tmp_path, capsys):
    """Bit for bit, labels as class numbers; of what is trained on, and of nothing else."""
    outdir = tmp_path / "out"
    assert augment(folder, outdir, flip_horizontal=1.0) == 0
    rows = rows_of(outdir)
    trained = [row for row in rows if row["part"] == "train" and not row["coding"]]
    made = [row for row in rows if row["coding"] == "index"]
    assert {row["part"] for row in made} == {"train"}
    assert capsys.readouterr().out.startswith(f"wrote {len(trained)} copies of {len(trained)} images, and ")
    assert [len(rows), len(made)] == [6 + len(trained), len(trained)]
    assert {p.name for p in outdir.iterdir()} == {"images", "labels", "parts.csv"}
    for row in made:
        original = row["image"].removeprefix("images/").removesuffix("_1.png")
        assert any(original in t["image"] for t in trained)
        raw_CHW = read(folder / "images" / f"{original}.png")
        assert np.array_equal(read(outdir / row["image"]), raw_CHW[..., ::-1])
        mask_1HW = read(folder / "masks" / f"{original}_mask.png") == 255
        assert np.array_equal(read(outdir / row["mask"]), mask_1HW[..., ::-1])


def test_copies_are_a_data_set_with_the_same_parts(folder, tmp_path, capsys):
    """`tiler labels` counts what is validated and tested with as before, and more to train on."""
    assert augment(folder, tmp_path / "out", "--copies", 2, flip_vertical=1.0, flip_horizontal=0.0) == 0
    capsys.readouterr()
    told = ["--classes", ",".join(NAMES), "--coding", ">127"]
    shown = []
    for source in (folder, tmp_path / "out" / "parts.csv"):
        assert run_command(tiler, ["labels", str(source), *told]) == 0
        (line,) = [li for li in capsys.readouterr().out.splitlines() if li.startswith("building")]
        shown.append([int(n.replace(",", "")) for n in line.split()[1::2]])
    assert shown[1] == [3 * shown[0][0], *shown[0][1:]]


def test_the_same_seed_makes_the_same_files(folder, tmp_path):
    """And another copy, or another seed, others."""
    told = {"rotate": 20, "zoom": (0.8, 1.2), "noise": 0.1, "quarter_turns": 1.0, "brightness": 0.5}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert (
            augment(folder, tmp_path / name, "--copies", 2, "--val", 0.17, "--test", 0.17, seed=seed, **told)
            == 0
        )
    contents = [{p.name: p.read_bytes() for p in (tmp_path / n / "images").iterdir()} for n in "abc"]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert len(set(contents[0].values())) == len(contents[0])


def test_what_is_turned_keeps_its_sides_and_is_not_known_outside(folder, tmp_path):
    assert augment(folder, tmp_path / "out", flip_horizontal=0.0, rotate=45, preset="paper", elastic=0.0) == 0
    for path in (tmp_path / "out" / "labels").iterdir():
        labels_1HW = read(path)
        assert labels_1HW.shape in {(1, 40, 64), (1, 64, 40)}
        assert set(np.unique(labels_1HW)) == {0, 1, 255}
        assert read(path.parents[1] / "images" / path.name).shape[1:] == labels_1HW.shape[1:]


@pytest.mark.parametrize(("bands", "dtype"), [(4, np.uint8), (2, np.uint16), (5, np.float32), (1, np.int16)])
def test_any_bands_and_types_come_back(tmp_path, bands, dtype):
    """As GeoTIFF, with what light would make too much cut off."""
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    top = 60_000 if dtype == np.uint16 else 200
    for seed in range(4):
        raw_CHW = (rng.random((bands, 24, 24)) * top).astype(dtype)
        write(folder / f"{seed}.tif", raw_CHW, photometric="MINISBLACK", alpha="NO")
        write(folder / f"{seed}_mask.png", blocks(24, 24, seed)[1])
    more = {"coding": "index", "flip_horizontal": 0.0}
    assert augment(folder, tmp_path / "same", **more) == 0
    for path in (tmp_path / "same" / "images").iterdir():
        original_CHW = read(folder / f"{path.stem.removesuffix('_1')}.tif")
        assert read(path).dtype == dtype
        assert np.allclose(read(path), original_CHW, rtol=0, atol=1e-4 if dtype == np.float32 else 0)
    assert augment(folder, tmp_path / "bright", **{**more, "brightness": 9.0}) == 0
    assert any(
        (read(p) == 0).any() or read(p).max() > top for p in (tmp_path / "bright" / "images").iterdir()
    )
    assert (
        run_command(tiler, ["labels", str(tmp_path / "same" / "parts.csv"), "--classes", ",".join(NAMES)])
        == 0
    )


def test_light_changes_copies_as_it_does_samples(folder):
    """Of the mean and deviation of what is trained on."""
    told = DataOptions(NAMES, data=(str(folder),), coding=">127")
    library = Library(told.legend())
    split = split_data(told, library)
    found = survey(split, library, NAMES)
    changes = Augment(AugmentOptions(flip_horizontal=0, quarter_turns=0, contrast=0, band_brightness=0.0))
    raw_CHW, _ = Copier.of(library, found, changes, 3)(split.train[0], 1, 0)
    original_CHW = library.open(split.train[0].source).read(split.train[0].window)[0].raw_CHW
    added_CHW = (raw_CHW.astype(float) - original_CHW) / found.moments.deviation[:, None, None]
    assert added_CHW.std() < 0.02
    assert 0.01 < abs(added_CHW.mean()) < 0.25


def test_bad_usage_is_one_line(folder, tmp_path, capsys):
    told = ["--data", folder, "--classes", "background,building", "--coding", ">127"]
    refused(capsys, tiler, ["augment", folder, *told], "OUTDIR", "name another")
    refused(capsys, tiler, ["augment", ".", *told], "OUTDIR", "name another")
    refused(capsys, tiler, ["augment", tmp_path / "o", *told, "--copies", "0"], "copies")
    refused(capsys, tiler, ["augment", tmp_path / "o", *told, "--preset", "none"], "preset")
    refused(capsys, tiler, ["augment", tmp_path / "o", *told, "--bands", "1"], "--bands")
    refused(capsys, tiler, ["augment", tmp_path / "o", *told, "--independent"], "one class per pixel")
    refused(capsys, tiler, ["augment", tmp_path / "o", *told[:4]], "two classes", "255")
    grey = tmp_path / "grey"
    grey.mkdir()
    for seed in range(4):
        write(grey / f"{seed}.png", blocks(24, 24, seed)[0][:1])
        write(grey / f"{seed}_mask.png", blocks(24, 24, seed)[1])
    hued = ["--data", grey, *told[2:4], "--hue", "0.1"]
    refused(capsys, tiler, ["augment", tmp_path / "o", *hued], "three bands of uint8")
    twice = [*told, "--data", shifted(folder, tmp_path / "other")]
    refused(capsys, tiler, ["augment", tmp_path / "o", *twice], "named after their images", "rename")
    assert not list(tmp_path.glob("o*.partial"))
    assert not (tmp_path / "o").exists()


def shifted(folder, other):
    """The same names elsewhere."""
    shutil.copytree(folder, other)
    return other


def test_a_copy_that_cannot_be_written_leaves_no_data_set(folder, tmp_path, capsys, monkeypatch):
    outdir, written = tmp_path / "out", []

    def fails_at_the_third(raw_CHW):
        written.append(raw_CHW)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "no space left on device")
        return b""

    monkeypatch.setattr(module, "png", fails_at_the_third)
    assert augment(folder, outdir) == 1
    assert "no space left" in capsys.readouterr().err
    assert not outdir.exists()
    monkeypatch.undo()
    assert augment(folder, outdir) == 0
    assert not (tmp_path / "out.partial").exists()


def test_an_image_too_large_to_copy_is_named(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    assert augment(folder, tmp_path / "out") == 2
    assert "up to 1,000 pixels, got 2,560" in capsys.readouterr().err

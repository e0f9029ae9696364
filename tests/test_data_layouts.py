"""Folders as other systems lay them out, manifests, and how images are divided."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tiler.errors import InputError, UsageError
from tiler.geometry import Window
from train.data.item import Item
from train.data.labelled import Library
from train.data.layouts import READERS, detected, find_items
from train.data.manifest import read_manifest, write_manifest
from train.data.mistakes import look, warnings
from train.data.options import LAYOUTS, DataOptions
from train.data.split import divided, split_data
from train.data.target import IGNORE
from training_data import blocks, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TWO = ("background", "vessel")


def picture(path, seed=0, height=24, width=32):
    """An image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, blocks(height, width, seed)[0])


def drawing(path, seed=0, factor=1, height=24, width=32):
    """Its mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, blocks(height, width, seed)[1] * np.uint8(factor))


def gif(path, values_HW):
    """A picture of DRIVE's kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    png = write(path.with_suffix(".png"), values_HW[None].astype(np.uint8))
    from rasterio.shutil import copy

    copy(png, path, driver="GIF")
    png.unlink()
    return path


def drive(folder, test=True):
    """Three images to train on and two to test on; the region is the left three quarters."""
    region_HW = np.zeros((24, 32))
    region_HW[:, :24] = 255
    for half, numbers in (("training", (21, 22, 23)), ("test", (1, 2))):
        for number in numbers:
            name = f"{number:02}_{half}"
            picture(folder / half / "images" / f"{name}.tif", number)
            gif(folder / half / "mask" / f"{name}_mask.gif", region_HW)
            if test or half == "training":
                manual = folder / half / "1st_manual" / f"{number:02}_manual1.gif"
                gif(manual, blocks(24, 32, number)[1][0] * 255)
    return folder


def voc(folder, names=("a.b", "c_d", "e f")):
    """The first two to train on, the last to validate; names with dots, lines and spaces."""
    for seed, name in enumerate(names):
        picture(folder / "JPEGImages" / f"{name}.jpg", seed)
        drawing(folder / "SegmentationClass" / f"{name}.png", seed)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names[:2]) + "\n")
    (lists / "val.txt").write_text(names[2] + "\n")
    return folder


def options(*data, **told) -> DataOptions:
    """Of two classes unless told otherwise."""
    return DataOptions(**{"classes": TWO, "data": tuple(map(str, data)), **told})


def test_every_layout_can_be_asked_for():
    assert set(LAYOUTS) == {"auto", "classes", *READERS}


# --- DRIVE


def test_drive_is_joined_by_number_and_ignored_outside_its_region(tmp_path):
    """1 vessel, 0 background, 255 outside; the official test half is the test."""
    split = split_data(options(drive(tmp_path), val=0.3), library := Library(options("x").legend()))
    assert [len(part) for part in (split.train, split.val, split.test)] == [2, 1, 2]
    assert {p.source.image.parent.parent.name for p in split.test} == {"test"}
    assert {p.source.image.parent.parent.name for p in split.train + split.val} == {"training"}
    part = split.test[0]
    number = int(part.source.image.name[:2])
    _, target_HW = library.open(part.source).read(part.window)
    assert np.array_equal(target_HW[:, :24], blocks(24, 32, number)[1][0, :, :24])
    assert (target_HW[:, 24:] == IGNORE).all()


def test_a_drive_file_that_is_missing_is_named(tmp_path):
    drive(tmp_path)
    (tmp_path / "training" / "mask" / "22_training_mask.gif").unlink()
    with pytest.raises(InputError, match=r"of its number in mask, .*22_training\.tif has none"):
        find_items(tmp_path, "auto", TWO)


def test_drive_is_not_warned_of_values_that_it_knows(tmp_path):
    """Its 255 is a vessel, whatever the coding of other masks."""
    sources = [item.labels(None) for item in find_items(drive(tmp_path), "auto", TWO)]
    (found,) = look(sources)
    assert found.masks == 5
    assert not any("not known" in line for line in warnings(found, options("x").legend()))


def test_drive_without_labels_of_its_test_half_has_no_test(tmp_path):
    items = divided(find_items(drive(tmp_path, test=False), "auto", TWO), options("x", test=0.0))
    assert [item.part for item in items].count("test") == 0


# --- VOC


def test_voc_lists_are_the_parts(tmp_path):
    split = split_data(options(voc(tmp_path)), Library(options("x").legend()))
    assert [p.source.image.stem for p in split.all] == ["a.b", "c_d", "e f"]
    assert (len(split.train), len(split.val), len(split.test)) == (2, 1, 0)


def test_voc_mistakes_are_named(tmp_path):
    voc(tmp_path)
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("nobody\n")
    with pytest.raises(InputError, match=r"nobody of .* has none"):
        find_items(tmp_path, "auto", TWO)
    (lists / "val.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"lists of names, got .*val\.txt"):
        find_items(tmp_path, "auto", TWO)
    (lists / "val.txt").unlink()
    with pytest.raises(InputError, match="val"):
        find_items(tmp_path, "voc", TWO)


def test_real_voc_buildings(shared):
    items = find_items(shared / "labelled" / "voc_buildings", "auto", TWO)
    assert [sum(item.part == part for item in items) for part in ("train", "val", "test")] == [64, 15, 0]


# --- others


def test_dsb2018_folders_hold_an_image_and_its_objects(tmp_path):
    for seed in range(4):
        name = f"id{seed}"
        picture(tmp_path / name / "images" / f"{name}.png", seed)
        drawing(tmp_path / name / "masks" / "object1.png", seed, 255)
        drawing(tmp_path / name / "masks" / "object2.png", seed + 10, 255)
    library = Library(options("x").legend())
    split = split_data(options(tmp_path), library)
    assert len(split.all) == 4
    part = split.train[0]
    seed = int(part.source.image.stem[2:])
    merged_HW = np.maximum(blocks(24, 32, seed)[1][0], blocks(24, 32, seed + 10)[1][0])
    assert np.array_equal(library.open(part.source).read(part.window)[1], merged_HW)
    picture(tmp_path / "id0" / "images" / "second.png")
    with pytest.raises(InputError, match="one image, and masks, got 2"):
        find_items(tmp_path, "auto", TWO)


@pytest.mark.parametrize("names", [("0", "1"), ("cell", "wall")])
def test_a_folder_per_class(tmp_path, names):
    for seed in range(4):
        picture(tmp_path / "images" / f"{seed}.png", seed)
        drawing(tmp_path / "masks" / names[0] / f"{seed}.png", seed, 255)
    drawing(tmp_path / "masks" / names[1] / "0.png", height=24, width=32)
    write(tmp_path / "masks" / names[1] / "0.png", np.full((1, 24, 32), 255, np.uint8))
    told = options(tmp_path, classes=("cell", "wall"), independent=True)
    library = Library(told.legend())
    split = split_data(told, library)
    planes_KHW = {p.source.image.stem: library.open(p.source).read(p.window)[1] for p in split.all}
    assert [bool(planes_KHW[str(seed)][1].any()) for seed in range(4)] == [True, False, False, False]
    with pytest.raises(InputError, match="folders of masks are called as classes"):
        find_items(tmp_path, "auto", ("one", "two") if names[0] == "cell" else ("one",))
    drawing(tmp_path / "masks" / names[1] / "nobody.png")
    with pytest.raises(InputError, match=r"every mask has an image, .*nobody\.png"):
        find_items(tmp_path, "auto", ("cell", "wall"))


@pytest.mark.parametrize("mark", ["_mask", "_segmentation"])
def test_pairs_in_two_folders_or_in_one(tmp_path, mark):
    for seed in range(4):
        picture(tmp_path / "two" / "images" / f"tile.{seed}.png", seed)
        drawing(tmp_path / "two" / "labels" / f"tile.{seed}{mark}.png", seed)
        picture(tmp_path / "one" / f"tile_{seed}.png", seed)
        drawing(tmp_path / "one" / f"tile_{seed}{mark}.png", seed)
    for folder in ("two", "one"):
        items = find_items(tmp_path / folder, "auto", TWO)
        assert [item.image.stem for item in items] == [f"tile{'._'[folder == 'one']}{n}" for n in range(4)]
        assert all(item.mask.endswith(f"{item.image.stem}{mark}.png") for item in items)


def test_two_files_of_one_name_are_refused(tmp_path):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "a.jpg")
    drawing(tmp_path / "labels" / "a.png")
    with pytest.raises(InputError, match=r"stands for one file, got a\.jpg and a\.png"):
        find_items(tmp_path, "auto", TWO)


def test_a_mask_without_an_image_is_named(tmp_path):
    """Its image may have a suffix that is not read: it would be left out without a word."""
    for name in ("a", "b"):
        drawing(tmp_path / "labels" / f"{name}.png")
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match=r"every mask has an image, .*b\.png has none"):
        find_items(tmp_path, "auto", TWO)


def test_masks_may_be_called_as_isic_calls_them(tmp_path):
    for name in ("ISIC_0000000", "ISIC_0000001"):
        picture(tmp_path / f"{name}.jpg")
        drawing(tmp_path / f"{name}_segmentation.png")
    items = find_items(tmp_path, "auto", TWO)
    assert [item.mask.endswith(f"{item.image.stem}_segmentation.png") for item in items] == [True, True]


def test_a_class_may_be_called_as_labelme_calls_its_background(tmp_path):
    """Names that begin with a line were taken for hidden ones: the class would have been nowhere."""
    picture(tmp_path / "images" / "_1.png")
    for name in ("_background_", "cell"):
        drawing(tmp_path / "masks" / name / "_1.png", factor=255)
    told = options(tmp_path, classes=("_background_", "cell"), independent=True)
    (item,) = find_items(tmp_path, "auto", told.classes)
    assert all(path.is_file() for path in item.labels(None).paths(told.legend()))


def test_layouts_are_told_apart(tmp_path):
    voc(tmp_path / "v")
    drive(tmp_path / "d")
    picture(tmp_path / "o" / "id" / "images" / "i.png")
    drawing(tmp_path / "o" / "id" / "masks" / "i.png")
    drawing(tmp_path / "c" / "masks" / "0" / "i.png")
    drawing(tmp_path / "p" / "masks" / "i.png")
    assert [detected(tmp_path / name) for name in "vdocp"] == ["voc", "drive", "objects", "classes", "pairs"]


def test_what_is_no_data_set_is_refused(tmp_path):
    for path, word in ((tmp_path / "none", "is a folder"), (tmp_path, "every image has a mask")):
        with pytest.raises(InputError, match=word):
            find_items(path, "auto", TWO)
    with pytest.raises(UsageError, match="--layout is one of"):
        options(tmp_path, layout="coco")


# --- manifests and parts


def pairs(folder, count=10):
    """Images and masks in two folders."""
    for seed in range(count):
        picture(folder / "images" / f"{seed}.png", seed)
        drawing(folder / "labels" / f"{seed}.png", seed)
    return folder


def test_eight_one_one_by_seed_and_nothing_moved(tmp_path):
    pairs(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    parts = {}
    for seed in (0, 1):
        told = options(tmp_path, val=0.1, test=0.1, seed=seed)
        items = divided(find_items(tmp_path, "auto", TWO), told)
        parts[seed] = {item.image.stem: item.part for item in items}
        assert sorted(parts[seed].values()) == ["test"] + ["train"] * 8 + ["val"]
    assert parts[0] != parts[1]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_is_read_as_it_was_written_wherever_it_lies(tmp_path):
    """Also after the folder has moved: paths below it are relative."""
    told = options(pairs(tmp_path / "set"), val=0.2, test=0.2)
    items = divided(find_items(tmp_path / "set", "auto", TWO), told)
    write_manifest(tmp_path / "set" / "parts.csv", items)
    text = (tmp_path / "set" / "parts.csv").read_text()
    assert text.startswith("image,mask,part\n")
    assert str(tmp_path) not in text
    assert read_manifest(tmp_path / "set" / "parts.csv") == items
    shutil.move(tmp_path / "set", tmp_path / "moved")
    again = options(classes=TWO, manifest=str(tmp_path / "moved" / "parts.csv"))
    split = split_data(again, Library(again.legend()))
    assert [len(part) for part in (split.train, split.val, split.test)] == [6, 2, 2]
    assert [p.source.image.stem for p in split.train] == [i.image.stem for i in items if i.part == "train"]


def test_a_manifest_keeps_regions_and_codings(tmp_path):
    items = divided(find_items(drive(tmp_path / "drive"), "auto", TWO), options("x", val=0.3))
    write_manifest(tmp_path / "parts.csv", items)
    assert (tmp_path / "parts.csv").read_text().startswith("image,mask,part,region,coding\n")
    assert read_manifest(tmp_path / "parts.csv") == items


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("image,label\na,b\n", "columns of a manifest are"),
        ("image,mask,part\n", "got none"),
        ("image,mask,part\na.png,b.png,training\n", r"train, val, test, got 'training' .*line 2"),
        ("image,mask,part\na.png,,train\n", "an image and a mask"),
        ("image,mask,part\na.png,b.png\n", "an image and a mask"),
        ('image,mask,part\n"a.png,b.png,train\n', "is CSV"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, text, word):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=word):
        read_manifest(tmp_path / "m.csv")


def test_parts_that_are_told_are_not_drawn_from_the_rest():
    rows = [Item(f"{n}.png", "m", "test" if n < 2 else "") for n in range(10)]
    parts = [item.part for item in divided(rows, options("x", val=0.25, test=0.25))]
    assert (parts.count("test"), parts.count("val"), parts.count("train")) == (2, 2, 6)


def test_a_manifest_without_images_to_train_on_is_refused(tmp_path):
    item = Item(picture(tmp_path / "a.png"), str(drawing(tmp_path / "a_mask.png")), "val")
    write_manifest(tmp_path / "m.csv", [item])
    told = options(manifest=str(tmp_path / "m.csv"))
    with pytest.raises(InputError, match="got none for train"):
        split_data(told, Library(told.legend()))


def test_an_image_in_two_parts_is_refused(tmp_path):
    """It would be learnt from and tested on."""
    image, mask = picture(tmp_path / "a.png"), str(drawing(tmp_path / "a_mask.png"))
    write_manifest(tmp_path / "m.csv", [Item(image, mask, part) for part in ("train", "val", "test")])
    told = options(manifest=str(tmp_path / "m.csv"))
    with pytest.raises(InputError, match=r"a\.png in train and val"):
        split_data(told, Library(told.legend()))
    pair = options(pair=((str(image), mask),), val=0.25, test=0.25)
    assert len(split_data(pair, Library(pair.legend())).all) == 3  # its columns are apart


def test_a_label_file_that_is_not_there_is_named(tmp_path):
    item = Item(picture(tmp_path / "a.png"), str(tmp_path / "no.png"), "train")
    with pytest.raises(InputError, match=r"a\.png has none at .*no\.png"):
        item.labels(None)


def test_an_image_of_another_size_than_its_mask_is_refused(tmp_path):
    item = Item(picture(tmp_path / "a.png"), str(drawing(tmp_path / "a_mask.png", width=33)))
    library = Library(options("x").legend())
    with pytest.raises(InputError, match=r"32 x 24 px\), got 33 x 24 in .*a_mask\.png"):
        library.open(item.source(options("x").view(), None)).read(Window(0, 0, 1, 1))

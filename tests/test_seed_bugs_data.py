"""What went wrong with data in the systems that this one learns from, and does not here."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tiler.errors import InputError
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.pixels import Pixels, fill_invalid, fill_values, normalise
from tiler.resize import Resize
from tiler.spec import ModelSpec, default_classes
from train.data.augment import Augment
from train.data.balance import ClassMap
from train.data.crops import Crops, Keys
from train.data.image import View, open_image
from train.data.item import Item
from train.data.labelled import Library, Part
from train.data.layouts import find_items
from train.data.legend import Legend
from train.data.mistakes import look, warnings
from train.data.options import AugmentOptions, DataOptions
from train.data.split import divided, split_data
from train.data.survey import Moments, count, survey
from train.data.target import IGNORE
from training_data import blocks, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TWO = ("background", "crop")
SPEC = ModelSpec(bands=("r", "g", "b"), classes=default_classes(TWO), scale=(1 / 255,) * 3)


def pair(folder, values_HW, name="a"):
    """A noisy image and a mask with those values, in a folder."""
    values_HW = np.asarray(values_HW, np.uint8)
    noise_CHW = np.random.default_rng(0).integers(0, 256, (3, *values_HW.shape), np.uint8)
    return write(folder / f"{name}.png", noise_CHW), write(folder / f"{name}_mask.png", values_HW[None])


def opened(image, mask, legend=None, view=None, **more):
    """An image with its labels."""
    source = Item(image, str(mask), **more).source(view or View(), None)
    return Library(legend or Legend(TWO)).open(source)


def target(image, mask, legend=None, view=None, **more):
    """Of the whole image."""
    labelled = opened(image, mask, legend, view, **more)
    info = labelled.raster.info
    return labelled.read(Window(0, 0, info.height, info.width))[1]


def warned(path, legend) -> str:
    """What `tiler labels` says of a mask."""
    (found,) = look([Item(Path("image"), str(path)).labels(None)])
    return " ".join(warnings(found, legend))


def test_d2_5_splitting_moves_nothing_and_names_may_have_dots_and_underscores(tmp_path):
    """The split moved files, unseeded, and cut names at their first dot or underscore."""
    for i in range(4):
        pair(tmp_path, np.eye(8), f"field_{i}.v1")
    told = DataOptions(TWO, data=(str(tmp_path),))
    before = sorted(tmp_path.iterdir())
    first, again = (divided(find_items(tmp_path, "auto", TWO), told) for _ in range(2))
    assert first == again
    assert sorted(tmp_path.iterdir()) == before
    assert {Path(item.mask).name for item in first} == {f"field_{i}.v1_mask.png" for i in range(4)}


def test_d2_6_bands_come_in_the_order_of_the_file(tmp_path):
    """Images were read by OpenCV as blue, green, red, and fed as if red came first."""
    raw_CHW = np.array([250, 20, 10], np.uint8)[:, None, None] * np.ones((3, 4, 4), np.uint8)
    red = write(tmp_path / "red.png", raw_CHW)
    for view in (View(), View(bands=(1, 2, 3)), View(rgb=True)):
        assert np.array_equal(open_image(red, view).read(Window(0, 0, 4, 4)).raw_CHW, raw_CHW)
    asked = open_image(red, View(bands=(3, 2, 1))).read(Window(0, 0, 4, 4))
    assert np.array_equal(asked.raw_CHW, raw_CHW[::-1])


def test_d6_2_statistics_are_in_the_order_of_the_bands(tmp_path):
    """Blue, green, red were normalised by the means of red, green, blue."""
    raw_CHW = np.random.default_rng(0).integers(0, [[[200]], [[60]], [[20]]], (3, 16, 60)).astype(np.uint8)
    image, mask = write(tmp_path / "i.tif", raw_CHW), write(tmp_path / "m.tif", blocks(16, 60)[1])
    for bands in (None, (3, 2, 1)):
        told = DataOptions(TWO, pair=((str(image), str(mask)),), bands=bands, val=0.4, test=0)
        library = Library(told.legend())
        found = count(split_data(told, library), library)
        expected_C = raw_CHW[:, :, :36].mean(axis=(1, 2))
        assert np.allclose(found.moments.mean_C, expected_C if bands is None else expected_C[::-1])


def test_d2_7_a_255_is_what_it_is_said_to_be(tmp_path):
    """Labels of 0 and 255 were fed to a loss of two classes, which then failed on target 255."""
    image, mask = pair(tmp_path, [[0, 255]])
    assert target(image, mask).tolist() == [[0, IGNORE]]
    assert target(image, mask, Legend(TWO, "0=background,255=crop")).tolist() == [[0, 1]]
    assert "255 means not known" in warned(mask, Legend(TWO))


def test_d3_3_scaling_does_not_depend_on_content(tmp_path):
    """Pixels were divided by 255 only if one was above 1, so black tiles were scaled otherwise."""
    dark_CHW = np.ones((3, 8, 16), np.uint8)
    dark_CHW[:, :, 8:] = 200
    image = write(tmp_path / "i.png", dark_CHW)
    mask = write(tmp_path / "m.png", np.zeros((1, 8, 16), np.uint8))
    source = Item(image, str(mask)).source(View(), None)
    dark, both = (
        Crops((Part(source, Window(0, 0, 8, right)),), Library(Legend(TWO)), SPEC, 8 * right // 8, 0)[0, 0]
        for right in (8, 16)
    )
    assert dark.pixels_CHW[:, :8, :8].max() == both.pixels_CHW[:, :8, :8].min() == pytest.approx(1 / 255)


def test_d3_5_smoothed_masks_are_no_hundreds_of_classes(tmp_path):
    """Every value found in a mask became a class, and the loss asserted on the GPU."""
    values_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image, mask = pair(tmp_path, values_HW)
    with pytest.raises(InputError, match="0 to 1, or 255"):
        target(image, mask)
    assert "256 values: JPEG, smoothing or resizing" in warned(mask, Legend(TWO))
    assert "which are no classes" in warned(mask, Legend(TWO))
    assert np.array_equal(target(image, mask, Legend(TWO, ">127")), values_HW > 127)


def test_d3_5_colours_of_a_jpeg_mask_are_pointed_out(tmp_path):
    """As grey ones, colours multiplied."""
    drawn_CHW = np.random.default_rng(0).choice([0, 255], (3, 32, 32)).astype(np.uint8)
    mask = write(tmp_path / "m.jpg", drawn_CHW)
    said = warned(mask, Legend(TWO, "#000000=background,#ffffff=crop"))
    assert "JPEG changes values, 1 of 1 masks" in said
    assert "colours: JPEG" in said


@pytest.mark.parametrize(
    ("values", "word"),
    [([[0, 255]], "255 means not known"), ([[0, 0]], "hold 0 alone"), ([[0, 9]], "hold 9, which are no")],
)
def test_d3_8_what_ends_in_all_black_predictions_is_told_beforehand(tmp_path, values, word):
    """Masks that look right and hold other numbers, or none, were the commonest question."""
    assert word in warned(pair(tmp_path, values)[1], Legend(TWO))


def test_d3_8_a_mask_under_another_name_is_an_error(tmp_path):
    """A suffix that was not found was not looked for any further."""
    image, mask = pair(tmp_path, np.eye(4))
    mask.rename(tmp_path / "a_label.png")
    with pytest.raises(InputError, match="every image has a mask"):
        find_items(tmp_path, "auto", TWO)
    assert image.exists()


def test_d3_17_deviations_are_pooled():
    """The deviation was a mean of the images' own deviations: 1.00 where the pixels' is 5.1."""
    rng, moments, own = np.random.default_rng(0), Moments(1), []
    for centre in (0, 10):
        raw_CHW = rng.normal(centre, 1, (1, 100, 100))
        own.append(raw_CHW.std())
        moments.add(Pixels(raw_CHW, np.ones((100, 100), bool)))
    assert np.mean(own) == pytest.approx(1, abs=0.02)
    assert moments.deviation[0] == pytest.approx(math.sqrt(26), abs=0.02)


def test_d3_19_a_sample_shows_a_known_pixel_where_there_is_one(tmp_path):
    """A crop could lie where nothing is known, and the loss was NaN."""
    values_HW = np.full((200, 200), IGNORE)
    values_HW[10:13, 190:195] = np.eye(3, 5)
    image, mask = pair(tmp_path, values_HW)
    whole = Window(0, 0, 200, 200)
    part, library = Part(Item(image, str(mask)).source(View(), None), whole), Library(Legend(TWO))
    classes = ClassMap(64, 2)
    classes.begin(whole)
    classes.add(whole, whole, values_HW.astype(np.int64))
    crops = Crops((part,), library, SPEC, 32, 0, classes=classes)
    assert all((crops[0, i].target_HW != IGNORE).any() for i in range(60))


def test_d3_24_three_things_are_ignored_and_nothing_else(tmp_path):
    """Readers took 255 for a class, or the outside of the region for background."""
    values_HW = np.arange(16).reshape(4, 4) % 2
    values_HW[0, 0] = 255
    raw_CHW = np.full((3, 4, 4), 9, np.uint8)
    raw_CHW[:, 1, 1] = 0
    image = write(tmp_path / "i.tif", raw_CHW, nodata=0)
    mask = write(tmp_path / "m.png", values_HW[None].astype(np.uint8))
    region_HW = np.full((4, 4), 255, np.uint8)
    region_HW[2, 2] = 0
    region = write(tmp_path / "r.png", region_HW[None])
    ignored = np.argwhere(target(image, mask, region=region) == IGNORE).tolist()
    assert ignored == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (9, 9)])
def test_d4_1_a_mask_that_differs_in_one_side_is_noticed(tmp_path, size):
    """Sizes were compared by `and`, so a mask of another width alone was not."""
    image, _ = pair(tmp_path, np.eye(8))
    mask = write(tmp_path / "other.png", np.zeros((1, *size), np.uint8))
    with pytest.raises(InputError, match=rf"8 x 8 px\), got {size[1]} x {size[0]}"):
        target(image, mask)


def test_d4_5_letterbox_padding_is_never_a_class(tmp_path):
    """Canvases were padded with 0 before `<= 127.5 -> 1`, so all padding became foreground."""
    image, mask = pair(tmp_path, np.full((4, 8), 255))
    view = View(resize=Resize.parse("letterbox:8"))
    target_HW = target(image, mask, Legend(TWO, "<=127.5"), view)
    assert (target_HW[2:6] == 0).all()
    assert (target_HW[:2] == IGNORE).all()
    assert (target_HW[6:] == IGNORE).all()


def test_d4_5_padding_of_a_sample_is_never_a_class(tmp_path):
    """Nor is what a zoom or a turn brings in from outside."""
    image, mask = pair(tmp_path, np.zeros((8, 8)))
    part = Part(Item(image, str(mask)).source(View(), None), Window(0, 0, 8, 8))
    legend = Legend(TWO, "<=127.5")
    for told in (AugmentOptions(), AugmentOptions(zoom=(0.5, 0.5), rotate=10)):
        crops = Crops((part,), Library(legend), SPEC, 16, 0, augment=Augment(told))
        counts = Counter(crops[0, 0].target_HW.flatten().tolist())
        assert set(counts) == {1, IGNORE}
        assert counts[1] <= 64


def test_d4_6_labels_of_classes_that_are_none_are_refused(tmp_path):
    """`png[png >= K] = K` turned masks of 0 and 255 into background and nothing, without a word."""
    image, mask = pair(tmp_path, [[0, 1, 2, 200]])
    with pytest.raises(InputError, match=r"got 2 in .*a_mask\.png"):
        target(image, mask)


def test_d4_7_values_are_counted_on_a_numpy_of_today(tmp_path):
    """The histogram of labels used `np.int`, which is gone."""
    _, mask = pair(tmp_path, [[0, 1, 1, 255]])
    (found,) = look([Item(Path("i"), str(mask)).labels(None)])
    assert dict(found.pixels) == {0: 1, 1: 2, 255: 1}
    assert "0 25.00%, 1 50.00%, 255 25.00%" in found.line()


def test_d4_9_every_sample_of_every_epoch_and_worker_is_drawn_anew(tmp_path):
    """Workers were all seeded alike, in every epoch: they drew the same augmentation."""
    image, mask = pair(tmp_path, np.eye(64))
    part = Part(Item(image, str(mask)).source(View(), None), Window(0, 0, 64, 64))
    crops = Crops((part,), Library(Legend(TWO)), SPEC, 16, 0, augment=Augment())
    keys = [(epoch, i) for epoch in range(3) for i in range(8)]
    seen = {crops[key].pixels_CHW.numpy().tobytes() for key in keys}
    assert len(seen) == len(keys)
    shares = [list(Keys(8, batch=4, rank=rank, world=2)) for rank in range(2)]
    assert not set(shares[0]) & set(shares[1])


def test_d4_14_nothing_is_skipped_for_its_size(tmp_path):
    """Pairs of different size were skipped with a line on the screen."""
    pair(tmp_path, np.eye(8), "a")
    pair(tmp_path, np.eye(8), "b")
    write(tmp_path / "b_mask.png", np.zeros((1, 8, 9), np.uint8))
    told = DataOptions(TWO, data=(str(tmp_path),), test=0, val=0.5)
    library = Library(told.legend())
    with pytest.raises(InputError, match=r"got 9 x 8 in .*b_mask\.png"):
        survey(split_data(told, library), library, TWO)


def test_d5_2_other_values_than_0_and_255_are_not_swept_together(tmp_path):
    """`label != 255 -> 0` made background of all other classes."""
    image, mask = pair(tmp_path, [[0, 1, 2, 255]])
    names = ("background", "wheat", "maize")
    assert target(image, mask, Legend(names)).tolist() == [[0, 1, 2, IGNORE]]


def test_d5_3_small_images_are_not_padded_with_background(tmp_path):
    """Squares were filled up with 0 at the bottom and right, and learnt as class 0."""
    image, mask = pair(tmp_path, np.ones((5, 9)))
    part = Part(Item(image, str(mask)).source(View(), None), Window(0, 0, 5, 9))
    target_HW = Crops((part,), Library(Legend(TWO)), SPEC, 12, 0)[0, 0].target_HW.numpy()
    assert (target_HW[:5, :9] == 1).all()
    assert (target_HW == IGNORE).sum() == 144 - 45


def test_d5_5_palette_indices_are_read_as_they_are(shared):
    """Labels were pasted onto a palette image, which made other colours, and so classes, of them."""
    path = next((shared / "labelled" / "voc_buildings" / "SegmentationClass").glob("kampala*.png"))
    raster = open_raster(path)
    assert set(np.unique(raster.read(Window(0, 0, 512, 512)).raw_CHW)) <= {0, 1}


def test_d6_1_pixels_are_normalised_once(shared):
    """They were divided by 255 twice; over the training part they have mean 0 and deviation 1."""
    folder = shared / "labelled" / "voc_buildings"
    told = DataOptions(TWO, data=(str(folder),))
    library = Library(told.legend())
    split = split_data(told, library)
    few = type(split)(split.train[:6], split.val[:1], ())
    moments = survey(few, library, TWO).moments
    mean, std = (tuple(v / 255) for v in (moments.mean_C, moments.deviation))
    spec = ModelSpec(("r", "g", "b"), SPEC.classes, scale=(1 / 255,) * 3, mean=mean, std=std)
    fed = []
    for part in few.train:
        pixels, _ = library.open(part.source).read(part.window)
        fed.append(normalise(fill_invalid(pixels, fill_values(spec, np.uint8)), spec))
    assert np.abs(np.mean(fed, axis=(0, 2, 3))).max() < 1e-3
    assert np.abs(np.std(fed, axis=(0, 2, 3)) - 1).max() < 1e-3
    crops = Crops(few.train, library, spec, 512, 0)
    assert abs(crops[0, 0].pixels_CHW.mean()) < 1.5
    assert 0.2 < crops[0, 0].pixels_CHW.std() < 3


@pytest.mark.parametrize("view", [View(resize=Resize.parse(t)) for t in ("0.4", "stretch:7", "letterbox:30")])
def test_d6_6_masks_are_never_interpolated(tmp_path, view):
    """Masks were resized bilinearly, into values between the classes; D-7.7 likewise."""
    image, mask = pair(tmp_path, (np.indices((20, 20)).sum(axis=0) // 5 % 2) * 4)
    names = ("a", "b", "c", "d", "e")
    assert set(np.unique(target(image, mask, Legend(names), view))) <= {0, 4, IGNORE}


def test_d7_7_nor_are_they_by_augmentation(tmp_path):
    """Ground truth was resized bilinearly."""
    image, mask = pair(tmp_path, (np.indices((64, 64)).sum(axis=0) // 5 % 2) * 4)
    part = Part(Item(image, str(mask)).source(View(), None), Window(0, 0, 64, 64))
    told = AugmentOptions(zoom=(0.5, 2), aspect=0.3, rotate=10, elastic=10)
    crops = Crops((part,), Library(Legend(("a", "b", "c", "d", "e"))), SPEC, 32, 0, augment=Augment(told))
    assert {v for i in range(8) for v in crops[0, i].target_HW.unique().tolist()} <= {0, 4, IGNORE}


def test_d6_7_the_split_does_not_depend_on_the_order_of_a_folder(tmp_path, monkeypatch):
    """Images were split in the order in which the file system listed them."""
    for i in range(9):
        pair(tmp_path, np.eye(8), f"i{i}")
    told = DataOptions(TWO, data=(str(tmp_path),))
    here = divided(find_items(tmp_path, "auto", TWO), told)
    listed = sorted(tmp_path.iterdir(), reverse=True)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))
    assert divided(find_items(tmp_path, "auto", TWO), told) == here


def test_d6_9_an_absent_class_needs_no_file(tmp_path):
    """Every image needed an all-black file for every class that it did not show."""
    (tmp_path / "0").mkdir()
    image, mask = pair(tmp_path, np.eye(8) * 255)
    mask.rename(tmp_path / "0" / "a.png")
    planes_KHW = target(image, tmp_path / "{number}" / "a.png", Legend(TWO, independent=True))
    assert planes_KHW.sum(axis=(1, 2)).tolist() == [8, 0]


def test_d7_2_an_all_black_mask_is_all_background(tmp_path):
    """`GT == max(GT)` made an empty mask all foreground."""
    image, mask = pair(tmp_path, np.zeros((8, 8)))
    for coding in ("index", ">127", "instances", "0=background,255=crop"):
        assert not target(image, mask, Legend(TWO, coding)).any()


def test_blocks_are_not_all_alike():
    """The pictures that other tests learn from have something to learn."""
    assert 0 < blocks(64, 64)[1].mean() < 1

"""Weights of gaps and classes, balanced samples, resizing, and whole samples put together."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from tiler.errors import UsageError  # noqa: E402
from tiler.geometry import Window  # noqa: E402
from tiler.pixels import Pixels  # noqa: E402
from tiler.resize import Resize  # noqa: E402
from tiler.spec import ModelSpec, default_classes  # noqa: E402
from train.data.augment import Augment  # noqa: E402
from train.data.balance import MOST, ClassMap, cell_side  # noqa: E402
from train.data.crops import Crops  # noqa: E402
from train.data.gaps import Gaps  # noqa: E402
from train.data.image import View  # noqa: E402
from train.data.item import Item  # noqa: E402
from train.data.labelled import Library, Part  # noqa: E402
from train.data.legend import Legend  # noqa: E402
from train.data.options import AugmentOptions  # noqa: E402
from train.data.survey import Moments  # noqa: E402
from train.data.target import IGNORE  # noqa: E402
from train.data.weightmap import class_weights, gap_weights  # noqa: E402
from training_data import blocks, write, write_pair  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NAMES = ("background", "building")
SPEC = ModelSpec(bands=("r", "g", "b"), classes=default_classes(NAMES), scale=(1 / 255,) * 3)
WHOLE = Window(0, 0, 64, 200)


# --- gaps


@pytest.mark.parametrize(("gap", "expected"), [(2, 9.2312), (5, 6.0653), (10, 1.3534)])
def test_weight_midway_across_a_gap(gap, expected):
    """w0 = 10, sigma = 5: 10 exp(-g^2 / 50), midway and anywhere across."""
    objects_HW = np.zeros((21, 40), int)
    objects_HW[:, 5:15], objects_HW[:, 15 + gap : 30] = 7, 300
    weight_HW = gap_weights(objects_HW, Gaps(10, 5))
    assert np.allclose(weight_HW[10, 15 : 15 + gap], expected, atol=5e-5)
    assert not weight_HW[objects_HW > 0].any()


def test_weights_equal_those_of_whole_distance_maps():
    """Each object's distance over the whole image, sorted: what the paper's formula says, done slowly."""
    rng = np.random.default_rng(0)
    objects_HW = np.zeros((90, 110), int)
    for number in range(1, 15):
        top, left = rng.integers(0, 80), rng.integers(0, 100)
        objects_HW[top : top + 8, left : left + 10] = number
    rows_HW, columns_HW = np.mgrid[:90, :110]
    distances = []
    for number in np.unique(objects_HW[objects_HW > 0]):
        at_N2 = np.argwhere(objects_HW == number)
        away_HWN = np.hypot(rows_HW[..., None] - at_N2[:, 0], columns_HW[..., None] - at_N2[:, 1])
        distances.append(away_HWN.min(axis=-1) - 0.5)
    first_HW, second_HW = np.sort(distances, axis=0)[:2]
    expected_HW = np.where(objects_HW == 0, 10 * np.exp(-((first_HW + second_HW) ** 2) / 50), 0)
    assert np.abs(gap_weights(objects_HW, Gaps(10, 5)) - expected_HW).max() < 4e-5


def test_one_object_alone_has_no_gaps():
    objects_HW = np.zeros((9, 9), int)
    objects_HW[3:6, 3:6] = 1
    assert not gap_weights(objects_HW, Gaps(10, 5)).any()
    assert not gap_weights(objects_HW * 0, Gaps(10, 5)).any()


def source_of(image, mask, view=None):
    """An image and its mask."""
    return Item(image, str(mask)).source(view or View(), None)


def test_weights_do_not_depend_on_where_they_are_read(tmp_path):
    """Blocks of the cache, with what lies around them, equal the whole image at once."""
    rng = np.random.default_rng(0)
    ids_HW = np.zeros((600, 700), np.uint16)
    for number in range(1, 250):
        top, left = rng.integers(0, 590), rng.integers(0, 690)
        ids_HW[top : top + 12, left : left + 12] = number
    image = write(tmp_path / "i.png", rng.integers(0, 256, (3, 600, 700), np.uint8))
    mask = write(tmp_path / "m.tif", ids_HW[None])
    library = Library(Legend(NAMES, "instances"), Gaps(10, 5))
    labelled = library.open(source_of(image, mask))
    window = Window(480, 470, 560, 580)
    expected_HW = gap_weights(ids_HW.astype(int), Gaps(10, 5))[window.slices]
    assert np.abs(labelled.gaps.read(window).raw_CHW[0] - expected_HW).max() < 4e-5
    assert expected_HW.max() > 1


def test_objects_of_class_masks_are_what_is_connected(tmp_path):
    image, mask = write_pair(tmp_path)
    weight_HW = Library(Legend(NAMES), Gaps(10, 5)).open(source_of(image, mask)).gaps.read(WHOLE).raw_CHW[0]
    mask_HW = blocks(64, 200)[1][0]
    assert weight_HW[mask_HW == 0].max() == pytest.approx(10 * math.exp(-(8**2) / 50), rel=1e-4)


def test_real_nuclei_that_touch_weigh_more_between_them(shared):
    folder = shared / "labelled" / "dsb2018_sample"
    library = Library(Legend(("background", "nucleus"), "instances"), Gaps(10, 5))
    labelled = library.open(source_of(folder / "img2d.tif", folder / "mask2d.tif"))
    window = Window(0, 0, 512, 512)
    weight_HW, target_HW = labelled.gaps.read(window).raw_CHW[0], labelled.read(window)[1]
    assert not weight_HW[target_HW == 1].any()
    assert 8 < weight_HW.max() <= 10
    assert 0.01 < (weight_HW > 1).mean() < 0.2


@pytest.mark.parametrize(("border", "sigma", "word"), [(-1, 5, "--border-weight"), (10, 0, "--border-sigma")])
def test_gaps_that_break_a_rule(border, sigma, word):
    with pytest.raises(UsageError, match=word):
        Gaps(border, sigma)


def test_weights_of_classes_make_them_count_alike():
    pixels_K = np.array([900, 90, 0, 10])
    weights = np.array(class_weights(pixels_K))
    assert np.allclose((weights * pixels_K)[[0, 1, 3]], 1000 / 3)
    assert weights[2] == 1


# --- samples


def crops_of(pair, side=32, library=None, **told):
    """Of the whole pair."""
    library = library or Library(Legend(NAMES))
    return Crops((Part(source_of(*pair), WHOLE),), library, SPEC, side, 0, **told)


def test_a_sample_is_a_function_of_its_key_whatever_came_before(tmp_path):
    """With everything switched on."""
    told = AugmentOptions(
        zoom=(0.5, 1.5), aspect=0.3, rotate=10, shift=0.1, elastic=4, hue=0.1, saturation=0.5, value=0.3,
        noise=0.1, shuffle_bands=0.5, band_contrast=0.1,
    )  # fmt: skip
    pair = write_pair(tmp_path)

    def make():
        library = Library(Legend(NAMES), Gaps())
        return crops_of(pair, library=library, augment=Augment(told), class_weights=(1.0, 3.0))

    torch.manual_seed(1)
    crops = make()
    forward = {key: crops[key] for key in [(0, 1), (0, 2), (3, 1)]}
    torch.manual_seed(2)
    crops = make()
    for key in reversed(forward):
        assert all(torch.equal(a, b) for a, b in zip(forward[key], crops[key], strict=True))
    shapes = [tuple(plane.shape) for plane in crops[0, 1]]
    assert shapes == [(3, 32, 32), (32, 32), (32, 32)]
    assert [plane.dtype for plane in crops[0, 1]] == [torch.float32, torch.int64, torch.float32]
    assert not torch.equal(forward[0, 1].pixels_CHW, forward[0, 2].pixels_CHW)


def test_weights_travel_with_the_pixels(tmp_path):
    """Flipped, turned and padded as the target is: classes are recognised by their weight."""
    crops = crops_of(write_pair(tmp_path), side=96, augment=Augment(), class_weights=(1.0, 3.0))
    for i in range(5):
        _, target_HW, weight_HW = crops[0, i]
        expected_HW = torch.where(target_HW == 1, 3.0, torch.where(target_HW == IGNORE, 0.0, 1.0))
        assert torch.equal(weight_HW, expected_HW)
        assert (target_HW == IGNORE).sum() == 32 * 96


def test_independent_classes_have_a_plane_each(tmp_path):
    library = Library(Legend(NAMES, independent=True))
    crops = crops_of(write_pair(tmp_path), library=library, augment=Augment(AugmentOptions(rotate=10)))
    _, target_KHW, weight_HW = crops[0, 0]
    assert target_KHW.shape == (2, 32, 32)
    known = target_KHW[0] != IGNORE
    assert (target_KHW[:, known].sum(dim=0) == 1).all()
    assert weight_HW.tolist() == [[1.0]]
    with pytest.raises(UsageError, match="--independent"):
        crops_of(write_pair(tmp_path), library=library, class_weights=(1.0, 2.0))
    with pytest.raises(UsageError, match="--independent"):
        crops_of(write_pair(tmp_path), library=Library(Legend(NAMES, independent=True), Gaps()))


def test_colours_change_on_bytes_of_three_bands_alone(tmp_path):
    grey = write(tmp_path / "grey.tif", blocks(64, 200)[0][:1]), write_pair(tmp_path)[1]
    with pytest.raises(UsageError, match="three bands of uint8, got 1 of uint8; give 0"):
        crops_of(grey, augment=Augment(AugmentOptions(hue=0.1)))


def test_invalid_pixels_are_filled_as_when_segmenting(tmp_path):
    raw_CHW, mask_1HW = blocks(64, 200)
    raw_CHW[:, 10:30] = 0
    image = write(tmp_path / "r.tif", raw_CHW, nodata=0)
    mask = write(tmp_path / "m.tif", mask_1HW)
    spec = ModelSpec(bands=("r", "g", "b"), classes=default_classes(NAMES), mean=(50.0,) * 3, std=(20.0,) * 3)
    crops = Crops((Part(source_of(image, mask), WHOLE),), Library(Legend(NAMES)), spec, 64, 0)
    pixels_CHW, target_HW, _ = crops[0, 0]
    assert not pixels_CHW[:, 10:30].any(), "the mean, which is 0 when normalised"
    assert (target_HW[10:30] == IGNORE).all()


# --- balance


def map_of(target_HW, side, classes=3, pieces=2):
    """Of a part that comes in pieces."""
    part = Window(5, 7, 5 + target_HW.shape[0], 7 + target_HW.shape[1])
    found = ClassMap(side, classes)
    found.begin(part)
    for rows in np.array_split(np.arange(target_HW.shape[0]), pieces):
        window = Window(5 + int(rows[0]), 7, 6 + int(rows[-1]), part.right)
        found.add(part, window, target_HW[rows])
    return found


def test_a_map_counts_every_labelled_pixel_in_its_cell():
    target_HW = np.random.default_rng(0).choice([0, 1, 2, IGNORE], (50, 70))
    found = map_of(target_HW, 16)
    assert found.pixels.tolist() == [(target_HW == k).sum() for k in range(3)]
    cells = found.counts[0].reshape(4, 5, 3)
    assert cells[3, 4].tolist() == [(target_HW[48:, 64:] == k).sum() for k in range(3)]
    assert cells[1, 2].tolist() == [(target_HW[16:32, 32:48] == k).sum() for k in range(3)]


def test_cells_grow_where_memory_would():
    for area, classes in ((10**6, 2), (10**10, 2), (10**12, 255)):
        side = cell_side([area], classes)
        assert area / side**2 * classes <= MOST
    assert cell_side([10**6], 2) == 64


def rare(tmp_path):
    """A mask with 9 pixels of a second class in 64 x 200, and 4 of a third."""
    mask_HW = np.zeros((64, 200), np.uint8)
    mask_HW[40:43, 150:153], mask_HW[2:4, 4:6] = 1, 2
    image = write(tmp_path / "r.png", blocks(64, 200)[0])
    mask = write(tmp_path / "m.png", mask_HW[None])
    return Part(source_of(image, mask), WHOLE), mask_HW


def test_classes_are_drawn_evenly_and_their_pixels_too(tmp_path):
    part, mask_HW = rare(tmp_path)
    library, found = Library(Legend((*NAMES, "tree", "absent"))), ClassMap(64, 4)
    found.begin(WHOLE)
    found.add(WHOLE, WHOLE, mask_HW.astype(np.int64))
    rng = np.random.default_rng(0)
    drawn = [found.draw_class((part,), library, rng)[1] for _ in range(600)]
    classes, counts = np.unique([mask_HW[at] for at in drawn], return_counts=True)
    assert classes.tolist() == [0, 1, 2]
    assert counts.min() > 150
    assert len({at for at in drawn if mask_HW[at] == 1}) == 9
    known = [mask_HW[found.draw_known((part,), library, rng)[1]] for _ in range(300)]
    assert np.mean(known) < 0.02, "any pixel, so hardly ever one of the rare ones"


def test_balanced_samples_show_the_rare_class(tmp_path):
    part, mask_HW = rare(tmp_path)
    library, found = Library(Legend((*NAMES, "tree"))), ClassMap(64, 3)
    found.begin(WHOLE)
    found.add(WHOLE, WHOLE, mask_HW.astype(np.int64))
    shown = {}
    for balance in (0.0, 1.0):
        crops = Crops((part,), library, SPEC, 16, 0, balance=balance, classes=found)
        shown[balance] = np.mean([bool((crops[0, i].target_HW == 1).any()) for i in range(90)])
    assert shown[0.0] < 0.15
    assert shown[1.0] > 0.25
    with pytest.raises(UsageError, match="where the classes are"):
        Crops((part,), library, SPEC, 16, 0, balance=0.5)


# --- resizing


@pytest.mark.parametrize(
    ("how", "before", "after", "inner"),
    [
        ("0.5", (1280, 1918), (640, 959), Window(0, 0, 640, 959)),  # Carvana
        ("stretch:96", (584, 565), (96, 96), Window(0, 0, 96, 96)),
        ("stretch:640x480", (584, 565), (480, 640), Window(0, 0, 480, 640)),
        ("letterbox:512", (584, 565), (512, 512), Window(0, 8, 512, 503)),
        ("letterbox:512", (100, 1000), (512, 512), Window(230, 0, 281, 512)),
    ],
)
def test_where_a_picture_goes(how, before, after, inner):
    place = Resize.parse(how).place(*before)
    assert (place.after, place.inner) == (after, inner)


def test_drive_and_carvana_sizes():
    """DRIVE is 565 x 584, halved 282 x 292 and so on; 0.5 to 1.2 times 565 is 282 to 678."""
    half, sizes = Resize.parse("0.5"), [(584, 565)]
    for _ in range(4):
        sizes.append(half.place(*sizes[-1]).after)
    assert sizes == [(584, 565), (292, 282), (146, 141), (73, 70), (36, 35)]
    assert [Resize.parse(how).place(584, 565).after[1] for how in ("0.5", "1.2")] == [282, 678]
    assert half.place(1280, 1918).after[1] % 16 == 15


@pytest.mark.parametrize(
    "text", ["letterbox:0", "letterbox", "stretch:5x", "0", "-1", "half", "letterbox:8x0"]
)
def test_resizing_that_is_none(text):
    with pytest.raises(UsageError, match="--resize is"):
        Resize.parse(text)


def test_a_letterbox_is_not_known_outside_and_comes_back(tmp_path):
    """Pixels of the bars are not valid, their labels ignored, and labels come back to where they were."""
    image, mask = write_pair(tmp_path, crs=None)
    view = View(resize=Resize.parse("letterbox:400"))
    library = Library(Legend(NAMES))
    source = source_of(image, mask, view)
    info = library.info(source)
    assert (info.height, info.width) == (400, 400)
    pixels, target_HW = library.open(source).read(Window(0, 0, 400, 400))
    place = view.resize.place(64, 200)
    assert place.inner == Window(136, 0, 264, 400)
    inside_HW = np.zeros((400, 400), bool)
    inside_HW[place.inner.slices] = True
    assert np.array_equal(pixels.valid_HW, inside_HW)
    assert np.array_equal(target_HW == IGNORE, ~inside_HW)
    assert np.array_equal(target_HW[np.ix_(*place.under())], blocks(64, 200)[1][0])


def test_resized_pixels_are_averages(tmp_path):
    image, mask = write_pair(tmp_path, crs=None)
    labelled = Library(Legend(NAMES)).open(source_of(image, mask, View(resize=Resize.parse("0.5"))))
    pixels, target_HW = labelled.read(Window(0, 0, 32, 100))
    quads_CHW = blocks(64, 200)[0].reshape(3, 32, 2, 100, 2).mean(axis=(2, 4))
    assert np.abs(pixels.raw_CHW - quads_CHW).max() <= 0.5
    assert set(np.unique(target_HW)) == {0, 1}


# --- moments


def test_the_deviation_is_pooled_over_pixels():
    """Two images N(0, 1) and N(10, 1): the mean of their deviations is 1, that of their pixels 5.1."""
    rng, moments = np.random.default_rng(0), Moments(1)
    for centre in (0, 10):
        raw_CHW = rng.normal(centre, 1, (1, 200, 200))
        moments.add(Pixels(raw_CHW, np.ones((200, 200), bool)))
    assert moments.deviation[0] == pytest.approx(math.sqrt(1 + 25), rel=0.01)
    assert round(float(moments.deviation[0]), 1) == 5.1


def test_moments_leave_out_what_is_outside_the_region():
    raw_CHW = np.arange(12.0).reshape(1, 3, 4)
    inside_HW = raw_CHW[0] < 6
    moments = Moments(1)
    moments.add(Pixels(raw_CHW, np.ones((3, 4), bool)), inside_HW)
    assert (moments.count, moments.mean_C[0]) == (6, 2.5)

"""From files to targets: splitting, the survey, crops, the cache, and evaluation on every pixel."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiler.errors import InputError, UsageError  # noqa: E402
from tiler.geometry import Window  # noqa: E402
from tiler.metrics import Confusion  # noqa: E402
from tiler.open import open_raster  # noqa: E402
from tiler.spec import ModelSpec, default_classes  # noqa: E402
from train.data.cache import BlockCache, CachedRaster  # noqa: E402
from train.data.crops import Crops, Keys, crop_loader  # noqa: E402
from train.data.labelled import Library, Part, Source  # noqa: E402
from train.data.legend import Legend  # noqa: E402
from train.data.maskfile import MaskFile  # noqa: E402
from train.data.options import DataOptions  # noqa: E402
from train.data.split import split_data  # noqa: E402
from train.data.square import square_at  # noqa: E402
from train.data.survey import Moments, survey  # noqa: E402
from train.data.target import IGNORE  # noqa: E402
from train.evaluate import TILE, evaluate, part_axis  # noqa: E402
from train.material import data_summary  # noqa: E402
from train.models.options import UNetOptions  # noqa: E402
from train.models.unet import UNet  # noqa: E402
from train.options import TrainOptions  # noqa: E402
from training_data import PLACE, blocks, write, write_pair  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NAMES = ("background", "building")


def new_library(*names) -> Library:
    """Of those classes; background and building unless told otherwise."""
    return Library(Legend(names or NAMES))


def options(**told) -> DataOptions:
    """Of two classes unless told otherwise."""
    return DataOptions(**{"classes": NAMES, **told})


@pytest.fixture
def pair(tmp_path):
    """Raster and mask as ``--pair`` takes them."""
    return tuple(map(str, write_pair(tmp_path)))


WHOLE = Window(0, 0, 64, 200)


def part_of(pair, window=WHOLE) -> Part:
    """A rectangle of the pair."""
    return Part(Source(Path(pair[0]), MaskFile(Path(pair[1]))), window)


# --- split


def test_a_pair_is_cut_by_columns_left_to_right(pair):
    split = split_data(options(pair=(pair,), val=0.15, test=0.25), new_library())
    assert [p.window for p in split.all] == [
        Window(0, 0, 64, 120),
        Window(0, 120, 64, 150),
        Window(0, 150, 64, 200),
    ]


def test_without_a_test_part_the_rest_is_validation(pair):
    split = split_data(options(pair=(pair,), val=0.2, test=0), new_library())
    assert [p.window.right for p in split.all] == [160, 200]
    assert split.test == ()


@pytest.fixture
def folders(tmp_path):
    """Ten images and masks; half of the masks are called NAME_mask."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for i in range(10):
        raw_CHW, mask_1HW = blocks(40 + i, 48, seed=i)
        write(images / f"chip{i}.png", raw_CHW)
        write(masks / f"chip{i}{'_mask' * (i % 2)}.png", mask_1HW)
    return {"images": str(images), "masks": str(masks)}


def test_a_folder_is_split_by_whole_images(folders):
    split = split_data(options(**folders, val=0.2, test=0.3), new_library())
    assert [len(part) for part in (split.train, split.val, split.test)] == [5, 2, 3]
    assert len({p.source.image for p in split.all}) == 10
    assert all(p.source.labels.path.stem.removesuffix("_mask") == p.source.image.stem for p in split.all)
    assert {p.window.height for p in split.all} == set(range(40, 50))


def test_the_shuffle_is_the_seeds(folders):
    def order(seed):
        return [p.source.image.name for p in split_data(options(**folders, seed=seed), new_library()).all]

    assert order(0) == order(0)
    assert order(0) != order(1)


def test_an_image_without_a_mask_is_named(folders, tmp_path):
    (tmp_path / "masks" / "chip4.png").unlink()
    with pytest.raises(InputError, match=r"chip4\.png"):
        split_data(options(**folders), new_library())


def test_rasters_that_differ_are_refused(tmp_path, pair):
    raw_CHW, mask_1HW = blocks(64, 64)
    other = write(tmp_path / "two.tif", raw_CHW[:2]), write(tmp_path / "two_mask.tif", mask_1HW)
    with pytest.raises(InputError, match=r"same bands and type, got 3 of uint8 .* and 2 of uint8"):
        split_data(options(pair=(pair, tuple(map(str, other)))), new_library())


def test_rasters_of_different_resolution_are_refused_unless_told_one(tmp_path, pair):
    raw_CHW, mask_1HW = blocks(64, 200)
    coarse = {**PLACE, "transform": PLACE["transform"] @ PLACE["transform"].scale(2)}
    other = write(tmp_path / "c.tif", raw_CHW, **coarse), write(tmp_path / "c_mask.tif", mask_1HW, **coarse)
    pairs = pair, tuple(map(str, other))
    with pytest.raises(InputError, match="same ground resolution"):
        split_data(options(pair=pairs), new_library())
    assert len(split_data(options(pair=pairs, resolution=1.0), new_library()).all) == 6


def test_a_raster_too_narrow_to_cut_is_refused(tmp_path):
    pair = tuple(map(str, write_pair(tmp_path, width=2)))
    with pytest.raises(InputError, match="wide enough"):
        split_data(options(pair=(pair,)), new_library())


# --- labels and targets


def test_an_unknown_value_is_named_with_its_file(tmp_path, pair):
    raw_CHW, mask_1HW = blocks(64, 200)
    mask_1HW[0, 60, 190] = 7
    write(tmp_path / "mask.tif", mask_1HW, **PLACE)
    library = new_library()
    split = split_data(options(pair=(pair,)), library)
    with pytest.raises(InputError, match=r"0 to 1, or 255 .*got 7 in .*mask\.tif"):
        survey(split, library, NAMES)
    assert raw_CHW.any()


def test_nodata_of_either_is_ignored(tmp_path):
    raw_CHW, mask_1HW = blocks(64, 200)
    raw_CHW[:, 0, :3] = 0
    mask_1HW[0, 1, :4] = 255
    mask_1HW[0, 2, :5] = 9
    source = Source(
        write(tmp_path / "r.tif", raw_CHW, **PLACE, nodata=0),
        MaskFile(write(tmp_path / "m.tif", mask_1HW, **PLACE, nodata=9)),
    )
    pixels, target_HW = new_library().open(source).read(Window(0, 0, 64, 200))
    ignored_HW = np.zeros((64, 200), bool)
    ignored_HW[0, :3], ignored_HW[1, :4], ignored_HW[2, :5] = True, True, True
    assert np.array_equal(target_HW == IGNORE, ignored_HW)
    assert (~pixels.valid_HW).sum() == 3


def test_a_single_class_is_refused(tmp_path):
    """Such as a mask whose nodata is 0, so that there is no background."""
    raster, mask = write_pair(tmp_path)
    write(mask, blocks(64, 200)[1], **PLACE, nodata=0)
    library = new_library()
    with pytest.raises(InputError, match=r"two classes or more .* got building"):
        survey(split_data(options(pair=((str(raster), str(mask)),)), library), library, NAMES)


def test_a_class_that_happens_not_to_occur_is_pointed_out(pair):
    """Class numbers may be given by others; a scene need not have all."""
    library, told = new_library(*NAMES, "lake"), options(pair=(pair,), classes=(*NAMES, "lake"))
    split = split_data(told, library)
    found = survey(split, library, told.classes)
    assert found.pixels["train"][2] == 0
    assert "no pixel of 'lake'" in data_summary(split, found, told)


def test_classes_that_overlap_are_shares_of_all_pixels(pair):
    """Not of the sum of classes, which says nothing where a pixel may be of several, or of none."""
    told = options(pair=(pair,), independent=True)
    library = Library(told.legend())
    split = split_data(told, library)
    found = survey(split, library, told.classes)
    share = blocks(64, 200)[1][0, :, :120].mean()
    (line,) = (s for s in data_summary(split, found, told).splitlines() if s.startswith("train"))
    assert line.endswith(f"Mpx: background {1 - share:.1%}, building {share:.1%}")


def test_a_part_without_labels_is_refused(tmp_path):
    raster, mask = write_pair(tmp_path)
    _, mask_1HW = blocks(64, 200)
    mask_1HW[..., 150:] = 255
    write(mask, mask_1HW, **PLACE)
    library = new_library()
    split = split_data(options(pair=((str(raster), str(mask)),)), library)
    with pytest.raises(InputError, match="test part has labelled pixels"):
        survey(split, library, NAMES)


def test_a_constant_band_is_refused(tmp_path):
    raw_CHW, mask_1HW = blocks(64, 200)
    raw_CHW[1] = 5
    pair = str(write(tmp_path / "r.tif", raw_CHW)), str(write(tmp_path / "m.tif", mask_1HW))
    library = new_library()
    with pytest.raises(InputError, match="band 2 is constant"):
        survey(split_data(options(pair=(pair,)), library), library, NAMES)


# --- survey


def test_moments_are_those_of_the_valid_pixels_of_the_training_part(tmp_path):
    raw_CHW, mask_1HW = blocks(64, 200)
    raw_CHW[:, 3:9, 5:50] = 0
    pair = str(write(tmp_path / "r.tif", raw_CHW, nodata=0)), str(write(tmp_path / "m.tif", mask_1HW))
    library = new_library()
    found = survey(split_data(options(pair=(pair,)), library), library, NAMES)
    train_CHW = raw_CHW[:, :, :120].astype(np.float64)
    values_CN = train_CHW[:, (train_CHW != 0).any(axis=0)]
    assert np.allclose(found.moments.mean_C, values_CN.mean(axis=1), rtol=1e-12)
    assert np.allclose(found.moments.deviation, values_CN.std(axis=1), rtol=1e-12)
    assert found.pixels["test"].tolist() == np.bincount(mask_1HW[0, :, 150:].ravel()).tolist()


def test_moments_of_large_values_keep_their_digits(pair):
    """Sums of squares would lose a deviation of 1 around ten million."""
    rng = np.random.default_rng(0)
    values_CHW = rng.normal(1e7, 1, (1, 50, 60))
    moments = Moments(1)
    for raw_CHW in np.split(values_CHW, 5, axis=1):
        pixels = open_raster(pair[0]).read(Window(0, 0, *raw_CHW.shape[1:]))
        moments.add(type(pixels)(raw_CHW, np.ones(raw_CHW.shape[1:], bool)))
    assert np.allclose(moments.deviation, values_CHW.std(), rtol=1e-9)


# --- cache


def test_a_cached_raster_reads_the_same_and_stays_in_its_limit(tmp_path):
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(0, 256, (2, 1100, 1300), np.uint8)
    raster = open_raster(write(tmp_path / "r.tif", raw_CHW, nodata=0))
    cache = BlockCache(limit=2 * 512 * 512 * 3)
    cached = CachedRaster(raster, cache, "r")
    for _ in range(20):
        top, left = rng.integers(0, 1000), rng.integers(0, 1200)
        window = Window(
            int(top), int(left), int(rng.integers(top + 1, 1101)), int(rng.integers(left + 1, 1301))
        )
        got, expected = cached.read(window), raster.read(window)
        assert np.array_equal(got.raw_CHW, expected.raw_CHW)
        assert np.array_equal(got.valid_HW, expected.valid_HW)
        assert cache.used <= cache.limit
        assert cache.used == sum(p.raw_CHW.nbytes + p.valid_HW.nbytes for p in cache.blocks.values())


# --- crops

SPEC = ModelSpec(
    bands=("r", "g", "b"),
    classes=default_classes(NAMES),
    scale=(1 / 255,) * 3,
    mean=(0.3,) * 3,
    std=(0.2,) * 3,
    stride=4,
    halo=24,
    exact=True,
)


def middle_of(i):
    """What sample ``i`` of epoch 0 is about: a pixel of the whole."""
    rng = np.random.default_rng([0, 0, i])
    rng.integers(WHOLE.area)  # chooses among the parts, of which there is one
    return rng.integers((0, 0), WHOLE.shape).tolist()


def test_a_crop_is_what_lies_there(pair):
    """Normalised pixels and target of one and the same window."""
    crops = Crops((part_of(pair),), new_library(), SPEC, 32, seed=0)
    raw_CHW, mask_1HW = blocks(64, 200)
    for i in range(10):
        pixels_CHW, target_HW, weight_HW = (t.numpy() for t in crops[0, i])
        window = square_at(WHOLE, 32, middle_of(i))
        assert weight_HW.tolist() == [[1]]
        assert np.array_equal(target_HW, mask_1HW[0][window.slices])
        expected_CHW = (raw_CHW[:, *window.slices] / 255 - 0.3) / 0.2
        assert np.allclose(pixels_CHW, expected_CHW, atol=1e-5)


def test_crops_stay_inside_their_part_and_show_all_of_it():
    inside = Window(10, 20, 74, 120)
    rng = np.random.default_rng(0)
    middles = rng.integers((10, 20), (74, 120), (300, 2)).tolist()
    windows = [square_at(inside, 32, middle) for middle in middles]
    assert all(inside.contains(w) and w.shape == (32, 32) for w in windows)
    for corner in (Window(10, 20, 11, 21), Window(73, 119, 74, 120), Window(10, 119, 11, 120)):
        assert sum(w.contains(corner) for w in windows) >= 5, (
            "as corners are seen with a random origin: hardly ever"
        )


def test_a_small_image_is_filled_up_and_the_filling_ignored(pair):
    crops = Crops((part_of(pair, Window(8, 16, 30, 36)),), new_library(), SPEC, 32, seed=0)
    pixels_CHW, target_HW, _ = crops[0, 0]
    assert pixels_CHW.shape == (3, 32, 32)
    assert (target_HW[22:] == IGNORE).all()
    assert (target_HW[:, 20:] == IGNORE).all()
    assert (target_HW[:22, :20] != IGNORE).all()
    assert not pixels_CHW[:, 22:].any()


def test_the_border_of_an_image_is_scored_though_its_network_has_a_margin(pair):
    """What is seen around is a mirror image, as in a map; else the outer pixels are never learnt from."""
    crops = Crops((part_of(pair),), new_library(), SPEC, 40, seed=0, margin=12)
    raw_CHW, mask_1HW = blocks(64, 200)
    seen_CHW = np.pad((raw_CHW / 255 - 0.3) / 0.2, ((0, 0), (12, 12), (12, 12)), mode="reflect")
    scored_HW = np.zeros(WHOLE.shape, bool)
    for i in range(60):
        pixels_CHW, target_HW, _ = (t.numpy() for t in crops[0, i])
        window = square_at(WHOLE, 16, middle_of(i))
        around_CHW = seen_CHW[:, window.top : window.top + 40, window.left : window.left + 40]
        assert np.allclose(pixels_CHW, around_CHW, atol=1e-5)
        assert np.array_equal(target_HW[12:-12, 12:-12], mask_1HW[0][window.slices])
        scored_HW[window.slices] = True
    assert all(side.any() for side in (scored_HW[0], scored_HW[-1], scored_HW[:, 0], scored_HW[:, -1]))


def test_crops_differ_by_number_epoch_and_seed(pair):
    def crop(seed, epoch, i):
        return Crops((part_of(pair),), new_library(), SPEC, 32, seed)[epoch, i][0]

    first = crop(0, 0, 0)
    assert torch.equal(first, crop(0, 0, 0))
    assert not any(torch.equal(first, crop(*key)) for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))


def test_processes_get_slices_of_every_batch():
    """Together, step by step, what one process gets; each once."""
    alone = list(Keys(24, batch=8))
    for world in (1, 2, 4):
        shares = [list(Keys(24, batch=8, rank=rank, world=world)) for rank in range(world)]
        steps = [np.reshape(share, (3, 8 // world, 2)) for share in shares]
        assert np.concatenate(steps, axis=1).reshape(-1, 2).tolist() == [list(key) for key in alone]
        assert {len(Keys(24, batch=8, rank=0, world=world))} == {24 // world}
    with pytest.raises(UsageError, match=r"divided among the processes, got 8 for 3"):
        Keys(24, batch=8, world=3)
    with pytest.raises(UsageError, match="whole batches of 8, got 20"):
        Keys(20, batch=8)


def test_workers_bring_the_same_crops(pair):
    """Each begins with a library of its own.

    In a process of its own: pytest's fault handler gives the main thread a signal stack, and where OpenVINO
    was loaded before, the signal of a worker's end now and then did not find its way onto it.
    """
    code = "import sys, test_train_data as t; t.check_workers(sys.argv[1:3])"
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, *map(str, pair)], check=True, cwd=here, timeout=240)


def check_workers(pair):
    """The same crops by a worker as without."""
    pair = tuple(map(Path, pair))
    crops = Crops((part_of(pair),), new_library(), SPEC, 32, seed=0)
    crops[0, 0]  # opens the raster here
    keys = Keys(4, batch=2)
    batches = [[batch.pixels_CHW for batch in crop_loader(crops, keys, workers)] for workers in (0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_a_library_travels_empty(pair):
    library = new_library()
    library.open(part_of(pair).source)
    there = pickle.loads(pickle.dumps(library))  # noqa: S301 - our own bytes
    assert (there.legend, len(there.opened)) == (library.legend, 0)


def test_few_files_are_open_however_many_are_read(folders, monkeypatch):
    """And what is kept in memory is read without opening its file again."""
    monkeypatch.setattr("train.data.labelled.OPEN_AT_ONCE", 2)
    library = new_library()
    split = split_data(options(**folders), library)
    first = [library.open(part.source).read(part.window)[1] for part in split.all]
    assert len(library.opened) == 2
    monkeypatch.setattr("train.data.labelled.opened_planes", None)
    again = [library.open(part.source).read(part.window)[1] for part in split.all]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


# --- evaluation


def test_evaluation_is_the_whole_part_at_once(pair, monkeypatch):
    """Tiled with halo, streamed, summed: what one call on the padded part gives."""
    monkeypatch.setattr("train.evaluate.TILE", 64)
    torch.manual_seed(0)
    net = UNet(UNetOptions(3, 2, 2, 4)).eval()
    part = part_of(pair, Window(3, 10, 62, 197))
    library = new_library()
    got = evaluate(net, torch.device("cpu"), [part], library, SPEC).confusion

    raw_CHW, mask_1HW = blocks(64, 200)
    part_CHW = np.pad(raw_CHW[:, 3:62, 10:197], ((0, 0), (0, 1), (0, 1)), mode="reflect")
    pixels_CHW = (part_CHW / 255 - 0.3) / 0.2
    with torch.inference_mode():
        labels_HW = net(torch.from_numpy(pixels_CHW[None]).float())[0].argmax(0).numpy()[:59, :187]
    expected = Confusion(2)
    expected.add(mask_1HW[0, 3:62, 10:197], labels_HW)
    assert got.pixels == 59 * 187
    assert np.abs(got.counts_TP - expected.counts_TP).max() <= 1  # a tie may fall either way
    assert part_axis(187, SPEC).count > 1


def test_small_parts_are_one_tile_and_large_ones_are_not():
    assert part_axis(1021, SPEC).count == 1
    assert part_axis(TILE + 1, SPEC).count == 2


# --- options


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({}, "--pair"),
        ({"images": "a"}, "go together"),
        ({"pair": (("a", "b"),), "classes": ("one",)}, "2 to 255"),
        ({"pair": (("a", "b"),), "classes": ("one", "one")}, "differ"),
        ({"pair": (("a", "b"),), "val": 0.6, "test": 0.4}, "--val"),
        ({"pair": (("a", "b"),), "val": 0.0}, "--val"),
        ({"pair": (("a", "b"),), "crop": 30}, "--crop 30"),
        ({"pair": (("a", "b"),), "crops_per_epoch": -1}, "--crops-per-epoch"),
        ({"pair": (("a", "b"),), "lr": 0.0}, "--lr"),
        ({"pair": (("a", "b"),), "epochs": 0}, "--epochs"),
        ({"pair": (("a", "b"),), "resolution": -1.0}, "--resolution"),
        ({"pair": (("a", "b"),), "depth": 9}, "depth is 1 to 6"),
        ({"pair": (("a", "b"),), "precision": "fp8"}, "--precision"),
        ({"pair": (("a", "b"),), "threads": 0}, "--threads"),
    ],
)
def test_options_that_break_a_rule(told, word):
    with pytest.raises(UsageError, match=word):
        TrainOptions(**{"classes": NAMES, "depth": 2, "crop": 32, **told})

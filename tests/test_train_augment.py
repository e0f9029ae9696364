"""Augmentation: the same for pixels, target and weight; what is switched off does nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from tiler.errors import UsageError
from tiler.geometry import Window
from train.data.augment import Augment
from train.data.options import AugmentOptions
from train.data.target import IGNORE
from train.data.warp import Planes, Warp

OFF = dict.fromkeys(("flip_horizontal", "quarter_turns", "contrast", "brightness", "band_brightness"), 0.0)


def augment(**told) -> Augment:
    """Nothing but what is told."""
    return Augment(AugmentOptions(**{**OFF, **told}))


def planes(side=16, height=None, seed=1) -> Planes:
    """Noise of five bands with a target that has every value, 255 among them, and a weight."""
    rng = np.random.default_rng(seed)
    shape = (height or side, side)
    return Planes(
        Window(0, 0, *shape),
        rng.standard_normal((5, *shape)).astype(np.float32),
        rng.choice([0, 1, 2, IGNORE], shape),
        rng.random(shape, np.float32),
    )


def test_geometry_moves_all_planes_alike_and_loses_none():
    """A sample becomes one of its eight symmetries, bit for bit, each about as often."""
    before, drawn = planes(), []
    for i in range(160):
        after = Augment().symmetry(before, np.random.default_rng(i))
        turn = which_symmetry(before.pixels_CHW, after[0])
        assert np.array_equal(symmetries(before.target_HW)[turn], after[1])
        assert np.array_equal(symmetries(before.weight_HW)[turn], after[2])
        drawn.append(turn)
    assert np.bincount(drawn, minlength=8).min() >= 8


def symmetries(image_HW):
    """The eight of a square."""
    return [np.rot90(side, k, (-2, -1)) for side in (image_HW, image_HW[..., ::-1]) for k in range(4)]


def which_symmetry(before, after) -> int:
    """Index of the one that turns one image into the other."""
    return next(i for i, turned in enumerate(symmetries(before)) if np.array_equal(turned, after))


def test_flips_are_what_they_are_called():
    before, rng = planes(), np.random.default_rng(0)
    left_right = augment(flip_horizontal=1).symmetry(before, rng)[0]
    up_down = augment(flip_vertical=1).symmetry(before, rng)[0]
    assert np.array_equal(left_right, before.pixels_CHW[:, :, ::-1])
    assert np.array_equal(up_down, before.pixels_CHW[:, ::-1])


def test_light_changes_pixels_a_little_and_bands_differently():
    dark_CHW = np.zeros((5, 16, 16), np.float32)
    lit_CHW = Augment().light(dark_CHW, np.random.default_rng(0))
    assert 0 < np.abs(lit_CHW).max() < 2
    assert lit_CHW.std(axis=0).min() > 0
    assert not dark_CHW.any()


@pytest.mark.parametrize("name", ["contrast", "brightness", "band_contrast", "band_brightness", "noise"])
def test_each_light_alone_changes_pixels_and_is_off_at_0(name):
    pixels_CHW = planes().pixels_CHW
    assert np.array_equal(augment().light(pixels_CHW, np.random.default_rng(3)), pixels_CHW)
    changed = [
        not np.array_equal(augment(**{name: 0.3}).light(pixels_CHW, np.random.default_rng(i)), pixels_CHW)
        for i in range(20)
    ]
    assert sum(changed) >= 10


def test_contrast_and_brightness_keep_to_their_ranges():
    ones_CHW = np.ones((3, 2, 2), np.float32)
    gains = [augment(contrast=0.25).light(ones_CHW, np.random.default_rng(i)) for i in range(200)]
    adds = [augment(brightness=0.25).light(ones_CHW, np.random.default_rng(i)) - 1 for i in range(200)]
    assert 0.7999 <= np.min(gains) < 0.85
    assert 1.2 < np.max(gains) <= 1.2501
    assert -0.2501 <= np.min(adds) < -0.2
    assert 0.2 < np.max(adds) <= 0.2501
    assert np.ptp(gains, axis=1).max() == 0


def test_noise_has_its_deviation_and_shuffled_bands_are_all_there():
    flat_CHW = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 64, 64), np.float32)
    noisy_CHW = augment(noise=0.5).light(flat_CHW, np.random.default_rng(0))
    assert (noisy_CHW - flat_CHW).std() == pytest.approx(0.5, rel=0.02)
    orders = {
        tuple(augment(shuffle_bands=1).light(flat_CHW, np.random.default_rng(i))[:, 0, 0].tolist())
        for i in range(40)
    }
    assert len(orders) > 10
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)


# --- warps


def warped(told, side, source: Planes, middle, seed=0):
    """A sample of a source that is all there is."""
    warp = augment(**told).warp(side, np.random.default_rng(seed)).moved_inside(source.window, middle)
    window = warp.window(source.window)
    cut = Planes(window, *(a[..., *window.slices] if a.size > 1 else a for a in source[1:]))
    return warp.apply(cut)


def test_a_warp_that_moves_nothing_is_the_crop_itself():
    source = planes(40)
    warp = Warp.of(16, (1, 1), 0).moved_inside(source.window, (20, 18))
    cut = warp.apply(Planes(source.window, *source[1:]))
    # The sample's middle is the middle of a pixel, so values lie halfway between four of them.
    quads_CHW = sum(source.pixels_CHW[:, 12 + a : 28 + a, 10 + b : 26 + b] for a in (0, 1) for b in (0, 1))
    assert np.allclose(cut.pixels_CHW, quads_CHW / 4, atol=1e-5)
    assert np.array_equal(cut.target_HW, source.target_HW[13:29, 11:27])


@pytest.mark.parametrize(
    ("told", "expected"),
    [({"zoom": (2.0, 2.0)}, (20, 20)), ({"zoom": (0.5, 0.5)}, (5, 5)), ({"rotate": 10.0}, (10, 10))],
)
def test_zoom_and_rotation_keep_their_measure(told, expected):
    """A square of 10 px becomes one of 10 px times the zoom; pixels and target agree on it."""
    square_HW = np.zeros((64, 64), np.int64)
    square_HW[27:37, 27:37] = 1
    source = Planes(Window(0, 0, 64, 64), square_HW[None].astype(np.float32), square_HW, np.ones((1, 1)))
    got = warped(told, 32, source, (31, 31))
    assert (got.target_HW == 1).sum() == pytest.approx(expected[0] * expected[1], rel=0.1)
    assert got.pixels_CHW.sum() == pytest.approx(expected[0] * expected[1], rel=0.1)
    assert (np.rint(got.pixels_CHW[0]) != (got.target_HW == 1)).mean() < 0.03


def test_outside_is_ignored_and_weighs_nothing():
    source = planes(20)
    got = warped({"zoom": (0.5, 0.5)}, 32, source, (3, 3))
    inside_HW = got.target_HW != IGNORE
    known_share = (source.target_HW != IGNORE).mean()
    assert inside_HW.sum() == pytest.approx(10 * 10 * known_share, rel=0.25)
    assert not got.weight_HW[0].any()
    assert not got.pixels_CHW[:, 0].any()
    assert set(np.unique(got.target_HW)) <= {0, 1, 2, IGNORE}


def test_a_margin_is_a_mirror_image_where_nothing_is_known():
    """Of a corner 8 px are scored, and 12 px around them are seen: beyond the corner the same again."""
    rows_HW, columns_HW = np.mgrid[:64, :64]
    source = Planes(
        Window(0, 0, 64, 64), np.stack([rows_HW, columns_HW]).astype(np.float32), rows_HW, np.ones((1, 1))
    )
    warp = Warp.of(32, (1, 1), 0).moved_inside(source.window, (0, 0), margin=12)
    window = warp.window(source.window)
    got = warp.apply(Planes(window, *(a[..., *window.slices] for a in source[1:3]), source[3]), mirrored=True)
    assert got.target_HW[12:20, 12:20].tolist() == rows_HW[:8, :8].tolist()
    assert (got.target_HW[:12] == IGNORE).all()
    assert np.allclose(got.pixels_CHW[0, :, 20], np.abs(np.arange(32) - 11.5) - 0.5, atol=1e-4)


def test_shift_and_elastic_move_pixels_and_target_alike():
    """Bands that hold their own row and column say where each pixel came from."""
    rows_HW, columns_HW = np.mgrid[:200, :200]
    places_CHW = np.stack([rows_HW, columns_HW]).astype(np.float32)
    source = Planes(Window(0, 0, 200, 200), places_CHW, rows_HW, np.ones((1, 1)))
    for told in ({"shift": 0.2}, {"elastic": 10.0}):
        got = warped(told, 48, source, (100, 100), seed=2)
        assert np.abs(got.pixels_CHW[0] - got.target_HW).max() <= 0.51
        assert np.abs(got.pixels_CHW[0] - (np.arange(48)[:, None] + 76.5)).max() > 1
    away_HW = warped({"elastic": 10.0}, 48, source, (100, 100)).pixels_CHW[0] - np.arange(48)[:, None]
    assert away_HW.std() > 1, "not all by the same"


def test_bends_have_the_deviation_that_was_asked_for():
    """A grid of 3 x 3 nodes, each displaced with a standard deviation of 10 px."""
    bends = [augment(elastic=10.0).warp(64, np.random.default_rng(i)).bend_2GG for i in range(200)]
    assert bends[0].shape == (2, 3, 3)
    assert np.std(bends) == pytest.approx(10, rel=0.05)


def test_strong_zooming_out_averages_instead_of_skipping():
    """A chessboard of single pixels becomes grey, not a pattern."""
    chess_HW = (np.indices((256, 256)).sum(axis=0) % 2).astype(np.float32)
    source = Planes(Window(0, 0, 256, 256), chess_HW[None], np.zeros((256, 256), int), np.ones((1, 1)))
    got = warped({"zoom": (0.25, 0.25)}, 48, source, (128, 128))
    assert np.abs(got.pixels_CHW - 0.5).max() < 1e-5


def test_hue_saturation_and_value():
    red_CHW = np.array([200, 0, 0], np.uint8)[:, None, None] * np.ones((3, 4, 4), np.uint8)
    same = augment().colour(red_CHW, np.random.default_rng(0))
    assert same is red_CHW
    from train.data.colour import changed

    assert np.allclose(changed(red_CHW, 1 / 3, 1, 1)[:, 0, 0], [0, 200, 0], atol=0.5)
    assert np.allclose(changed(red_CHW, 0, 0.5, 1)[:, 0, 0], [200, 100, 100], atol=0.5)
    assert np.allclose(changed(red_CHW, 0, 1, 0.5)[:, 0, 0], [100, 0, 0], atol=0.5)
    drawn = augment(hue=0.1, saturation=0.7, value=0.3).colour(red_CHW, np.random.default_rng(0))
    assert drawn.shape == red_CHW.shape
    assert not np.allclose(drawn, red_CHW)


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"flip_horizontal": 1.5}, "--flip-horizontal is a probability"),
        ({"zoom": (2.0, 0.5)}, "--zoom"),
        ({"zoom": (0.0, 1.0)}, "--zoom"),
        ({"zoom": (0.5,)}, "--zoom"),
        ({"rotate": -1.0}, "--rotate"),
        ({"elastic": float("nan")}, "--elastic"),
        ({"hue": 0.6}, "--hue"),
        ({"shift": 0.7}, "--shift"),
    ],
)
def test_strengths_that_break_a_rule(told, word):
    with pytest.raises(UsageError, match=word):
        AugmentOptions(**told)

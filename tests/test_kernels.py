"""Each kernel against its twin in numpy, and the finisher against plain statements of what it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import networks
from tiler import kernels, twins
from tiler.errors import InputError, UsageError
from tiler.finish import NODATA, SCALE, Finisher

SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-90, 90, width=32),
)


AT = st.tuples(st.integers(0, 3), st.integers(0, 3))
"""Where the part of a tile begins that a kernel works on."""


def valid_like(scores_KHW, seed, at=(0, 0)):
    """A random mask of what is left of the scores from ``at`` on."""
    height, width = (max(n - a, 0) for n, a in zip(scores_KHW.shape[1:], at, strict=True))
    return np.random.default_rng(seed).random((height, width)) < 0.8


@pytest.mark.parametrize("name", ["softmax_bytes", "sigmoid_bytes", "probability_bytes"])
@given(scores_KHW=SCORES, at=AT, seed=st.integers(0, 99))
def test_bytes_of_probabilities(name, scores_KHW, at, seed):
    """Within one level: exp may differ in its last bit; nodata exactly."""
    valid_HW = valid_like(scores_KHW, seed, at)
    fast, slow = (np.empty((len(scores_KHW), *valid_HW.shape), np.uint8) for _ in range(2))
    getattr(kernels, name)(scores_KHW, at, valid_HW, fast)
    getattr(twins, name)(scores_KHW, at, valid_HW, slow)
    assert np.abs(fast.astype(int) - slow).max(initial=0) <= 1
    np.testing.assert_array_equal((fast == NODATA).all(axis=0), ~valid_HW)
    assert fast[:, valid_HW].max(initial=0) <= 254


@given(scores_KHW=SCORES, at=AT, seed=st.integers(0, 99))
def test_argmax(scores_KHW, at, seed):
    """Ties go to the first class, as in numpy."""
    scores_KHW = np.round(scores_KHW / 30)
    valid_HW = valid_like(scores_KHW, seed, at)
    fast, slow = np.empty(valid_HW.shape, np.uint8), np.empty(valid_HW.shape, np.uint8)
    kernels.argmax(scores_KHW, at, valid_HW, fast)
    twins.argmax(scores_KHW, at, valid_HW, slow)
    np.testing.assert_array_equal(fast, slow)


@given(scores_KHW=SCORES, at=AT, limit=st.floats(-50, 50), seed=st.integers(0, 99))
def test_at_least(scores_KHW, at, limit, seed):
    """The limit itself counts."""
    valid_HW = valid_like(scores_KHW, seed, at)
    fast, slow = np.empty(valid_HW.shape, np.uint8), np.empty(valid_HW.shape, np.uint8)
    kernels.at_least(scores_KHW[0], at, valid_HW, limit, fast)
    twins.at_least(scores_KHW[0], at, valid_HW, limit, slow)
    np.testing.assert_array_equal(fast, slow)


@given(scores_KHW=SCORES, at=AT, to=AT, seed=st.integers(0, 99))
def test_accumulate(scores_KHW, at, to, seed):
    """The same sums, to the last bits that a fused multiply-add may change, and nothing beside them."""
    rng = np.random.default_rng(seed)
    sides = valid_like(scores_KHW, seed, at).shape
    rows_H, columns_W = (rng.random(n, np.float32) for n in sides)
    fast = rng.random((len(scores_KHW), *(n + t + 2 for n, t in zip(sides, to, strict=True))), np.float32)
    slow = fast.copy()
    kernels.accumulate(fast, to, scores_KHW, at, rows_H, columns_W)
    twins.accumulate(slow, to, scores_KHW, at, rows_H, columns_W)
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@given(seed=st.integers(0, 99), sides=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40)))
def test_feed(dtype, seed, sides):
    """To the last bit what the plain statement says, NaN under invalid pixels included."""
    rng = np.random.default_rng(seed)
    raw_CHW = (rng.normal(size=sides) * 100).astype(dtype)
    valid_HW = rng.random(sides[1:]) < 0.8
    if raw_CHW.dtype.kind == "f":
        raw_CHW[:, ~valid_HW] = np.nan
    fill_C, factors_2C = rng.integers(0, 99, sides[0]).astype(dtype), rng.random((2, sides[0]), np.float32)
    fast, slow = np.empty(sides, np.float32), np.empty(sides, np.float32)
    kernels.feed(raw_CHW, valid_HW, fill_C, factors_2C, fast)
    twins.feed(raw_CHW, valid_HW, fill_C, factors_2C, slow)
    np.testing.assert_array_equal(fast, slow)


@given(values=hnp.arrays(np.uint8, st.integers(0, 99)))
def test_count_values(values):
    """Added to what was there."""
    fast, slow = np.full(256, 7), np.full(256, 7)
    kernels.count_values(values, fast)
    twins.count_values(values, slow)
    np.testing.assert_array_equal(fast, slow)


ALL = np.ones((1, 3), bool)


def finish(activation, scores, output="labels", **values):
    """Planes for one row of pixels, per class a row of scores."""
    scores_KHW = np.array(scores, np.float32)[:, None, :]
    channels = len(scores_KHW)
    spec = networks.spec(1, tuple("abcdef"[: max(channels, 2)]), activation=activation, **values)
    return Finisher(spec, channels, output)(scores_KHW, ALL)[:, 0].tolist()


def test_one_channel_of_logits_is_a_sigmoid_with_a_threshold():
    """P >= 0.9 is a logit of at least 2.197."""
    assert finish("logits", [[-1, 2.19, 2.2]], threshold=0.9) == [[0, 0, 1]]
    assert finish("logits", [[0, 0, 9]], "probabilities") == [[127, 127, 254]]


def test_one_channel_of_probabilities():
    assert finish("sigmoid", [[0.49, 0.5, 1]]) == [[0, 1, 1]]
    assert finish("sigmoid", [[0, 0.5, 1]], "probabilities") == [[0, 127, 254]]


def test_several_sigmoid_classes_are_independent():
    """One 0/1 band per class, not the largest of them."""
    assert finish("sigmoid", [[0.9, 0.1, 0.6], [0.8, 0.2, 0.4]]) == [[1, 0, 1], [1, 0, 0]]


def test_softmax_and_scores_take_the_largest():
    assert finish("softmax", [[0.6, 0.2, 0.5], [0.4, 0.8, 0.5]]) == [[0, 1, 0]]
    assert finish("none", [[3, -2, 0], [1, 5, 9]]) == [[0, 1, 1]]


def test_both_puts_labels_first():
    assert finish("softmax", [[1, 0, 0.5], [0, 1, 0.5]], "both") == [[0, 1, 0], [254, 0, 127], [0, 254, 127]]


def test_probabilities_come_back_by_the_scale():
    """Half a level is the largest error."""
    shares = np.linspace(0, 1, 999, dtype=np.float32).reshape(1, 1, -1)
    stored = np.empty(shares.shape, np.uint8)
    kernels.probability_bytes(shares, (0, 0), np.ones(shares.shape[1:], bool), stored)
    assert np.abs(stored * SCALE - shares).max() <= SCALE / 2 + 1e-6


def test_scores_have_no_probabilities():
    with pytest.raises(UsageError, match="--output labels"):
        finish("none", [[1, 2, 3], [1, 2, 3]], "both")


def test_classes_must_fit_the_channels():
    with pytest.raises(InputError, match="3 output channels has 3 classes, got 2"):
        Finisher(networks.spec(1), 3)


@given(
    raw_CHW=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16]),
        st.tuples(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7)),
    ),
    side=st.integers(1, 9),
)
def test_box_mean(raw_CHW, side):
    """Pixel by pixel; an even side reaches one further down and right."""
    out_CHW = np.empty_like(raw_CHW)
    kernels.box_mean(raw_CHW, side, out_CHW)
    before, after = (side - 1) // 2, side // 2
    for c, y, x in np.ndindex(raw_CHW.shape):
        around = raw_CHW[c, max(y - before, 0) : y + after + 1, max(x - before, 0) : x + after + 1]
        assert out_CHW[c, y, x] == int(around.sum(dtype=np.int64)) // around.size

"""Plans: what is chosen, and that every one that is made can be carried out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import networks
from tiler import memory
from tiler.errors import InputError, UsageError
from tiler.finish import Finisher
from tiler.geometry import Window
from tiler.options import RunOptions
from tiler.planning import BLOCK, LARGEST_TILE, LARGEST_WITH_GAPS, STRIP_SHARE, make_plan, within
from tiler.ports import RasterInfo


def planned(height, width, options=None, channels=2, shape=(None, None, None), gaps=True, **spec):
    """A plan for a raster that does not exist and a network that never runs."""
    model = networks.function_model(None, networks.spec(3, **{"stride": 16, "halo": 96, **spec}), channels)
    model = replace(model, shape=shape)
    info = RasterInfo("none.tif", height, width, 3, np.dtype(np.uint8), gaps=gaps)
    return make_plan(info, model, Finisher(model.spec, channels), options or RunOptions(memory=4 * 10**9))


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from([1, 4, 16, 32]), st.integers(0, 200))
def test_any_raster_gets_a_plan_within_the_budget(height, width, stride, halo):
    """From one pixel to a terapixel; the tile never exceeds the padded raster."""
    plan = planned(height, width, stride=stride, halo=halo)
    assert plan.mode == "exact"
    assert plan.peak <= plan.budget
    assert plan.grid.rows.tile <= max(LARGEST_TILE, -(-height // stride) * stride)
    assert plan.strip_width == width or plan.strip_width % BLOCK == 0
    assert plan.grid.waste >= 1


def test_tiles_are_larger_where_none_can_be_left_out():
    """A tile is left out only whole, so where pixels may be invalid, or unwanted, tiles are smaller."""
    much = RunOptions(memory=64 * 10**9)
    assert max(planned(30_000, 30_000, much, gaps=False).grid.tile) > LARGEST_WITH_GAPS
    assert max(planned(30_000, 30_000, much).grid.tile) <= LARGEST_WITH_GAPS
    masked = replace(much, mask="forest.gpkg")
    assert max(planned(30_000, 30_000, masked, gaps=False).grid.tile) <= LARGEST_WITH_GAPS


def test_a_call_per_thread_where_memory_allows_it():
    """Else one call on all threads, whose tiles are larger."""
    model = networks.function_model(None, networks.spec(3, stride=16, halo=96), 2)
    model = replace(model, backend=replace(model.backend, most_workers=2), bytes_per_pixel=400)
    info = RasterInfo("none.tif", 20_000, 20_000, 3, np.dtype(np.uint8))
    plans = {
        memory: make_plan(info, model, Finisher(model.spec, 2), RunOptions(memory=memory * 10**9))
        for memory in (1, 16)
    }
    assert {memory: plan.workers for memory, plan in plans.items()} == {1: 1, 16: 2}
    for plan in plans.values():
        assert plan.peak <= plan.budget
    card = replace(model, backend=replace(model.backend, workers=2))
    assert make_plan(info, card, Finisher(model.spec, 2), RunOptions(memory=16 * 10**9)).workers == 1
    one = replace(model, backend=replace(model.backend, most_workers=1))
    alone = make_plan(info, one, Finisher(model.spec, 2), RunOptions(memory=16 * 10**9))
    assert plans[16].terms["network"] == 2 * alone.terms["network"]
    assert plans[16].reserved(model) == 2 * alone.reserved(model)


def test_a_raster_of_one_tile_is_computed_on_all_threads():
    """A call per thread would leave all but one idle."""
    model = networks.function_model(None, networks.spec(3, stride=16, halo=96), 2)
    model = replace(model, backend=replace(model.backend, most_workers=2))
    info = RasterInfo("none.tif", 1000, 1000, 3, np.dtype(np.uint8))
    assert make_plan(info, model, Finisher(model.spec, 2), RunOptions(memory=16 * 10**9)).workers == 1


@pytest.mark.parametrize("more", [{}, {"mask": "forest.gpkg"}])
def test_gaps_do_not_make_a_wide_halo_blended_or_one_tile(more):
    """Tiles of 2304 px have no core inside a halo of 1200; the mode is that of a raster without gaps."""
    plan = planned(90_000, 90_000, RunOptions(memory=64 * 10**9, **more), halo=1200)
    assert plan.mode == planned(90_000, 90_000, RunOptions(memory=64 * 10**9), gaps=False, halo=1200).mode
    assert plan.mode == "exact"
    assert LARGEST_WITH_GAPS < max(plan.grid.tile) <= LARGEST_TILE


@given(st.integers(3, 40))
def test_more_memory_is_never_more_work(tenths):
    """A grid is judged with the columns of tiles that are computed for both strips at their seam."""
    less, more = (
        planned(12_000, 12_000, RunOptions(memory=n * 10**8), gaps=False) for n in (tenths + 6, tenths + 7)
    )
    pixels = [plan.tiles * plan.grid.tile[0] * plan.grid.tile[1] for plan in (less, more)]
    assert pixels[1] <= 1.01 * pixels[0]


def test_tiles_divide_the_raster_evenly():
    """4096 px with a halo of 112: two tiles of 2160 px, as the arithmetic says."""
    plan = planned(4096, 4096, RunOptions(memory=16 * 10**9), halo=112)
    assert plan.grid.tile == (2160, 2160)
    assert plan.grid.waste == pytest.approx(1.112, abs=1e-3)


def test_less_memory_means_smaller_tiles_and_narrower_strips():
    wide, narrow = (planned(50_000, 400_000, RunOptions(memory=m)) for m in (8 * 10**9, 10**9))
    assert narrow.grid.waste > wide.grid.waste
    assert narrow.strip_width < 400_000
    assert narrow.terms["band"] < wide.terms["band"]


def test_blended_tiles_do_not_depend_on_memory():
    """They are part of the result."""
    grids = {planned(5000, 7000, RunOptions(memory=m, blend="hann")).grid for m in (10**9, 9 * 10**9)}
    assert len(grids) == 1
    assert grids.pop().tile == (512, 512)


def test_a_small_raster_is_one_tile_padded_to_the_stride_only():
    assert planned(100, 17).grid.tile == (112, 32)
    assert planned(100, 17, shape=(None, 512, 512), stride=1).grid.tile == (512, 512)


def test_auto_is_exact_only_when_the_model_says_so():
    assert planned(999, 999).mode == "exact"
    assert planned(999, 999, exact=False).mode == "hann"
    assert planned(999, 999, halo=None).mode == "hann"
    with pytest.raises(InputError, match="pass --halo"):
        planned(999, 999, RunOptions(blend="exact"), halo=None)


def test_a_halo_is_rounded_up_to_the_stride():
    """So that cores begin on it, where the network's pooling does."""
    assert planned(9999, 9999, halo=94).grid.rows.overlap == 2 * 96


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (RunOptions(memory=10**7), "smallest plan needs .*; raise --memory"),
        (RunOptions(tile=192), "twice the halo of 96 px, got --tile 192"),
        (RunOptions(tile=500), "multiple of the stride 16, got 500"),
        (RunOptions(overlap=32), "--overlap is for blended modes"),
        (RunOptions(blend="hann", tile=512, overlap=100), "multiple of the stride 16"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        planned(9999, 9999, options)


def test_a_model_of_fixed_batch_sets_the_batch():
    assert planned(999, 999, shape=(4, 64, 64), stride=1, halo=0).batch == 4


def test_the_network_term_grows_with_the_batch():
    """Doubling the batch doubles what it needs, and nothing that does not depend on it."""
    one, two = (planned(4096, 4096, RunOptions(tile=512, batch=b, memory=10**10)) for b in (1, 2))
    assert two.terms["network"] == pytest.approx(2 * one.terms["network"], abs=2)
    assert two.terms["band"] == one.terms["band"]


def test_of_equally_wasteful_tiles_a_handy_one_is_taken():
    """Without a halo nothing is wasted by small ones; large ones fall out of the caches."""
    assert planned(16384, 16384, halo=0).grid.tile == (1024, 1024)


def test_a_graph_of_fixed_batch_is_planned_with_whole_batches():
    """It is fed eight tiles whatever is asked for, so it needs memory for eight."""
    plan = planned(999, 999, RunOptions(memory=4 * 10**9, batch=1), shape=(8, 256, 256), stride=1, halo=0)
    assert plan.batch == 8


def test_resampling_is_in_the_plan():
    """A tile fed at a hundredth of the pixels reads a hundred times its own."""
    model = networks.function_model(None, networks.spec(3, stride=16, halo=96), 2)
    info = RasterInfo("none.tif", 2048, 2048, 3, np.dtype(np.uint8), shrink=100.0, note="averaged")
    plan = make_plan(info, model, Finisher(model.spec, 2), RunOptions(memory=4 * 10**9, tile=1024))
    assert plan.terms["resampling"] >= 2 * 1024 * 1024 * 100 * 3
    assert planned(2048, 2048).terms["resampling"] == 0


def test_a_container_s_limit_counts(tmp_path):
    """Of the group itself and of those above it; cached files give way; no limit is none."""
    group = tmp_path / "pod" / "box"
    group.mkdir(parents=True)
    for folder, limit, used in ((group, "max", 10), (group.parent, "5000", 3000), (tmp_path, "9000", 4000)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 700\n")
    assert list(memory.cgroup_rooms(tmp_path, Path("pod/box"))) == [2700, 5700]
    assert list(memory.cgroup_rooms(tmp_path / "none", Path())) == []
    assert memory.available() > 0


def test_own_workers_share_the_memory(monkeypatch):
    """Four of them take no more than one process would."""
    monkeypatch.setattr("tiler.planning.memory.available", lambda: 24 * 10**9)
    alone = planned(5000, 5000, RunOptions()).budget - memory.resident()
    assert planned(5000, 5000, RunOptions(scheduler="local:4")).budget - memory.resident() == alone // 4
    assert planned(5000, 5000, RunOptions(scheduler="tcp://a:1")).budget - memory.resident() == alone


@given(st.integers(1, 60_000), st.integers(0, 8), st.integers(1, 5), st.sampled_from([None, 1024]))
def test_tiles_of_a_part_waste_no_more_than_those_of_the_whole(extent, at, blocks, fixed):
    """But for the one that a part has more than its share."""
    plan = planned(extent, 9000, shape=(None, fixed, None))
    model = replace(
        networks.function_model(None, networks.spec(3, stride=16, halo=96), 2), shape=(None, fixed, None)
    )
    top = min(at * BLOCK, (extent - 1) // BLOCK * BLOCK)
    window = Window(top, 0, min(top + blocks * BLOCK, extent), 9000)
    part, whole = within(plan, window, model).grid, plan.grid
    assert part.rows.tile <= whole.rows.tile
    assert fixed is None or part.rows.tile == fixed
    cores = part.rows.count * (part.rows.tile - part.rows.overlap)
    assert cores <= window.height + part.rows.tile + part.rows.count * 2 * 16
    (strip,) = part.strips(10**6)
    assert strip.window == window


def test_memory_does_not_grow_with_the_width():
    """However much there is: strips have a largest width."""
    wide, wider = (planned(5000, width, RunOptions(memory=64 * 10**9)) for width in (50_000, 500_000))
    for plan in (wide, wider):
        assert plan.terms["finished rows"] + plan.terms["band"] <= STRIP_SHARE * plan.budget
        seams = -(-plan.grid.columns.extent // plan.strip_width)
        assert seams * plan.strip_width < plan.grid.columns.extent + seams * BLOCK  # of equal width

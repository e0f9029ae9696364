"""Blocks on disk, the lock and the run directory: what is there is sound, and who may touch it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from tiler.blocks import BlockGrid, BlockSet
from tiler.damage import Damage
from tiler.durable import write_whole
from tiler.errors import OutputError
from tiler.geometry import Window
from tiler.lock import RunLock
from tiler.ports import Block
from tiler.store import BlockStore, TornBlockError

if TYPE_CHECKING:
    from pathlib import Path

GRID = BlockGrid(height=70, width=100, side=32)


@pytest.fixture
def store(tmp_path) -> BlockStore:
    """An open, empty store of two planes."""
    made = BlockStore(tmp_path / "blocks", GRID, 2)
    made.open()
    return made


def block(row, column, seed=0) -> Block:
    window = GRID.window(row, column)
    rng = np.random.default_rng(seed)
    return Block(window, rng.integers(0, 256, (2, *window.shape)).astype(np.uint8))


def reopened(store) -> BlockStore:
    """The same folder as another process would find it."""
    other = BlockStore(store._folder, GRID, 2)
    other.open()
    return other


def chunk(store, row, column) -> Path:
    return store._folder / "c" / "0" / str(row) / str(column)


def test_blocks_come_back(store):
    """All of them, border blocks too, in another process as well."""
    for seed, window in enumerate(BlockSet.all(GRID)):
        store.write(block(*GRID.place(window), seed))
    assert store.present().all()
    for seed, window in enumerate(BlockSet.all(GRID)):
        place = GRID.place(window)
        np.testing.assert_array_equal(reopened(store).read(*place), block(*place, seed).planes_QHW)


def test_a_block_of_nothing_but_nodata_is_there(store):
    """Else it would be computed again for ever."""
    for column in (1, 2):
        window = GRID.window(1, column)
        reopened(store).write(Block(window, np.full((2, *window.shape), 255, np.uint8)))
    assert reopened(store).present().tolist()[1] == [False, True, True, False]


def test_any_program_that_reads_zarr_can_look_inside(store):
    """Version 3 with zstd and crc32c."""
    store.write(block(0, 0))
    array = zarr.open_array(store._folder, mode="r")
    np.testing.assert_array_equal(array[:, :32, :32], block(0, 0).planes_QHW)


@pytest.mark.parametrize("bit", range(0, 4096, 97))
def test_a_flipped_bit_is_found(store, bit):
    """Anywhere in a chunk."""
    store.write(block(0, 1))
    path = chunk(store, 0, 1)
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(TornBlockError, match="block 0, 1 does not read back"):
        store.read(0, 1)
    assert store.drop_torn() == 1
    assert not store.present().any()


@pytest.mark.parametrize("length", [0, 1, 4, 5, 100, -1])
def test_a_torn_block_is_found(store, length):
    store.write(block(0, 1))
    path = chunk(store, 0, 1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(TornBlockError):
        store.read(0, 1)


def test_a_missing_block_is_not_read_as_nodata(store):
    """Which is what zarr returns for it."""
    with pytest.raises(TornBlockError):
        store.read(0, 0)


def test_damage_lies_beside_its_block(store):
    """Once each, in order; without the block it does not count."""
    one, two = Damage(Window(0, 0, 9, 9), "bad"), Damage(Window(5, 30, 9, 40), "worse")
    store.write(block(0, 0), [two, one])
    store.write(block(0, 1), [two])
    assert reopened(store).damage() == (one, two)
    store.drop(0, 0)
    assert reopened(store).damage() == (two,)
    chunk(store, 0, 1).unlink()
    assert reopened(store).damage() == ()


@pytest.mark.parametrize("content", ["", "[", "[[1]]", '[[0,0,0,0,"x"]]', "{}", '[["a","b","c","d","e"]]'])
def test_a_block_whose_damage_cannot_be_read_is_forgotten(store, content):
    """It would be background in silence."""
    store.write(block(0, 0), [Damage(Window(0, 0, 9, 9), "bad")])
    next((store._folder / "damage").iterdir()).write_text(content)
    assert reopened(store).damage() == ()
    if content != "{}":
        assert not store.present()[0, 0]


@pytest.mark.parametrize("content", ["", "{}", '{"zarr_format": 3}', "nonsense", "[]", "null", None])
def test_a_description_that_is_none_is_written_anew(store, content):
    """It follows from the plan; the blocks are still there."""
    store.write(block(0, 0))
    path = store._folder / "zarr.json"
    path.unlink() if content is None else path.write_text(content)
    np.testing.assert_array_equal(reopened(store).read(0, 0), block(0, 0).planes_QHW)


def test_blocks_of_another_array_do_not_read_back(store):
    """Of another number of planes, or side."""
    store.write(block(0, 0))
    for grid, planes in ((GRID, 3), (BlockGrid(70, 100, 16), 2)):
        other = BlockStore(store._folder, grid, planes)
        other.open()
        with pytest.raises(TornBlockError):
            other.read(0, 0)


def test_names_of_others_are_passed_over(store):
    """What a Mac leaves on a share, and blocks outside the grid."""
    store.write(block(0, 0), [Damage(Window(0, 0, 9, 9), "bad")])
    (store._folder / "damage" / "._0.0.json").write_text("{")
    (store._folder / "c" / "0" / "0" / "99").write_text("{")
    assert store.present().sum() == 1
    assert len(store.damage()) == 1


def test_a_full_disk_is_said_so_and_costs_only_the_block(store):
    """The limit on file size stands for it."""
    store.write(block(0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(OutputError, match="File too large; stored ones are kept"):
            store.write(block(0, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert reopened(store).present().sum() == 1
    assert not list(store._folder.rglob("*.partial"))


def test_what_a_killed_process_was_writing_is_swept(store):
    store.write(block(0, 0))
    (chunk(store, 0, 0).parent / "1.abc.partial").write_bytes(b"half")
    assert reopened(store).present().sum() == 1
    store.sweep()
    assert not list(store._folder.rglob("*.partial"))


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    """A failing disk leaves what was there before, and nothing beside it."""
    write_whole(tmp_path / "a", b"old")

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


HOLD = (
    "import sys, time; from pathlib import Path; from tiler.lock import RunLock\n"
    "lock = RunLock(Path(sys.argv[1])); assert lock.acquire(shared=sys.argv[2] == 'shared')\n"
    "print('held', flush=True); time.sleep(60)"
)


def holder(path, kind) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("theirs", "ours", "free"),
    [("alone", False, False), ("alone", True, False), ("shared", False, False), ("shared", True, True)],
)
def test_a_lock_is_held_alone_or_together(tmp_path, theirs, ours, free):
    """And is free as soon as its process is killed."""
    lock = RunLock(tmp_path / "lock")
    with holder(lock.path, theirs) as process:
        assert lock.acquire(shared=ours) is free
        lock.release()
        if theirs == "alone":
            assert f"process {process.pid} on " in lock.holder()
        process.kill()
        process.wait()
    assert lock.acquire()
    assert lock.alone
    assert f"process {os.getpid()}" in lock.holder()
    lock.release()


def test_a_lock_in_a_folder_that_was_made_again_is_another_lock(tmp_path, monkeypatch):
    """The old one is a lock on nothing: whoever waited for it opens the new one."""
    folder = tmp_path / "run"
    folder.mkdir()
    first, second = RunLock(folder / "lock"), RunLock(folder / "lock")
    assert first.acquire()
    folder.rename(tmp_path / "gone")
    folder.mkdir()
    assert second.acquire()
    first.release()
    assert not RunLock(folder / "lock").acquire()
    second.release()


def test_no_folder_no_lock(tmp_path):
    with pytest.raises(FileNotFoundError):
        RunLock(tmp_path / "none" / "lock").acquire()


def test_a_store_may_be_written_by_several_threads(store):
    """As shards do from several processes: blocks are whole whoever wins."""
    threads = [threading.Thread(target=store.write, args=(block(0, 0, seed),)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = store.read(0, 0)
    assert any((made == block(0, 0, seed).planes_QHW).all() for seed in range(8))


def test_only_rows_that_are_asked_for_are_looked_at(store):
    """A task of a cluster does not list a million blocks."""
    for row in range(GRID.shape[0]):
        store.write(block(row, 1))
    among_RC = np.zeros(GRID.shape, np.bool_)
    among_RC[1, 0] = True
    expected_RC = np.zeros(GRID.shape, np.bool_)
    expected_RC[1, 1] = True
    np.testing.assert_array_equal(store.present(among_RC), expected_RC)

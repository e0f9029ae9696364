"""Runs that end early and are carried on: the same bytes, and no more work than was missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
from affine import Affine
from onnx import numpy_helper

import networks
from rasters import write_raster
from refusals import refused
from tiler import fingerprint
from tiler.backends.onnx import load_model
from tiler.blocks import BlockSet
from tiler.cli.main import run_command
from tiler.cli.main import tiler as command
from tiler.errors import DamageError, OutOfMemoryError, OutputError, UsageError
from tiler.events import BlockStored, Finished, Finishing, Noted, Publishing
from tiler.folder import RunFolder
from tiler.job import prepare
from tiler.lock import RunLock
from tiler.manifest import Manifest
from tiler.options import RunOptions
from tiler.outputs import Outputs
from tiler.run import segment
from tiler.store import BlockStore

HERE = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
HEIGHT, WIDTH, SIDE = 300, 430, 128
BLOCKS = 3 * 4
MODES = {
    "exact": {"tile": 128, "blend": "exact"},
    "blended": {"tile": 96, "overlap": 24, "blend": "hann"},
    "source": {"tile": 64, "blend": "exact", "grid": "source", "resolution": 1.0, "output": "both"},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that a small scene has many."""
    monkeypatch.setattr("tiler.planning.BLOCK", SIDE)


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a scene and a network."""
    rng = np.random.default_rng(0)
    raw_CHW = rng.integers(1, 255, (3, HEIGHT, WIDTH), np.uint8)
    raw_CHW[:, 140:260, :130] = 0
    write_raster(tmp_path / "scene.tif", raw_CHW, nodata=0, crs="EPSG:32633", transform=HERE, tiled=True)
    networks.unet(tmp_path / "net.onnx")
    return tmp_path


class Stop(Exception):  # noqa: N818 - not an error
    """Stands for whatever ends a run early."""


class StopAt:
    """An observer that ends the run at the n-th event of a kind."""

    def __init__(self, kind: type, number: int = 1) -> None:
        self.kind, self.left = kind, number

    def __call__(self, event) -> None:
        if isinstance(event, self.kind):
            self.left -= 1
            if self.left == 0:
                raise Stop


def run(place, name="out.tif", observer=lambda event: None, model="net.onnx", **options):
    """Segment the scene."""
    source = place / "scene.tif"
    network = model if not isinstance(model, str) else place / model
    return segment(source, network, place / name, RunOptions(**options), observer)


def contents(place, name="out") -> dict[str, bytes]:
    """The rasters of a run by suffix."""
    return {p.name.removeprefix(name): p.read_bytes() for p in place.glob(f"{name}*.tif") if p.is_file()}


def needed_tiles(job, plan, missing: BlockSet) -> int:
    """Tiles that contribute a valid pixel to a missing block, counted from the geometry alone."""
    count = 0
    for strip in plan.strips():
        for row in strip.rows:
            for column in strip.columns:
                share = strip.share(row, column)
                count += missing.touches(share) and bool(job.raster.read(share).valid_HW.any())
    return count


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stops", [(1,), (5,), (11,), (12,), (1, 1, 1), (4, 3), (2, 2, 2, 2, 2)])
def test_stopped_after_any_block_and_run_again(place, mode, stops):
    """The same bytes; and only the tiles are computed that missing blocks need: not one tile row too many."""
    options = MODES[mode]
    run(place, "whole.tif", **options)
    job = prepare(place / "scene.tif", place / "net.onnx", RunOptions(**options))
    for number in stops:
        left = len(missing_blocks(place, job))
        if left:
            with pytest.raises(Stop):
                run(place, observer=StopAt(BlockStored, min(number, left)), **options)
    plan = Manifest.from_json((place / "out.tif.run" / "manifest.json").read_text()).plan
    missing = missing_blocks(place, job)
    report = run(place, **options)
    assert report is not None
    assert report.blocks_computed == len(missing)
    assert report.tiles_computed == needed_tiles(job, plan, missing)
    assert contents(place) == contents(place, "whole")
    assert not (place / "out.tif.run").exists()


def missing_blocks(place, job) -> BlockSet:
    """What the run directory does not hold."""
    plan = job.plan()
    folder = place / "out.tif.run"
    if not folder.exists():
        return BlockSet.all(plan.blocks)
    store = BlockStore(folder / "blocks", plan.blocks, job.finisher.planes)
    store.open()
    return BlockSet.all(store.grid).without(store.present())


@pytest.mark.parametrize("kind", [Finishing, Publishing])
def test_stopped_while_finishing(place, kind):
    """Nothing is computed again."""
    run(place, "whole.tif")
    with pytest.raises(Stop):
        run(place, observer=StopAt(kind))
    assert not list(place.glob("out.*[!n]"))
    report = run(place)
    assert report.blocks_computed == report.tiles_computed == 0
    assert contents(place) == contents(place, "whole")


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
def test_stopped_between_two_renames(place, number, flag, monkeypatch):
    """Some files have their names, the output itself is the last; the same command puts the rest right."""
    run(place, "whole.tif", output="both")
    files = (place / "scene.tif", place / "net.onnx", place / "out.tif")
    arguments = ["segment", *files, "--output", "both", *flag]
    real, calls = Path.replace, []

    def replace_some(self, target):
        if self.name.startswith("finished-"):
            calls.append(target)
            if len(calls) > number:
                raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace_some)
    assert run_command(command, [*map(str, arguments), "--quiet"]) == 4
    assert not (place / "out.tif").exists()
    monkeypatch.setattr(Path, "replace", real)
    assert run_command(command, [*map(str, arguments), "--quiet"]) == 0
    assert contents(place) == contents(place, "whole")
    assert json.loads((place / "out.report.json").read_text())["blocks_computed"] == 0
    assert not list(place.glob("*.run*"))


def test_a_finished_output_is_left_alone(place):
    """The same command says so and ends well; nothing is read, computed or written again."""
    first = run(place)
    before = {p: p.stat().st_mtime_ns for p in place.iterdir()}
    (place / "out.tif.run").mkdir()
    (place / "out.tif.run" / "manifest.json").write_text("left behind by a kill while cleaning up")
    events = []
    again = run(place, observer=events.append)
    assert again == first
    assert any(isinstance(e, Noted) and "finished already" in e.message for e in events)
    assert {p: p.stat().st_mtime_ns for p in place.iterdir()} == before


def test_overwrite_of_a_finished_output_computes_it_again(place):
    run(place)
    assert run(place, overwrite=True).blocks_computed == BLOCKS
    assert sorted(p.suffix for p in place.glob("out*")) == [".json", ".qml", ".tif", ".toml"]


def test_the_same_command_with_overwrite_carries_on(place):
    """Whoever typed --overwrite at first may type it again without losing what is computed."""
    run(place, tile=64)
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 7), overwrite=True)
    assert run(place, overwrite=True).blocks_computed == BLOCKS - 7


def flipped_weight(place) -> Path:
    """The network with one bit of one weight changed."""
    proto = onnx.load(place / "net.onnx")
    weights = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weights.view(np.uint32).ravel()[0] ^= 1
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, proto.graph.initializer[0].name))
    onnx.save(proto, place / "net.onnx")


def changed_pixel(place) -> None:
    content = bytearray((place / "scene.tif").read_bytes())
    content[-1] ^= 1
    (place / "scene.tif").write_bytes(content)


def mask_beside(place) -> None:
    settings = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False)
    with settings, rasterio.open(place / "scene.tif", "r+") as dataset:
        dataset.write_mask(np.full((HEIGHT, WIDTH), 255, np.uint8))
    assert (place / "scene.tif.msk").exists()


CHANGES = {
    "weight": (flipped_weight, {}, "another model"),
    "pixel": (changed_pixel, {}, "another input file"),
    "mask": (mask_beside, {}, "another "),
    "halo": (None, {"halo": 48}, "(halo: 24 then, 48 now)"),
    "blend": (None, {"blend": "hann"}, "exact"),
    "nodata": (None, {"nodata": 7.0}, "nodata"),
    "output": (None, {"output": "both"}, "output"),
    "bands": (None, {"bands": (3, 2, 1)}, "bands"),
    "resolution": (None, {"resolution": 1.0}, "size"),
    "threshold": (None, {"classes": ("x", "y")}, "another model, or its description"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_not_carried_on_by_another(place, name):
    """Whatever would change a byte is named; --overwrite starts anew."""
    change, options, words = CHANGES[name]
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 5))
    if change:
        change(place)
    before = {p: p.read_bytes() for p in (place / "out.tif.run" / "blocks").rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"was begun with another .*--overwrite") as caught:
        run(place, **options)
    assert words in str(caught.value)
    assert {p: p.read_bytes() for p in (place / "out.tif.run" / "blocks").rglob("*") if p.is_file()} == before
    assert run(place, overwrite=True, **options).blocks_computed >= BLOCKS / 4


def test_statistics_that_a_viewer_leaves_beside_the_scene_do_not_matter(place):
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 5))
    (place / "scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert run(place).blocks_computed == BLOCKS - 5


@pytest.mark.parametrize("name", ["weight", "halo", "output"])
def test_a_finished_output_of_another_run_is_kept(place, name):
    change, options, words = CHANGES[name]
    run(place)
    before = contents(place)
    if change:
        change(place)
    with pytest.raises(UsageError, match=r"exists, made with another .*--overwrite") as caught:
        run(place, **options)
    assert words in str(caught.value)
    assert contents(place) == before
    assert not (place / "out.tif.run").exists()


@pytest.mark.parametrize(("name", "value"), [("processor", lambda: "another"), ("__version__", "9.9")])
def test_another_processor_or_version_does_not_carry_on(place, monkeypatch, name, value):
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored))
    monkeypatch.setattr(fingerprint, name, value)
    with pytest.raises(UsageError, match=r"kind of processor|version of gigatiler"):
        run(place)


@pytest.mark.parametrize("options", [{"batch": 3}, {"threads": 1}, {"tile": 256}, {"memory": 10**10}])
def test_what_changes_no_byte_may_change(place, options):
    """The first run's plan is kept."""
    run(place, "whole.tif", tile=128)
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 5), tile=128)
    report = run(place, **{"tile": 128, **options})
    assert report.plan["tile"] == [128, 128]
    assert contents(place) == contents(place, "whole")


def test_a_run_that_stored_nothing_yet_binds_nobody(place):
    """There is nothing to lose."""
    with pytest.raises(Stop):
        run(place, observer=StopAt(Noted))
    assert not (place / "out.tif.run").exists()
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored))
    shutil.rmtree(place / "out.tif.run" / "blocks" / "c")
    assert run(place, halo=48).blocks_computed == BLOCKS


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"format": 99}', b'{"format": 1}', b"\xff"])
def test_a_manifest_that_is_none_is_refused(place, content):
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored))
    (place / "out.tif.run" / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"--overwrite"):
        run(place)
    assert run(place, overwrite=True).blocks_computed == BLOCKS


@pytest.mark.parametrize("name", ["thesis.txt", "thesis.tif", "padlock", "blocks/mine", "finished"])
@pytest.mark.parametrize("state", ["alone", "finished"])
def test_a_folder_that_is_no_run_directory_is_left_alone(place, name, state):
    """Also with --overwrite, and beside a finished output."""
    if state == "finished":
        run(place)
    precious = place / "out.tif.run" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    if state == "finished":
        run(place)
    for overwrite in (False, True) if state == "alone" else (True,):
        with pytest.raises(UsageError, match=rf"holds {precious.name}; move it away"):
            run(place, overwrite=overwrite)
    assert precious.read_text() == "precious"


def test_what_only_sounds_like_ours_is_left_alone(place):
    """A copy that somebody made, a file, a link to another place."""
    kept = place / "out.tif.run.old"
    kept.mkdir()
    (kept / "lock").write_text("precious")
    run(place, overwrite=True)
    run(place)
    assert (kept / "lock").read_text() == "precious"
    (place / "out.tif").unlink()
    (place / "out.tif.run").write_text("precious")
    with pytest.raises(UsageError, match=r"is no directory; move it away"):
        run(place, overwrite=True)
    (place / "out.tif.run").unlink()
    (place / "out.tif.run").symlink_to(kept)
    with pytest.raises(UsageError, match=r"no run directory"):
        run(place, overwrite=True)
    assert (kept / "lock").exists()


def test_another_run_that_was_begun_beside_a_finished_output_is_kept(place):
    """The first command says that it is finished; the second one's blocks are still there."""
    run(place)
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 7), overwrite=True, halo=48)
    run(place)
    assert run(place, overwrite=True, halo=48).blocks_computed == BLOCKS - 7


@pytest.mark.parametrize("name", ["out.config.toml", "out.qml"])
def test_a_small_file_that_is_gone_is_made_anew_alone(place, name):
    """Nothing is computed, and nothing else is touched."""
    run(place)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in place.glob("out*")}
    (place / name).unlink()
    events = []
    run(place, observer=events.append)
    assert next(e.message for e in events if isinstance(e, Noted)).endswith("was gone and is made anew")
    content = before.pop(place / name)[1]
    assert (place / name).read_bytes() == content
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before


def test_a_finished_output_of_which_a_file_is_gone(place):
    """It is said so."""
    run(place)
    (place / "out.tif").unlink()
    with pytest.raises(UsageError, match=r"a run of which other files are gone; pass --overwrite"):
        run(place)
    run(place, overwrite=True)


@pytest.mark.parametrize("what", ["pixels", "gone"])
@pytest.mark.parametrize("on_error", ["fail", "nodata"])
def test_a_source_that_is_replaced_while_it_is_read(place, what, on_error):
    """No map of two scenes, and no nodata for a disk that is gone; with the old one back it goes on."""
    run(place, "whole.tif", tile=64, batch=1)
    scene, old = place / "scene.tif", place / "old.tif"

    def change(event):
        if isinstance(event, BlockStored) and not old.exists():
            scene.rename(old)
            if what == "pixels":
                shutil.copy(old, scene)

    with pytest.raises(DamageError, match=r"changed while it was read|bring it back"):
        run(place, observer=change, tile=64, batch=1, on_error=on_error)
    assert not (place / "out.tif").exists()
    old.rename(scene)
    assert run(place, tile=64, batch=1, on_error=on_error).blocks_computed < BLOCKS
    assert contents(place) == contents(place, "whole")


def test_a_shard_does_not_finish_another_run(place, monkeypatch):
    """Somebody has begun anew while it waited."""
    for number in (2, 3):
        run(place, shard=(number, 3))
    real = RunFolder.take_over

    def late(self, mark):
        self._release()
        with pytest.raises(Stop):
            run(place, observer=StopAt(BlockStored, 9), overwrite=True, halo=48)
        return real(self, mark)

    monkeypatch.setattr(RunFolder, "take_over", late)
    with pytest.raises(UsageError, match=r"was begun anew with another .*halo"):
        run(place, shard=(1, 3))
    monkeypatch.undo()
    monkeypatch.setattr("tiler.planning.BLOCK", SIDE)
    assert not (place / "out.tif").exists()
    assert run(place, overwrite=True, halo=48).blocks_computed == BLOCKS - 9


def test_a_file_that_somebody_puts_there_meanwhile_is_not_replaced(place):
    def put(event):
        if isinstance(event, Finishing):
            (place / "out.tif").write_text("precious")

    with pytest.raises(UsageError, match=r"out\.tif exists"):
        run(place, observer=put)
    assert (place / "out.tif").read_text() == "precious"
    (place / "out.tif").unlink()
    assert run(place).blocks_computed == 0


def test_sidecars_of_a_replaced_output_go(place):
    """They would lie about the new one; those of nobody stay."""
    (place / "out.tif.msk").write_text("precious")
    run(place, output="both")
    assert (place / "out.tif.msk").exists()
    for name in ("out.tif.aux.xml", "out.probabilities.tif.ovr"):
        (place / name).write_text("old")
    run(place, output="both", overwrite=True)
    assert not [p for p in place.glob("out*") if p.suffix in {".xml", ".ovr", ".msk"}]


def test_a_resume_may_be_given_less_memory(place):
    """Then its batches, and in exact mode its tiles, are smaller than the first run's; no byte changes."""
    run(place, "whole.tif", tile=256, batch=4)
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 3), tile=256, batch=4)
    job = prepare(place / "scene.tif", place / "net.onnx", RunOptions(tile=256, batch=4))
    full = job.plan()
    # An eighth of the budget is for decoded blocks.
    budget = (full.peak - full.cache - full.terms["network"] // 2) * 8 // 7
    report = run(place, memory=budget)
    assert report.plan["peak"] <= budget
    assert report.plan["batch"] < 4
    assert contents(place) == contents(place, "whole")
    with pytest.raises(Stop):
        run(place, "b.tif", observer=StopAt(BlockStored, 3), tile=256, batch=4)
    assert run(place, "b.tif", batch=1).plan["batch"] == 1
    with pytest.raises(Stop):
        run(place, "c.tif", observer=StopAt(BlockStored, 3), tile=256, batch=4)
    with pytest.raises(UsageError, match=r"the smallest plan of this run needs"):
        run(place, "c.tif", memory=10**7)
    assert (place / "c.tif.run" / "manifest.json").exists()


def chunks(place) -> list[Path]:
    return sorted(p for p in (place / "out.tif.run" / "blocks" / "c").rglob("*") if p.is_file())


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
@pytest.mark.parametrize("mode", MODES)
def test_blocks_that_do_not_read_back_are_computed_again(place, mode, harm):
    """Two of them, and only they."""
    run(place, "whole.tif", **MODES[mode])
    with pytest.raises(Stop):
        run(place, observer=StopAt(Publishing), **MODES[mode])
    harmed = chunks(place)[1:6:4]
    for path in harmed:
        content = bytearray(path.read_bytes())
        if harm == "flip":
            content[len(content) // 2] ^= 4
        path.write_bytes(content if harm == "flip" else content[:20] if harm == "cut" else b"")
        if harm == "gone":
            path.unlink()
    report = run(place, **MODES[mode])
    assert report.blocks_computed == len(harmed)
    assert contents(place) == contents(place, "whole")


def test_a_disk_that_always_lies_ends_the_run(place, monkeypatch):
    """Not an endless loop."""
    real = BlockStore.write

    def lying(self, block, damage=()):
        real(self, block, damage)
        path = self._chunk(*self.grid.place(block.window))
        path.write_bytes(path.read_bytes()[:-1])

    monkeypatch.setattr(BlockStore, "write", lying)
    with pytest.raises(OutputError, match=r"is the disk sound"):
        run(place)
    assert not (place / "out.tif").exists()


def test_a_file_that_does_not_read_back_is_not_published(place, monkeypatch):
    """The checksums taken from the blocks are compared with the finished file."""
    from tiler.sinks import cog

    real = cog.rasterio.shutil.copy

    def wrong(source, target, **options):
        real(source, target, **options)
        content = bytearray(target.read_bytes())
        content[-1000:] = bytes(1000)
        target.write_bytes(content)

    monkeypatch.setattr("rasterio.shutil.copy", wrong)
    with pytest.raises(OutputError, match=r"does not read back"):
        run(place)
    assert not list(place.glob("out.[!t]*")) + list(place.glob("out.tif"))
    monkeypatch.undo()
    monkeypatch.setattr("tiler.planning.BLOCK", SIDE)
    assert run(place).blocks_computed == 0


def test_a_second_run_is_refused_at_once_and_told_who(place, capsys):
    """By a process that is alive; the lock of a dead one is none."""
    with pytest.raises(Stop):
        run(place, observer=StopAt(BlockStored, 3))
    hold = (
        "import sys, time; from pathlib import Path; from tiler.lock import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])); assert lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    arguments = [sys.executable, "-c", hold, place / "out.tif.run" / "lock"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        for flag in ([], ["--overwrite"]):
            words = [f"process {process.pid} on ", "started 20", "is writing"]
            segment_words = ["segment", place / "scene.tif", place / "net.onnx", place / "out.tif", *flag]
            refused(capsys, command, [*segment_words, "--quiet"], *words)
        process.kill()
    assert run(place).blocks_computed == BLOCKS - 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_shards_one_after_another(place, mode, order):
    """The last to be done finishes, whichever it is; the others say what is missing."""
    run(place, "whole.tif", **MODES[mode])
    for number in order:
        events = []
        report = run(place, observer=events.append, shard=(number, 3), **MODES[mode])
        notes = [e.message for e in events if isinstance(e, Noted)]
        if number == order[-1]:
            assert report is not None
            assert isinstance(events[-1], Finished)
        else:
            assert report is None
            assert any(f"shard {number}/3 is done; missing: " in note for note in notes)
            assert f"{order[-1]}/3 (" in notes[-1]
            assert not (place / "out.tif").exists()
    assert contents(place) == contents(place, "whole")
    assert not (place / "out.tif.run").exists()
    assert run(place, shard=(1, 3), **MODES[mode]) == report


@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_a_shard_that_looked_before_another_finished(place, monkeypatch, shard):
    """It does not begin a new run of what is done."""
    made = run(place)
    real, looks = Outputs.finished, []

    def late(self, mark):
        looks.append(1)
        return real(self, mark) if len(looks) > 1 else None

    monkeypatch.setattr(Outputs, "finished", late)
    assert run(place, shard=shard) == made
    assert not list(place.glob("*.run*"))


def test_a_shard_of_another_run_does_not_wait_for_ever(place, monkeypatch):
    """Also where a killed process has noted that it was finishing."""
    monkeypatch.setattr("tiler.folder.PATIENCE", 0.2)
    run(place, shard=(1, 3))
    folder = place / "out.tif.run"
    (folder / "lock").write_text('{"note": "finishing"}')
    shared, lock = RunLock(folder / "lock"), RunLock(folder / "shard-2-of-3.lock")
    assert shared.acquire(shared=True)
    assert lock.acquire()
    with pytest.raises(UsageError, match=r"process .* is writing"):
        run(place, shard=(1, 3), halo=48)
    lock.release()
    shared.release()


def test_a_directory_that_goes_between_two_steps(place, monkeypatch):
    """Another shard finished just then; its output is taken."""
    made = run(place)
    (place / "out.tif").rename(place / "kept.tif")
    real = RunLock.acquire

    def vanishing(self, **how):
        monkeypatch.setattr(RunLock, "acquire", real)
        (place / "kept.tif").rename(place / "out.tif")
        shutil.rmtree(place / "out.tif.run")
        return real(self, **how)

    monkeypatch.setattr(RunLock, "acquire", vanishing)
    monkeypatch.setattr(Outputs, "refuse_existing", lambda self, excused, mark=None: None)
    assert run(place, shard=(1, 2)) == made
    assert not list(place.glob("*.run*"))


def test_a_whole_run_finishes_what_shards_began(place):
    run(place, shard=(2, 3))
    assert run(place).blocks_computed == BLOCKS - BLOCKS // 3


def test_one_shard_is_not_run_twice_at_once(place, capsys):
    """Another one may be."""
    run(place, shard=(2, 3))
    folder = place / "out.tif.run"
    lock, shared = RunLock(folder / "shard-1-of-3.lock"), RunLock(folder / "lock")
    assert shared.acquire(shared=True)
    assert lock.acquire()
    with pytest.raises(UsageError, match=r"process .* is at work on shard 1/3 already"):
        run(place, shard=(1, 3))
    with pytest.raises(UsageError, match=r"process .* is writing .*out.tif"):
        run(place)
    assert run(place, shard=(2, 3)) is None
    lock.release()
    shared.release()
    run(place, shard=(1, 3))
    assert run(place, shard=(3, 3)) is not None


def limited(model, most: int):
    """The model on a machine whose network has memory for ``most`` pixels at once."""

    class Limited:
        workers = most_workers = 1

        def predict(self, batch_NCHW):
            if batch_NCHW[:, 0].size > most:
                raise MemoryError(f"no memory for the network on a batch of {len(batch_NCHW)}")
            return model.backend.predict(batch_NCHW)

        def reserve(self, size, workers):
            model.backend.reserve(size, workers)

        def release(self):
            model.backend.release()

    return replace(model, backend=Limited())


@pytest.mark.parametrize("most", [256**2, 128**2, 96**2, 70**2])
def test_too_little_memory_makes_batches_and_tiles_smaller(place, most):
    """It is said, and changes no byte."""
    model = load_model(place / "net.onnx")
    run(place, "whole.tif", model=model, tile=256, batch=4)
    notes = []
    run(
        place,
        model=limited(model, most),
        observer=lambda e: notes.append(e.message) if isinstance(e, Noted) else None,
        tile=256,
        batch=4,
    )
    assert any("out of memory: going on with" in note for note in notes)
    assert contents(place) == contents(place, "whole")


def test_too_little_memory_for_one_blended_tile_is_an_error(place):
    """Blended tiles are part of the result. More memory, and the run goes on."""
    model = load_model(place / "net.onnx")
    options = MODES["blended"]
    run(place, "whole.tif", **options)
    with pytest.raises(OutOfMemoryError, match=r"would change the result"):
        run(place, model=limited(model, 95**2), **options)
    run(place, model=limited(model, 96**2), batch=2, **options)
    assert contents(place) == contents(place, "whole")


def test_too_little_memory_for_anything_is_an_error(place):
    model = load_model(place / "net.onnx")
    with pytest.raises(OutOfMemoryError, match=r"machine with more memory"):
        run(place, model=limited(model, 50), tile=256)
    assert not list(place.glob("out*"))


def test_an_allocation_that_fails_while_reading_or_storing_is_no_end_either(place, monkeypatch):
    """The whole line goes on with a smaller batch."""
    run(place, "whole.tif")
    real, left = BlockStore.write, [1]

    def scarce(self, block, damage=()):
        if left and left.pop():
            raise MemoryError("Unable to allocate 1.00 MiB")
        real(self, block, damage)

    monkeypatch.setattr(BlockStore, "write", scarce)
    run(place, batch=4, tile=128)
    assert contents(place) == contents(place, "whole")


def test_a_disk_without_room_is_found_before_the_start(place, monkeypatch):
    """With the estimate."""
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr("tiler.space.shutil.disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(OutputError, match=r"up to \d+(\.\d+)? kB of disk .*got 1 kB free"):
        run(place)
    assert not list(place.glob("out*"))


@pytest.mark.parametrize("what", ["run", "folder", "blocks"])
@pytest.mark.parametrize("kind", [BlockStored, Finishing, Publishing])
def test_a_folder_that_vanishes(place, what, kind):
    """It is not brought back; one error, and the same call begins again."""
    run(place, "whole.tif")
    folder = place / "output"
    folder.mkdir()
    gone = {"run": folder / "out.tif.run", "folder": folder, "blocks": folder / "out.tif.run" / "blocks"}[
        what
    ]

    def vanish(event):
        if isinstance(event, kind) and gone.exists():
            shutil.rmtree(gone)

    if what == "blocks" and kind is Publishing:
        # All files are verified by then.
        run(place, "output/out.tif", vanish)
    else:
        with pytest.raises(OutputError, match=r"cannot .*No such file or directory|does not read back"):
            run(place, "output/out.tif", vanish)
        assert not (folder / "out.tif").exists()
        assert gone.exists() <= (what == "run")
        folder.mkdir(exist_ok=True)
        run(place, "output/out.tif")
    assert (folder / "out.tif").read_bytes() == (place / "whole.tif").read_bytes()


def test_damage_error_is_an_os_error():
    """So that a program that knows nothing of us can catch it."""
    assert issubclass(DamageError, OSError)

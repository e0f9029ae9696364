"""A whole run on a tiny set: it learns, it survives a kill without a trace, and refuses what it must."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

torch = pytest.importorskip("torch")

from refusals import refused  # noqa: E402
from tiler.cli.main import run_command, tiler  # noqa: E402
from tiler.errors import (  # noqa: E402
    InputError,
    MissingError,
    OutOfMemoryError,
    OutputError,
    TilerError,
    UsageError,
)
from tiler.spec import ModelSpec, default_classes  # noqa: E402
from train import conclusion, learner, loop, run  # noqa: E402
from train.checkpoint import load_checkpoint, load_state, recover, save_checkpoint  # noqa: E402
from train.cli import main  # noqa: E402
from train.models.options import UNetOptions  # noqa: E402
from train.models.unet import UNet  # noqa: E402
from train.options import TrainOptions  # noqa: E402
from train.writing import write_whole  # noqa: E402
from training_data import (  # noqa: E402
    PLACE,
    SMALL,
    five_pictures,
    flags,
    read_log,
    write,
    write_images,
    write_pair,
)

TOLD = {**SMALL, "batch": 2, "epochs": 8, "crops_per_epoch": 8}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Raster and mask as ``--pair`` takes them."""
    return tuple(map(str, write_pair(tmp_path_factory.mktemp("data"))))


@pytest.fixture(scope="module")
def finished(pair, tmp_path_factory):
    """The folder of an unbroken run."""
    outdir = tmp_path_factory.mktemp("runs") / "finished"
    run.train(TrainOptions(**TOLD, pair=(pair,)), outdir)
    return outdir


def arguments(pair, outdir, **more):
    """Of the command line, for the same run."""
    return [str(outdir), "--pair", *pair, *flags({**TOLD, **more})]


def test_it_learns_bright_squares(finished):
    result = json.loads((finished / "metrics.json").read_text())
    assert result["test"]["classes"]["building"]["iou"] > 0.6
    assert set(result["test"]["classes"]["building"]) == {"iou", "dice", "precision", "recall"}


def test_it_leaves_what_it_says(finished):
    names = {p.name for p in finished.iterdir()}
    assert names == {*("best", "last", "log.csv", "log.jsonl", "curve.png", "metrics.json", "options.toml")}
    assert (finished / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = read_log(finished)
    assert [row["epoch"] for row in rows] == [str(n + 1) for n in range(8)]
    assert {"loss", "lr", "iou_background", "iou_building", "mean_iou", "seconds"} < set(rows[0])
    assert float(rows[0]["loss"]) > float(rows[-1]["loss"])


def test_the_spec_tells_how_the_network_is_fed(finished):
    net, spec = load_checkpoint(finished / "best")
    assert (spec.stride, spec.halo, spec.exact, spec.activation) == (2, net.halo, True, "logits")
    assert spec.scale == (1 / 255,) * 3
    assert all(0 < m < 1 for m in spec.mean)
    assert spec.resolution == pytest.approx(0.5, rel=0.01)
    assert [c.name for c in spec.classes] == ["background", "building"]


def without_seconds(outdir):
    """The log, but for what no two runs share."""
    return [{k: v for k, v in row.items() if k not in {"seconds", "waited"}} for row in read_log(outdir)]


def assert_same_run(one, other):
    """Equal logs, metrics and weights, to the bit."""
    assert without_seconds(one) == without_seconds(other)
    for name in ("metrics.json", "best/model.safetensors", "last/model.safetensors", "best/spec.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("when", ["save_checkpoint", "write_log", "draw_curve", "write_whole"])
def test_a_stop_at_any_write_changes_nothing(pair, finished, tmp_path, monkeypatch, when):
    """Stopped before the fourth call of each writer of an epoch, or before the end, then started again."""
    module = conclusion if when == "write_whole" else loop
    calls, original = [], getattr(module, when)

    def stop(*args):
        calls.append(args)
        if len(calls) == (1 if when == "write_whole" else 4):
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, when, stop)
        with pytest.raises(KeyboardInterrupt):
            run.train(TrainOptions(**TOLD, pair=(pair,)), tmp_path / "run")
    run.train(TrainOptions(**TOLD, pair=(pair,)), tmp_path / "run")
    assert_same_run(tmp_path / "run", finished)


def test_a_swap_cut_in_two_is_undone(tmp_path):
    """Between the two renames of a swap only the old folder is there, under another name."""
    net, spec = UNet(UNetOptions(3, 2, 1, 4)), some_spec()
    save_checkpoint(tmp_path / "last", net, spec)
    (tmp_path / "last").rename(tmp_path / "last.old")
    (tmp_path / "last.partial").mkdir()
    recover(tmp_path / "last")
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert load_checkpoint(tmp_path / "last")[1] == spec


class Disk:
    """Which files and folders were synced, as they are, before something gets its name."""

    def __init__(self, patch):
        self.synced = set()
        patch.setattr("os.fsync", self.sync)

    def sync(self, descriptor):
        self.synced.add(self.state(os.fstat(descriptor)))

    def state(self, stat):
        return stat.st_ino, stat.st_mtime_ns

    def holds(self, path):
        """A file, or a folder with all that is in it."""
        return all(self.state(p.stat()) in self.synced for p in (path, *path.rglob("*")))


def test_what_gets_its_name_is_on_the_disk(tmp_path, monkeypatch):
    """So that a power cut, too, leaves the old or the new: checkpoints before they are swapped, and files."""
    disk, named = Disk(monkeypatch), []

    def spied(plain):
        def rename(path, target):
            if path.name.endswith(".partial"):
                named.append(Path(target).name)
                assert disk.holds(path), path
            return plain(path, target)

        return rename

    monkeypatch.setattr(Path, "rename", spied(Path.rename))
    monkeypatch.setattr(Path, "replace", spied(Path.replace))
    for state in ({"epoch": 1}, {"epoch": 2}):
        save_checkpoint(tmp_path / "last", UNet(UNetOptions(3, 2, 1, 4)), some_spec(), state)
        assert disk.holds(tmp_path / "last")
    write_whole(tmp_path / "metrics.json", b"{}")
    assert named == ["last", "last", "metrics.json"]
    assert disk.state(tmp_path.stat()) in disk.synced


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_sync_that_fails_leaves_the_old_checkpoint_or_the_new(tmp_path, monkeypatch, nth):
    """The n-th one: four files, their folder, and the folder that names it."""
    save_checkpoint(tmp_path / "last", UNet(UNetOptions(3, 2, 1, 4)), some_spec(), {"epoch": 1})
    calls, plain = [], os.fsync

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) == nth:
            raise OSError(5, "Input/output error")
        plain(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OutputError, match="Input/output error") as error:
            save_checkpoint(tmp_path / "last", UNet(UNetOptions(3, 2, 1, 4)), some_spec(), {"epoch": 2})
    assert "\n" not in str(error.value)
    recover(tmp_path / "last")
    assert load_state(tmp_path / "last") == {"epoch": 1 if nth < 6 else 2}
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def some_spec() -> ModelSpec:
    """Three bands and two classes."""
    return ModelSpec(bands=("r", "g", "b"), classes=default_classes(("a", "b")))


def test_a_checkpoint_comes_back_as_it_went(tmp_path):
    net = UNet(UNetOptions(3, 2, 2, 4, "bilinear")).eval()
    save_checkpoint(tmp_path / "c", net, some_spec())
    again, spec = load_checkpoint(tmp_path / "c")
    pixels_NCHW = torch.rand(1, 3, 8, 8)
    assert spec == some_spec()
    assert torch.equal(net(pixels_NCHW), again(pixels_NCHW))


@pytest.mark.parametrize("name", ["model.safetensors", "network.json", "spec.json"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_checkpoint_is_one_line(tmp_path, name, damage):
    save_checkpoint(tmp_path / "c", UNet(UNetOptions(3, 2, 1, 4)), some_spec())
    path = tmp_path / "c" / name
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"checkpoint|metadata") as error:
        load_checkpoint(tmp_path / "c")
    assert "\n" not in str(error.value)


class Evil:
    """What a pickle could do."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_checkpoint_runs_no_code(tmp_path):
    """Weights are safetensors, the rest holds tensors and numbers or is refused."""
    save_checkpoint(tmp_path / "last", UNet(UNetOptions(3, 2, 1, 4)), some_spec(), {"step": 1})
    (tmp_path / "last" / "state.pt").write_bytes(pickle.dumps(Evil(tmp_path / "owned"), protocol=2))
    with pytest.raises(InputError, match="cannot be read"):
        load_state(tmp_path / "last")
    torch.save({"step": Evil(tmp_path / "owned")}, tmp_path / "last" / "state.pt")
    with pytest.raises(InputError, match="cannot be read"):
        load_state(tmp_path / "last")
    (tmp_path / "last" / "model.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "owned")))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path / "last")
    assert not (tmp_path / "owned").exists()


def test_a_finished_run_is_not_run_again(pair, finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    said = []
    result = run.train(TrainOptions(**TOLD, pair=(pair,)), finished, say=said.append)
    assert "finished" in said[0]
    assert result == json.loads((finished / "metrics.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before


def test_other_options_are_refused_by_name(pair, finished):
    with pytest.raises(UsageError, match=r"--crops-per-epoch was 8, got 16.*--overwrite"):
        run.train(TrainOptions(**{**TOLD, "crops_per_epoch": 16}, pair=(pair,)), finished)
    with pytest.raises(UsageError, match=r"--resolution was not given, got 1\.0"):
        run.train(TrainOptions(**TOLD, pair=(pair,), resolution=1.0), finished)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_other_data_is_refused(tmp_path, monkeypatch):
    """With an image more, parts are divided anew: what was tested on would be learnt from."""
    images, masks = write_images(tmp_path, [(64, 64)] * 5)
    options = TrainOptions(**{**TOLD, "epochs": 2}, images=str(images), masks=str(masks), val=0.2, test=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(run, "conclude", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.train(options, tmp_path / "run")
    (images / "0.png").replace(images / "9.png")
    (masks / "0.png").replace(masks / "9.png")
    with pytest.raises(UsageError, match=r"data that it began with.*--overwrite"):
        run.train(options, tmp_path / "run")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_other_labels_are_refused(tmp_path, monkeypatch, part):
    """Of the same pixels: one pixel of one mask is of another class."""
    options = TrainOptions(**{**TOLD, "epochs": 1}, **five_pictures(tmp_path, 32))
    with monkeypatch.context() as patch:
        patch.setattr(run, "conclude", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.train(options, tmp_path / "run")
        with pytest.raises(KeyboardInterrupt):  # nothing has changed
            run.train(options, tmp_path / "run")
    mask = getattr(run.find_data(options).split, part)[0].source.labels.path
    with rasterio.open(mask) as dataset:
        raw_1HW = dataset.read()
    raw_1HW[0, 0, 0] ^= 1
    write(mask, raw_1HW)
    with pytest.raises(UsageError, match=rf"the {part} part has others now.*--overwrite") as error:
        run.train(options, tmp_path / "run")
    assert "\n" not in str(error.value)


def test_labels_are_told_apart_by_what_is_learnt_from(tmp_path):
    """The same under another name or coding; other objects only where gaps between them count."""
    numbered_1HW = np.arange(48 * 200, dtype=np.uint16).reshape(1, 48, 200) // 200 % 3
    image, mask = write_pair(tmp_path, 48, 200)

    def digest(raw_1HW, **told):
        write(mask, raw_1HW, **PLACE)
        options = TrainOptions(**TOLD, pair=((str(image), str(mask)),), **told)
        return run.look_at(run.find_data(options), options).labels

    objects = {"coding": "instances"}
    plain = digest(numbered_1HW, **objects)
    assert digest((numbered_1HW > 0).astype(np.uint8)) == plain
    assert digest(numbered_1HW[:, ::-1], **objects) == digest(5 * numbered_1HW[:, ::-1], **objects) != plain
    gaps = {**objects, "border_weight": 10.0}
    assert digest(numbered_1HW, **gaps) != digest(5 * numbered_1HW, **gaps)


def test_weights_are_refused_before_the_data_is_read(pair, tmp_path, monkeypatch):
    """A file that is not there, is none, or is of another network."""

    def read(*_):
        raise AssertionError("the data was read first")

    monkeypatch.setattr(run, "look_at", read)
    (tmp_path / "text.pth").write_text("weights")
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    for name, words in {"none": "is there, got", "text": "state dict", "other": "choose the preset"}.items():
        told = {**TOLD, "weights": str(tmp_path / f"{name}.pth")}
        with pytest.raises(InputError, match=words) as error:
            run.train(TrainOptions(**told, pair=(pair,)), tmp_path / "run")
        assert "\n" not in str(error.value)
        assert "weights_only" not in str(error.value)  # which PyTorch advises to switch off
        assert not (tmp_path / "run").exists()


def interrupted(*_):
    raise KeyboardInterrupt


def test_other_workers_or_threads_are_not(pair, finished):
    run.train(TrainOptions(**{**TOLD, "threads": 2}, pair=(pair,), workers=1), finished)


def test_a_foreign_folder_is_left_alone(pair, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    options = TrainOptions(**TOLD, pair=(pair,))
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="OUTDIR is new"):
            run.train(options, tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_refused_removes_nothing(pair, finished, tmp_path):
    """An earlier run goes when the next one begins, not when a path is mistyped."""
    outdir = shutil.copytree(finished, tmp_path / "run")
    (outdir / "notes.txt").write_text("mine")
    before = sorted(outdir.rglob("*"))
    wrong = TrainOptions(**TOLD, pair=((pair[0], str(tmp_path / "none.tif")),))
    with pytest.raises(InputError, match=r"none\.tif"):
        run.train(wrong, outdir, overwrite=True)
    assert sorted(outdir.rglob("*")) == before
    # The weights to start from may be those of the run that is replaced.
    told = {**TOLD, "epochs": 1, "weights": str(outdir / "best")}
    assert run.train(TrainOptions(**told, pair=(pair,)), outdir, overwrite=True)["epochs"] == 1
    assert (outdir / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_line(pair, tmp_path):
    """As on a full or read-only disk."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        run.train(TrainOptions(**TOLD, pair=(pair,)), tmp_path / "file" / "run")


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    """PyTorch raises a RuntimeError when the disk is full."""

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr("train.checkpoint.torch.save", full)
    with pytest.raises(OutputError, match="file write failed"):
        save_checkpoint(tmp_path / "last", UNet(UNetOptions(3, 2, 1, 4)), some_spec(), {"epoch": 1})
    assert not (tmp_path / "last").exists()


def test_divergence_is_an_error(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "make_loss", lambda _: lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(TilerError, match=r"diverged in epoch 1.*--lr"):
        run.train(TrainOptions(**TOLD, pair=(pair,)), tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_an_error(pair, tmp_path):
    with pytest.raises(MissingError, match="--device cuda"):
        run.train(TrainOptions(**{**TOLD, "device": "cuda"}, pair=(pair,)), tmp_path / "run")


# --- the command line


def test_bad_usage_is_one_line(capsys, pair, tmp_path):
    outdir = tmp_path / "run"
    refused(capsys, main, [str(outdir)], "--classes")
    refused(capsys, main, [str(outdir), "--classes", "a,b"], "--pair")
    refused(capsys, main, arguments(pair, outdir, crop=31), "--crop", "31")
    refused(capsys, main, arguments(pair, outdir, colour="red"), "--colour")
    refused(capsys, main, arguments(pair, outdir, bands="1,x"), "--bands", "1,x")
    refused(capsys, main, arguments(pair, outdir, precision="fp16"), "fp16", "GPU")
    refused(capsys, main, arguments((str(tmp_path / "none.tif"), pair[1]), outdir), "none.tif")
    refused(capsys, main, arguments(pair, outdir, bands="1,2,9"), "bands")
    refused(
        capsys,
        main,
        [str(outdir), "--classes", "a,b", "--images", str(tmp_path), "--masks", "nowhere"],
        "nowhere",
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('data = "folder"', 'data in CONFIG is a list like ["a", "b"], got \'folder\''),
        ('pair = ["a.tif", "b.tif"]', 'pair in CONFIG is a list like [["a", "b"], ["c", "d"]]'),
        ("class_weights = [[1]]", "class_weights in CONFIG is text, a number, or a list of these"),
        ("batch = [1]", "batch in CONFIG is text or a number, got [1]"),
        ("seed = 99999999999999999999", "--seed is a number from 0 to 2^63 - 1"),
    ],
)
def test_a_wrong_config_is_one_line(capsys, pair, tmp_path, lines, words):
    (tmp_path / "c.toml").write_text(lines)
    command = [tmp_path / "run", "--pair", *pair, "--classes", "a,b", "--config", tmp_path / "c.toml"]
    refused(capsys, main, command, words.replace("CONFIG", str(tmp_path / "c.toml")))


def test_too_little_memory_is_one_line(capsys, pair, tmp_path):
    """PyTorch raises a RuntimeError like any other."""
    refused(capsys, main, [*arguments(pair, tmp_path / "run", width=10**10), "--quiet"], "--width", code=3)


def test_the_first_of_several_processes_speaks(capsys, pair, tmp_path, monkeypatch):
    """What all refuse alike is said once; what may be one's own is said by that one."""
    monkeypatch.setattr("train.cli.MOMENT", 0)
    words = [str(tmp_path / "run"), "--pair", *pair]
    monkeypatch.setenv("RANK", "1")
    for wrong, code in (("--colour red", 2), ("--crop 31", 2), ("--device cuda", 3)):
        if code == 3 and torch.cuda.is_available():
            continue
        command = [*words, "--classes", "a,b", *wrong.split()]
        assert run_command(main, command) == code
        assert capsys.readouterr() == ("", "")
        with monkeypatch.context() as patch:
            patch.setenv("RANK", "0")
            refused(capsys, main, command, wrong.split()[0], code=code)

    def raise_it(error):
        monkeypatch.setattr(run, "train", lambda *_, **__: (_ for _ in ()).throw(error))

    raise_it(OutOfMemoryError("a batch fits"))
    refused(capsys, main, [*words, "--classes", "a,b"], "a batch fits", code=3)
    raise_it(KeyboardInterrupt())
    assert run_command(main, [*words, "--classes", "a,b"]) == 4
    assert capsys.readouterr().err.strip() == ""


def test_a_refused_run_can_be_corrected(capsys, pair, tmp_path):
    """A mistake found in the data leaves no folder that insists on the mistaken options."""
    outdir = tmp_path / "run"
    refused(capsys, main, arguments((pair[0], str(tmp_path / "none.tif")), outdir), "none.tif")
    assert not outdir.exists() or not any(outdir.iterdir())


def test_a_config_file_gives_every_option(finished, tmp_path, capsys):
    """The options.toml of a run, as --config, is the same run."""
    assert run_command(main, [str(finished), "--config", str(finished / "options.toml")]) == 0
    assert "is finished" in capsys.readouterr().out
    (tmp_path / "c.toml").write_text('classes = "a,b"\ncrop_size = 3\n')
    refused(capsys, main, [str(tmp_path / "run"), "--config", str(tmp_path / "c.toml")], "crop_size")


def test_tiler_train_is_the_same_command(capsys):
    assert run_command(tiler, ["train", "--help"], "tiler") == 0
    by_tiler = capsys.readouterr().out
    assert run_command(main, ["--help"], "tiler train") == 0
    assert capsys.readouterr().out == by_tiler


def test_help_needs_no_torch():
    code = "import sys, train.cli, export.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_quiet_is(finished, capsys):
    assert run_command(main, [str(finished), "--config", str(finished / "options.toml"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")

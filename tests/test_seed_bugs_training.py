"""Mistakes of the seed systems' training loops, each with a test that it is not made here.

Numbers are those of section (d) of the inventory of seed systems.
"""

from __future__ import annotations

import json
import math
import sys
import tomllib

import pytest

torch = pytest.importorskip("torch")

from tiler.cli.main import run_command  # noqa: E402
from tiler.errors import OutOfMemoryError, TilerError, UsageError  # noqa: E402
from train import learner, loop, run  # noqa: E402
from train.checkpoint import load_checkpoint, load_state  # noqa: E402
from train.cli import main  # noqa: E402
from train.freezing import batch_norms, set_training  # noqa: E402
from train.machine import Machine  # noqa: E402
from train.models.network import Network  # noqa: E402
from train.models.presets import make  # noqa: E402
from train.options import TrainOptions  # noqa: E402
from train.recompute import recompute_blocks  # noqa: E402
from training_data import SMALL, five_pictures, flags, read_log  # noqa: E402
from training_processes import Run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TOLD = {
    **SMALL,
    "batch": 4,
    "epochs": 3,
    "crops_per_epoch": 8,
    "schedule": "multistep",
    "milestones": (1.0, 2.0),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pictures, less than a batch of them in each part."""
    return five_pictures(tmp_path_factory.mktemp("pictures"), 48)


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    outdir = tmp_path_factory.mktemp("runs") / "finished"
    run.train(TrainOptions(**TOLD, **folders), outdir)
    return outdir


def result_of(outdir):
    return json.loads((outdir / "metrics.json").read_text())


def test_d2_3_the_loss_is_the_mean_of_its_epoch(folders, tmp_path, monkeypatch):
    """The seed divided a sum that it never reset: a loss of 1 was printed as 31.7."""
    monkeypatch.setattr(learner, "make_loss", lambda _: lambda logits, *_: logits.sum() * 0 + 1)
    run.train(TrainOptions(**TOLD, **folders), tmp_path / "run")
    assert [row["loss"] for row in read_log(tmp_path / "run")] == ["1", "1", "1"]


def test_d2_4_a_run_carries_on_with_all_of_its_state(folders, finished, tmp_path, monkeypatch):
    """The seed loaded another file than it saved, and saved neither optimiser nor schedule."""
    monkeypatch.setattr(run, "conclude", stop)
    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "begin", stop_at_third(learner.Learner.begin))
        with pytest.raises(KeyboardInterrupt):
            run.train(TrainOptions(**TOLD, **folders), tmp_path / "run")
    said = []
    with pytest.raises(KeyboardInterrupt):
        run.train(TrainOptions(**TOLD, **folders), tmp_path / "run", say=said.append)
    assert "carrying on after epoch 2" in said
    assert [row["epoch"] for row in read_log(tmp_path / "run")] == ["1", "2", "3"]
    one, other = (load_checkpoint(d / "last")[0].state_dict() for d in (finished, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def stop(*_):
    raise KeyboardInterrupt


def stop_at_third(plain):
    calls = []

    def begin(self):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        plain(self)

    return begin


def test_d3_2_recomputation_computes(folders):
    """The seed's called a module as if it were a function, so that its way out of memory crashed."""
    net = make("milesial", 3, 2, width=4, depth=2)
    recompute_blocks(net)
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_d3_2_a_full_gpu_is_one_line(folders, tmp_path, monkeypatch):
    """The seed caught the error and went on with what then crashed; here it is said what helps."""

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(learner, "make_loss", lambda _: full)
    with pytest.raises(OutOfMemoryError, match=r"4 crops of 32 px.*--recompute") as error:
        run.train(TrainOptions(**TOLD, **folders), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_d3_7_mixed_precision_neither_diverges_nor_hides_it(folders, tmp_path, monkeypatch):
    """The seed's losses became NaN and its masks black; losses are computed in float32 here."""
    seen = []

    def spied(options):
        loss = plain(options)
        return lambda logits, *more: seen.append(logits.dtype) or loss(logits, *more)

    plain = learner.make_loss
    with monkeypatch.context() as patch:
        patch.setattr(learner, "make_loss", spied)
        run.train(TrainOptions(**TOLD, **folders, precision="bf16"), tmp_path / "run")
    assert set(seen) == {torch.float32}
    assert all(math.isfinite(float(row["loss"])) for row in read_log(tmp_path / "run"))
    monkeypatch.setattr(learner, "make_loss", lambda _: lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(TilerError, match="diverged in epoch 1"):
        run.train(TrainOptions(**TOLD, **folders, precision="bf16"), tmp_path / "nan")
    assert not (tmp_path / "nan" / "best").exists()


def test_d3_9_a_validation_part_smaller_than_a_batch_counts_in_full(finished):
    """The seed dropped the last batch of the validation part, and with a small part all of it."""
    assert result_of(finished)["val"]["pixels"] == 48 * 48


def test_d3_12_no_service_is_needed(folders, tmp_path, monkeypatch):
    """The seed could not run without Weights & Biases."""
    for name in ("wandb", "tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    run.train(TrainOptions(**{**TOLD, "epochs": 1}, **folders), tmp_path / "run")
    assert result_of(tmp_path / "run")["epochs"] == 1


@pytest.mark.parametrize("name", ["recompute", "sync-norm", "freeze-norm", "nesterov", "tensorboard"])
def test_d3_14_false_is_not_true(capsys, tmp_path, name):
    """The seed's ``--amp False`` was True, as any text is."""
    command = [str(tmp_path / "run"), "--classes", "a,b"]
    assert run_command(main, [*command, f"--{name}", "False"]) == 2
    assert "False" in capsys.readouterr().err
    (tmp_path / "c.toml").write_text(f'{name.replace("-", "_")} = "False"\n')
    assert run_command(main, [*command, "--config", str(tmp_path / "c.toml")]) == 2
    assert "true or false" in capsys.readouterr().err


def test_d3_15_without_a_launcher_it_is_one_process(monkeypatch):
    """The seed's script for several GPUs crashed without torchrun: a rank was missing."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    machine = Machine.start(TrainOptions(**TOLD, images="i", masks="m"))
    assert (machine.world, machine.rank, machine.first) == (1, 0, True)
    assert str(machine) == "on cpu"


def test_d3_16_the_best_score_is_carried_on(finished):
    """The seed forgot it when it resumed, and then wrote a worse model over a better."""
    progress = load_state(finished / "last")["progress"]
    assert progress["scores"] == {
        int(row["epoch"]): pytest.approx(float(row["mean_iou"]), abs=1e-7) for row in read_log(finished)
    }


def test_d3_18_the_test_part_chooses_nothing(folders, tmp_path, monkeypatch):
    """The seed chose its best epoch by the test half, and published that score."""
    looked, plain = [], loop.evaluate_together

    def spied(machine, net, parts, *more):
        looked.extend(part.source.image for part in parts)
        return plain(machine, net, parts, *more)

    monkeypatch.setattr(loop, "evaluate_together", spied)
    options = TrainOptions(**{**TOLD, "epochs": 1}, **folders)
    run.train(options, tmp_path / "run")
    split = run.find_data(options).split
    assert looked == [part.source.image for part in split.val]
    assert not {part.source.image for part in split.test} & set(looked)


def test_d3_21_no_image_is_counted_twice(folders):
    """The seed's sampler filled shares up with images of others: its scores counted them twice."""

    class One:
        num_processes = 4

        def __init__(self, rank):
            self.process_index = rank

    shares = [Machine(One(rank)).share(range(10)) for rank in range(4)]
    assert sorted(item for share in shares for item in share) == list(range(10))


@pytest.mark.slow
def test_d4_9_workers_change_nothing(folders, tmp_path):
    """The seed gave every worker, in every epoch, one seed: the same augmentations came again."""
    told = {**TOLD, **folders, "dropout": 0.2}
    for name, workers in (("alone", 0), ("two", 2)):
        said, code = Run({**told, "workers": workers}, tmp_path / name).end()
        assert code == 0, said
    one, other = ((tmp_path / d / "last" / "model.safetensors").read_bytes() for d in ("alone", "two"))
    assert one == other


def test_d4_10_the_best_is_by_score(finished):
    """The seed kept the weights of the lowest validation loss, which were not those of the highest score."""
    with pytest.raises(UsageError, match="--best-by"):
        TrainOptions(**TOLD, images="i", masks="m", best_by="loss")
    scores = [float(row["mean_iou"]) for row in read_log(finished)]
    assert result_of(finished)["best_epoch"] == 1 + scores.index(max(scores))


def test_d4_11_a_frozen_encoder_keeps_its_statistics():
    """The seed froze the weights, and its batch norms went on to follow the batches."""
    net = make("bubbliiiing-resnet50", 3, 2, width=4)
    norms = [norm for module in net.encoder_modules() for norm in batch_norms(module)]
    assert norms
    before = [norm.running_var.clone() for norm in norms]
    set_training(net, frozen=True, norms_frozen=False)
    net(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(norm.running_var, was) for norm, was in zip(norms, before, strict=True))


def test_d5_4_d7_8_validation_neither_trains_nor_keeps_gradients(folders, tmp_path, monkeypatch):
    """The seeds validated in training mode or not at all, kept gradients, and wanted CUDA."""
    modes, plain = [], Network.__call__

    def spied(self, *inputs):
        modes.append((self.training, torch.is_grad_enabled()))
        return plain(self, *inputs)

    monkeypatch.setattr(Network, "__call__", spied)
    run.train(TrainOptions(**{**TOLD, "epochs": 1}, **folders), tmp_path / "run")
    assert set(modes) == {(True, True), (False, False)}
    assert modes.count((True, True)) == 2  # the steps
    assert float(read_log(tmp_path / "run")[0]["mean_iou"]) > 0


def test_d6_3_a_schedule_is_followed_and_logged(finished):
    """The seed never stepped MultiStepLR, and logged the initial rate in every epoch."""
    assert [float(row["lr"]) for row in read_log(finished)] == pytest.approx([0.02, 0.01, 0.005])


def test_d6_4_true_and_false_are_words_of_toml(folders, tmp_path, capsys):
    """The seed compared text with the numbers 1 and 0: what it took for true was false."""
    (tmp_path / "c.toml").write_text("nesterov = 1\n")
    command = [str(tmp_path / "run"), *flags({**TOLD, **folders}), "--config", str(tmp_path / "c.toml")]
    assert run_command(main, command) == 2
    assert "true or false" in capsys.readouterr().err


def test_d7_5_the_test_is_of_the_test_part(finished, folders):
    """The seed's test was missing, and its "test" scores were those of the validation part."""
    result = result_of(finished)
    assert result["test"]["pixels"] == 48 * 48
    assert result["test"] != result["val"]


def test_d7_6_options_are_what_was_told(finished, folders):
    """The seed drew rate, epochs and augmentation at random over what the command line said."""
    written = tomllib.loads((finished / "options.toml").read_text())
    for name, value in {**TOLD, **folders}.items():
        assert written[name] == (list(value) if isinstance(value, tuple) else value)
    assert len(read_log(finished)) == TOLD["epochs"]

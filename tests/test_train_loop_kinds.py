"""Whole runs of every kind of network, precision, target and stage, on tiny pictures: each learns."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tiler.cli.main import run_command  # noqa: E402
from tiler.errors import InputError, MissingError, UsageError  # noqa: E402
from train import learner, loop  # noqa: E402
from train.checkpoint import load_checkpoint  # noqa: E402
from train.cli import main  # noqa: E402
from train.options import TrainOptions  # noqa: E402
from train.recipes import RECIPES, with_recipe  # noqa: E402
from train.run import train  # noqa: E402
from training_data import SMALL, five_pictures, flags, read_log  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TOLD = {**SMALL, "batch": 2, "epochs": 2, "crops_per_epoch": 16, "average": 0.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return five_pictures(tmp_path_factory.mktemp("pictures"), 64)


def run(folders, outdir, **more):
    """A run; None leaves an option away."""
    told = {k: v for k, v in {**TOLD, **folders, **more}.items() if v is not None}
    said = []
    result = train(TrainOptions(**told), outdir, say=said.append)
    rows = [{name: float(value) for name, value in row.items()} for row in read_log(outdir)]
    return result, rows, said


KINDS = {
    "one channel": {"activation": "sigmoid", "loss": "bce+dice"},
    "independent classes": {"activation": "sigmoid", "independent": True, "loss": "bce+dice"},
    "weighted pixels": {"border_weight": 10.0, "weigh_classes": True, "loss": "ce"},
    "balanced": {"balance": 0.5},
    "without padding, finer": {"preset": "paper", "upscale": 2, "crop": 64},
    "bfloat16, frozen first": {
        "preset": "resnet18",
        "depth": None,
        "precision": "bf16",
        "epochs": 3,
        "freeze_epochs": 1,
        "freeze_batch": 4,
        "freeze_lr": 0.01,
    },
    "pieces, recomputed": {"accumulate": 2, "recompute": True},
}
SLOW = {"weighted pixels", "balanced", "one channel"}
"""Kinds of networks are in test_train_presets.py."""


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS])
def test_each_kind_learns(folders, tmp_path, kind):
    result, rows, _ = run(folders, tmp_path / "run", **KINDS[kind])
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert result["test"]["pixels"] >= 64 * 64
    net, spec = load_checkpoint(tmp_path / "run" / "best")
    assert len(spec.classes) == 2
    assert spec.activation == ("sigmoid" if kind == "independent classes" else "logits")
    assert net.classes == (1 if kind == "one channel" else 2)


@pytest.mark.slow
def test_finer_scores_without_padding_meet_their_labels(folders, tmp_path):
    """A margin is of pixels; labels have as many more as scores are finer."""
    told = {"preset": "paper", "upscale": 2, "depth": 1, "crop": 52, "epochs": 1}
    _, rows, _ = run(folders, tmp_path / "run", **told, resize="1")
    assert len(rows) == 1
    assert load_checkpoint(tmp_path / "run" / "best")[1].resize == "1"


def test_pieces_are_the_batch(folders, tmp_path):
    """The mean loss over pieces that are labelled alike is that of the batch."""
    alike = {"norm": "none", "loss": "ce", "epochs": 1}
    _, whole, _ = run(folders, tmp_path / "whole", **alike)
    _, pieces, _ = run(folders, tmp_path / "pieces", **alike, accumulate=2)
    assert [row["loss"] for row in pieces] == pytest.approx([row["loss"] for row in whole], abs=1e-5)


def test_the_encoder_is_frozen_for_its_stage(folders, tmp_path):
    """With lr and batch of its own; then all learns."""
    told = {"preset": "resnet18", "depth": None, "keep_every": 1, "schedule": "constant"}
    _, rows, said = run(folders, tmp_path / "run", **told, freeze_epochs=1, freeze_lr=0.001)
    assert any("frozen for 1 epochs with random weights; give it some by --weights" in line for line in said)
    assert [row["lr"] for row in rows] == [0.001, 0.02]
    first, last = (load_checkpoint(tmp_path / "run" / name)[0] for name in ("epoch-0001", "last"))
    torch.manual_seed(0)
    fresh = with_seed_of(TrainOptions(**{**TOLD, **folders, "preset": "resnet18", "depth": None}))
    for start, frozen, learnt in zip(
        *(list(net.encoder_parameters()) for net in (fresh, first, last)), strict=True
    ):
        assert torch.equal(start, frozen)
        assert not torch.equal(start, learnt)


def with_seed_of(options):
    """The network as a run of these options begins."""
    from train.run import new_network

    return new_network(options, 3, lambda _: None)


def test_only_some_epochs_are_evaluated(folders, tmp_path):
    result, rows, said = run(folders, tmp_path / "run", epochs=3, eval_every=2)
    evaluated = [row["epoch"] for row in rows if row["mean_iou"] == row["mean_iou"]]
    assert evaluated == [2, 3]
    assert result["best_epoch"] in evaluated
    assert sum("val IoU" in line for line in said) == 2


def test_it_stops_early(folders, tmp_path):
    """A rate of nothing improves nothing: the first evaluation stays the best."""
    result, rows, said = run(folders, tmp_path / "run", lr=1e-12, epochs=9, early_stop=1)
    assert len(rows) == result["epochs"] == 2
    assert "stopped early: no better since epoch 1" in said


def test_every_nth_is_kept_and_removed_with_the_run(folders, tmp_path):
    run(folders, tmp_path / "run", epochs=3, keep_every=2)
    kept = sorted(p.name for p in tmp_path.glob("run/epoch-*"))
    assert kept == ["epoch-0002"]
    train(TrainOptions(**{**TOLD, **folders, "epochs": 1}), tmp_path / "run", overwrite=True)
    assert not list(tmp_path.glob("run/epoch-*"))


def test_the_best_is_by_what_was_asked(folders, tmp_path):
    result, rows, _ = run(folders, tmp_path / "run", best_by="building")
    scores = [row["iou_building"] for row in rows]
    assert result["best_epoch"] == 1 + scores.index(max(scores))


def test_a_run_begins_with_weights(folders, tmp_path):
    """As far as they fit, and it says which."""
    run(folders, tmp_path / "first", epochs=1)
    _, _, said = run(folders, tmp_path / "second", epochs=1, weights=str(tmp_path / "first" / "best"))
    assert any("loaded" in line for line in said)
    (tmp_path / "none.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"none\.pt"):
        run(folders, tmp_path / "third", weights=str(tmp_path / "none.pt"))


def test_crops_cover_the_data(folders, tmp_path):
    """Three pictures of 64 x 64 px in crops of 32: twelve, in six batches."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        plain = learner.Learner.learn
        patch.setattr(learner.Learner, "learn", lambda self, *a: seen.append(0) or plain(self, *a))
        run(folders, tmp_path / "run", crops_per_epoch=0, epochs=1)
    assert len(seen) == 6


def test_there_is_a_report(folders, tmp_path):
    run(folders, tmp_path / "run", epochs=1, report=True)
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "unet" in page


def test_tensorboard_is_an_option(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingError, match=r"gigatiler\[tensorboard\]"):
        run(folders, tmp_path / "run", tensorboard=True)


def test_curves_go_to_the_board(tmp_path):
    """What the board is given: a point per curve."""
    points = {}

    class Board:
        def scalar(self, name, value, step):
            points[name] = (value, step)

    loop.show(Board(), loop.Epoch(3, 0.5, 0.1, (0.25, 0.75), 0.5, 1.0, 0.0), ("a", "b"))
    assert points["val/iou/b"] == (0.75, 3)
    assert points["loss"] == (0.5, 3)


# --- recipes


@pytest.mark.parametrize("preset", RECIPES)
def test_each_recipe_is_a_valid_run(preset):
    """All of its options are known and agree with each other; it says how long it takes."""
    options = with_recipe({"classes": ("a", "b"), "images": "i", "masks": "m", "preset": preset})
    assert {name: getattr(options, name) for name in RECIPES[preset]} == RECIPES[preset]


def test_keras_learns_from_crops_without_its_class():
    """Most scans show no nerve: their Dice, which is smoothed, is not left out."""
    from train.losses.make import make_loss

    options = with_recipe({"classes": ("a", "b"), "images": "i", "masks": "m", "preset": "keras"})
    logits_N1HW = torch.zeros(2, 1, 4, 4, requires_grad=True)
    loss = make_loss(options.loss_options())(logits_N1HW, torch.zeros(2, 4, 4).long(), torch.ones(2, 1, 1))
    loss.backward()
    assert (logits_N1HW.grad > 0).all()


def rates(preset, steps_per_epoch):
    """Learning rate of the first step of each epoch."""
    from train.schedules import make_schedule

    options = with_recipe({"classes": ("a", "b"), "images": "i", "masks": "m", "preset": preset})
    schedule = make_schedule(options.schedule_options(), steps_per_epoch, options.epochs)
    return [
        stage.lr * schedule.factor(epoch * steps_per_epoch)
        for stage in options.stages
        for epoch in stage.epochs
    ]


def test_c5_rates_of_recipes():
    """As the systems logged them."""
    wzm = rates("wzm", 5)
    assert wzm[0] == pytest.approx(0.01 * 1e-3)  # the log has the rate after the epoch
    for epoch in range(1, 200):
        assert wzm[epoch] == pytest.approx(0.01 * (1 - 5 * (epoch - 1) / 995) ** 0.9, rel=1e-5)
    cosine = rates("bubbliiiing-vgg", 7)
    for epoch, rate in {0: 1e-5, 1: 2e-5, 2: 5e-5, 3: 1e-4, 50: 4.881e-5, 94: 1.029e-6, 95: 1e-6}.items():
        assert cosine[epoch] == pytest.approx(rate, rel=1e-3)
    assert rates("cropland", 3)[::20] == pytest.approx([1e-4, 5e-5, 2.5e-5, 1.25e-5, 6.25e-6])


def test_an_unknown_preset_names_all(capsys, tmp_path):
    assert run_command(main, [str(tmp_path), "--preset", "wmz", "--classes", "a,b"]) == 2
    assert "wzm" in capsys.readouterr().err


def test_presets_are_listed_within_80_columns(capsys):
    assert run_command(main, ["--list-presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("* wzm ") for line in lines)
    assert max(map(len, lines)) <= 80


# --- rules between options


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"activation": "sigmoid", "classes": ("a", "b", "c"), "loss": "bce"}, "--independent"),
        ({"independent": True}, "--activation sigmoid"),
        ({"freeze_lr": 0.1}, "--freeze-epochs"),
        ({"freeze_epochs": 9, "epochs": 3}, "--freeze-epochs"),
        ({"freeze_norm": True, "sync_norm": True}, "--sync-norm"),
        ({"best_by": "loss"}, "--best-by"),
        ({"average": 2.0}, "--average"),
        ({"accumulate": 0}, "--accumulate"),
        ({"clip": -1.0}, "--clip"),
        ({"zoom": (3.0,)}, "--zoom"),
        ({"dropout": 2.0}, "dropout is a share"),
        ({"class_weights": (1.0, 2.0, 3.0)}, "--class-weights"),
        ({"class_weights": (1.0, 2.0), "loss": "dice"}, "--class-weights is of ce, bce, focal"),
        ({"border_weight": 10.0, "loss": "lovasz"}, "--border-weight is of"),
        ({"crop": 35}, "--crop 35"),
        ({"preset": "paper", "depth": 4, "crop": 571}, "572"),
        ({"preset": "tf-3x", "crop": 32}, "--crop"),
        ({"preset": "resnet18", "depth": None, "crop": 32, "batch": 1}, "--crop 32 .* at least 64"),
        ({"norm": "instance", "depth": 3, "crop": 8}, "at least 16"),
    ],
)
def test_options_that_break_a_rule(told, word):
    with pytest.raises(UsageError, match=word):
        TrainOptions(**{"classes": ("a", "b"), "images": "i", "masks": "m", "depth": 1, **told})


def test_what_a_cpu_cannot_do_is_refused(folders, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="--sync-norm needs GPUs"):
        run(folders, tmp_path / "run", sync_norm=True)
    with pytest.raises(UsageError, match="--freeze-epochs needs"):
        run(folders, tmp_path / "run", freeze_epochs=1)
    with pytest.raises(UsageError, match="divides evenly"):
        run(folders, tmp_path / "run", accumulate=4)
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_names_those_near(capsys, tmp_path):
    (tmp_path / "c.toml").write_text('classes = "a,b"\nlearning_rate = 3\nweigth_decay = 0.1\n')
    assert run_command(main, [str(tmp_path / "run"), "--config", str(tmp_path / "c.toml")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean weight_decay" in error


def test_a_run_tells_its_options_in_full(folders, tmp_path):
    """Its options.toml, given back, is the same run, recipe and all."""
    from tiler.toml import read_toml

    options = with_recipe({**folders, "classes": ("a", "b"), "preset": "wzm", "lr": 0.5})
    (tmp_path / "o.toml").write_text(options.to_toml())
    again = read_toml(tmp_path / "o.toml")
    options.check_same(again)
    assert again["lr"] == 0.5
    assert json.loads(json.dumps(again["class_weights"])) == [1.0, 2.0]


LENGTHS = ("freeze_epochs", "warmup_epochs", "floor_epochs", "tail_epochs", "step_epochs")


@pytest.mark.parametrize("preset", sorted({n for n, r in RECIPES.items() if set(r) & set(LENGTHS)}))
def test_a_shorter_run_has_shorter_stages(preset):
    """Of any number of epochs, what a recipe says in epochs keeps its share, and it is said."""
    recipe = RECIPES[preset]
    for epochs in (1, 2, 5, recipe["epochs"] - 1):
        said = []
        given = {"classes": ("a", "b"), "images": "i", "masks": "m", "preset": preset, "epochs": epochs}
        options = with_recipe(given, said.append)
        assert len(said) == 1
        for name in LENGTHS:
            if name not in recipe:
                continue
            value, error = getattr(options, name), 0.51 if name == "freeze_epochs" else 0.001
            assert value == pytest.approx(recipe[name] * epochs / recipe["epochs"], abs=error)
            assert f"--{name.replace('_', '-')} {value:g}" in said[0]
    for epochs in (recipe["epochs"], 2 * recipe["epochs"]):
        options = with_recipe({**given, "epochs": epochs}, said.append)
        assert len(said) == 1
        assert all(getattr(options, name) == recipe[name] for name in LENGTHS if name in recipe)


def test_what_is_typed_is_not_shortened():
    given = {"classes": ("a", "b"), "images": "i", "masks": "m", "preset": "bubbliiiing-vgg", "epochs": 5}
    with pytest.raises(UsageError, match="--freeze-epochs is 0 to --epochs 5, got 50"):
        with_recipe({**given, "freeze_epochs": 50})
    said = []
    assert with_recipe({**given, "warmup_epochs": 1.0}, said.append).warmup_epochs == 1
    assert with_recipe({**given, "schedule": "constant"}, said.append).floor_epochs == 0
    assert "--freeze-epochs 2" in said[1]
    assert "floor" not in said[1]


def test_a_file_of_defaults_goes_before_a_recipe(folders, tmp_path):
    """Its empty lists, too: else the recipe's own class weights would stay."""
    told = {**folders, "classes": ("a", "b"), "preset": "wzm", "loss": "ce+dice-image", "crop": 32}
    defaults = TrainOptions(classes=("a", "b"), images="i", masks="m").to_toml().splitlines()
    (tmp_path / "c.toml").write_text(
        "\n".join(line for line in defaults if line.partition(" = ")[0] not in told)
    )
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.run.train", lambda options, *_, **__: made.append(options))
        assert run_command(main, [str(tmp_path), "--config", str(tmp_path / "c.toml"), *flags(told)]) == 0
    assert made == [TrainOptions(**told)]
    assert "class_weights" in RECIPES["wzm"]


def test_a_run_of_before_lists_were_written_is_carried_on():
    """Its options.toml lacks those that are empty."""
    options = TrainOptions(classes=("a", "b"), images="i", masks="m")
    lines = [line for line in options.to_toml().splitlines() if not line.endswith("= []")]
    assert len(lines) < len(options.to_toml().splitlines())
    options.check_same(tomllib.loads("\n".join(lines)))
    with pytest.raises(UsageError, match="--nodata was not given, got 0"):
        replace(options, nodata=0.0).check_same(tomllib.loads("\n".join(lines)))


@pytest.mark.slow
def test_independent_classes_are_exported_as_probabilities(folders, tmp_path):
    """The file says sigmoid, so it returns what a sigmoid does."""
    import numpy as np

    from export.onnx import export_onnx, onnx_network
    from tiler.open import open_raster

    run(folders, tmp_path / "run", **KINDS["independent classes"])
    net, spec = load_checkpoint(tmp_path / "run" / "best")
    raster = open_raster(f"{folders['images']}/0.png")
    export_onnx(net, spec, raster, tmp_path / "out.onnx", 1e-4)
    pixels_NCHW = torch.rand(1, 3, 32, 32)
    got_NKHW = onnx_network(tmp_path / "out.onnx")(pixels_NCHW.numpy())
    np.testing.assert_allclose(got_NKHW, net(pixels_NCHW).sigmoid().detach().numpy(), atol=1e-5)

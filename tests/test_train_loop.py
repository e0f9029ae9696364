"""The parts of the training loop, each by itself."""

from __future__ import annotations

import copy
import math
import tomllib

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tiler.errors import InputError, OutOfMemoryError, UsageError  # noqa: E402
from train.average import Average  # noqa: E402
from train.data.crops import Keys, Sample, crop_loader  # noqa: E402
from train.data.labelled import CACHE_BYTES, Library  # noqa: E402
from train.data.legend import Legend  # noqa: E402
from train.freezing import batch_norms, check_freezable, set_frozen, set_training  # noqa: E402
from train.loop import Awaited, epoch_seed, readers_alive  # noqa: E402
from train.models.presets import make  # noqa: E402
from train.options import TrainOptions  # noqa: E402
from train.progress import Progress  # noqa: E402
from train.recipes import with_recipe  # noqa: E402
from train.recompute import blocks, recompute_blocks  # noqa: E402

BASE = {"classes": ("a", "b"), "images": "i", "masks": "m"}


def pixels(side=32, bands=3):
    torch.manual_seed(1)
    return torch.rand(2, bands, side, side)


# --- recomputation


def learn(net):
    """Gradients, statistics and the number of values that are kept for them."""
    kept = []
    torch.manual_seed(3)
    net.train()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        answer = net(pixels())
    heads = answer if isinstance(answer, tuple) else (answer,)
    sum(head.square().mean() for head in heads).backward()
    return [p.grad for p in net.parameters()], sum(kept)


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("unet", {"dropout": (0.3, 0.3)}), ("nested-supervised", {}), ("resunet", {}), ("resnet18", {})],
)
def test_recomputation_keeps_less_and_changes_no_bit(preset, changes):
    """With dropout, and with the running statistics of batch norms."""
    net = make(preset, 3, 2, width=8, **changes)
    other = copy.deepcopy(net)
    recompute_blocks(other)
    (plain, all_kept), (again, few_kept) = learn(net), learn(other)
    assert few_kept < 0.6 * all_kept
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    mine, theirs = net.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_blocks_are_the_smallest_that_are_called():
    net = make("unet", 3, 2, width=4, depth=2)
    assert len(blocks(net)) == 5
    with pytest.raises(UsageError, match="--recompute"):
        recompute_blocks(nn.Conv2d(1, 1, 1))


# --- freezing


def test_a_frozen_encoder_keeps_weights_and_statistics():
    net = make("resnet18", 3, 2, width=8)
    check_freezable(net)
    set_frozen(net, True)
    set_training(net, frozen=True, norms_frozen=False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.5)
    before = copy.deepcopy(net.state_dict())
    net(pixels(64)).square().mean().backward()
    optimizer.step()
    encoder = {id(p) for p in net.encoder_parameters()}
    frozen = {name for name, p in net.named_parameters() if id(p) in encoder}
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert frozen
    assert not moved & frozen
    assert {name for name, p in net.named_parameters() if id(p) not in encoder} <= moved
    statistics = {id(norm) for module in net.encoder_modules() for norm in batch_norms(module)}
    for name, module in net.named_modules():
        if id(module) in statistics:
            assert f"{name}.running_mean" not in moved
        elif isinstance(module, nn.BatchNorm2d):
            assert f"{name}.running_mean" in moved


def test_unfrozen_again_all_learn():
    net = make("resnet18", 3, 2, width=8)
    set_frozen(net, True)
    set_frozen(net, False)
    set_training(net, frozen=False, norms_frozen=False)
    assert all(p.requires_grad for p in net.parameters())
    assert all(norm.training for norm in batch_norms(net))


def test_frozen_norms_are_all_of_them():
    net = make("unet", 3, 2, width=4, depth=1)
    set_training(net, frozen=False, norms_frozen=True)
    assert not any(norm.training for norm in batch_norms(net))
    assert net.first.training


def test_what_has_no_encoder_is_not_frozen():
    with pytest.raises(UsageError, match="--freeze-epochs"):
        check_freezable(make("unet", 3, 2))


# --- the average


def test_an_average_follows():
    net = nn.BatchNorm2d(1)
    average = Average.of(net, steps=4)
    with torch.no_grad():
        net.weight.fill_(5.0)
    net.num_batches_tracked.fill_(7)
    average.follow(net)
    assert average.net.weight.item() == pytest.approx(1 + (5 - 1) / 4)
    assert average.net.num_batches_tracked.item() == 7


def test_an_average_of_nothing_is_the_network():
    net = nn.Conv2d(1, 1, 1)
    average = Average.of(net, steps=0)
    with torch.no_grad():
        net.weight.fill_(0.1)
    average.follow(net)
    assert not average.smooth
    assert torch.equal(average.net.weight, net.weight)


# --- progress


def test_the_best_is_the_first_of_the_highest():
    progress = Progress(scores={2: 0.5, 4: 0.7, 6: 0.7, 8: 0.1})
    assert (progress.best_epoch, progress.since_best) == (4, 2)
    assert Progress().best_epoch == 0
    assert Progress(scores={1: -math.inf}).best_epoch == 1


def test_progress_comes_back_from_its_state():
    state = Progress(scores={1: 0.25}).to_state()
    assert Progress.from_state(state).scores == {1: 0.25}


# --- stages and options


def test_each_stage_has_its_own_lr_and_batch():
    freeze = {"freeze_batch": 16, "freeze_lr": 0.1, "freeze_epochs": 2}
    options = TrainOptions(**BASE, **freeze, batch=8, lr=0.01, epochs=5, crops_per_epoch=33)
    first, second = options.stages
    assert (first.epochs, first.frozen, first.batch, first.lr, first.steps) == (range(2), True, 16, 0.1, 3)
    assert (second.epochs, second.frozen, second.batch, second.lr, second.steps) == (
        range(2, 5),
        False,
        8,
        0.01,
        5,
    )
    assert options.steps == 2 * 3 + 3 * 5


def test_c5_batches_per_epoch():
    """31239 images in batches of 5 are 6248 batches."""
    (stage,) = TrainOptions(**BASE, crops_per_epoch=31239, batch=5).stages
    assert stage.steps == 6248


def test_a_recipe_gives_way():
    options = with_recipe({**BASE, "preset": "wzm", "lr": 0.5})
    assert (options.lr, options.optimizer, options.schedule, options.batch) == (0.5, "sgd", "poly", 4)
    assert options.class_weights == (1.0, 2.0)
    assert with_recipe({**BASE, "preset": "wzm", "schedule": "one-cycle"}).warmup_epochs == 0
    # Nor is a momentum of 0.999 for RMSprop one for Adam.
    adam = with_recipe({**BASE, "preset": "milesial", "optimizer": "adam"})
    assert (adam.momentum, adam.beta2, adam.weight_decay) == (0.9, 0.999, 1e-8)
    same = with_recipe({**BASE, "preset": "milesial", "optimizer": "rmsprop", "schedule": "plateau"})
    assert (same.momentum, same.gamma) == (0.999, 0.1)
    # Not the rate that the recipe's bounds would make of it.
    (_, stage) = with_recipe({**BASE, "preset": "bubbliiiing-vgg", "lr": 0.5}).stages
    assert stage.lr == 0.5
    three = with_recipe({**BASE, "preset": "wzm", "classes": ("a", "b", "c")})
    assert three.class_weights == ()
    assert with_recipe({**BASE, "preset": "wzm", "loss": "lovasz"}).class_weights == ()


def test_momentum_of_a_recipe_is_not_another_optimisers():
    """What 0.999 is to rmsprop it would not be to Adam, whose first beta has the same option."""
    options = with_recipe({**BASE, "preset": "milesial", "optimizer": "adam"})
    assert (options.momentum, options.beta2) == (0.9, 0.999)


def test_nodata_that_is_nan_does_not_make_another_run():
    """NaN differs from itself: such a run could not be carried on."""
    options = TrainOptions(**BASE, nodata=math.nan)
    options.check_same(tomllib.loads(options.to_toml()))
    with pytest.raises(UsageError, match="--nodata was nan, got nothing"):
        TrainOptions(**BASE).check_same(tomllib.loads(options.to_toml()))


def test_no_epoch_begins_with_what_another_left():
    seeds = {epoch_seed(seed, epoch, rank) for seed in (0, 1) for epoch in range(50) for rank in (0, 1)}
    assert len(seeds) == 200


def test_waiting_is_counted():
    batches = Awaited(iter("abc"))
    assert "".join(batches) == "abc"
    assert batches.seconds > 0


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), OutOfMemoryError),
        (ConnectionResetError(104, "Connection reset by peer"), OutOfMemoryError),
        (RuntimeError("sizes differ"), RuntimeError),
    ],
)
def test_a_reader_that_was_killed_is_one_line(raised, kind):
    """Such as by a container with little shared memory; what else goes wrong keeps its traceback."""

    def items():
        raise raised
        yield

    with pytest.raises(RuntimeError) as error, readers_alive():
        list(Awaited(items()))
    assert type(error.value) is kind


class Unreadable(torch.utils.data.Dataset):
    """A data set whose reading is refused."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        raise InputError("a mask has one band, got 3")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_a_reader_refuses_is_one_line(workers):
    """PyTorch sends the traceback of the other process in the text."""
    with pytest.raises(InputError) as error:
        list(Awaited(torch.utils.data.DataLoader(Unreadable(), num_workers=workers)))
    assert str(error.value) == "a mask has one band, got 3"


class Limits(torch.utils.data.Dataset):
    """Samples that say how much memory their reader may keep."""

    library = Library(Legend(("a", "b")))

    def __getitem__(self, key):
        return Sample(*(torch.tensor(self.library.cache.limit) for _ in range(3)))


@pytest.mark.slow
def test_processes_that_read_share_their_memory():
    limits = [int(limit) for sample in crop_loader(Limits(), Keys(4), 2) for limit in sample.pixels_CHW]
    assert limits == [CACHE_BYTES // 2] * 4

"""Two processes that share a batch compute the loss and the gradient of one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import distributed, multiprocessing  # noqa: E402

from train.data.target import IGNORE  # noqa: E402
from train.losses.across import ratio, summed  # noqa: E402
from train.losses.make import make_loss  # noqa: E402
from train.losses.options import TERMS, LossOptions  # noqa: E402

CASES = [LossOptions(term, class_weights=(1.0, 2.0, 0.5)) for term in TERMS if term != "bce"]
CASES += [LossOptions(term, activation="sigmoid", dice_absent=True) for term in TERMS if term != "ce"]
CASES += [LossOptions("0.5*ce + 2*dice + boundary-band", dice_smooth=1.0)]
WORLD = 2


def batch(options):
    """Four images, in float32: one all unknown, one of background alone, known shares that differ."""
    generator = torch.Generator().manual_seed(5)
    logits_NKHW = torch.randn(4, 3, 6, 6, generator=generator)
    shape = (4, 6, 6) if options.activation == "softmax" else (4, 3, 6, 6)
    target = torch.randint(0, 3 if options.activation == "softmax" else 2, shape, generator=generator)
    target[0] = IGNORE
    target[1] = 0
    target[2, ..., 4:] = IGNORE
    weight_NHW = torch.rand(4, 6, 6, generator=generator)
    return logits_NKHW, target, weight_NHW


def loss_and_gradient(options, part):
    """Of some images of the batch."""
    logits_NKHW, target, weight_NHW = (x[part] for x in batch(options))
    logits_NKHW = logits_NKHW.clone().requires_grad_()
    loss = make_loss(options)(logits_NKHW, target, weight_NHW)
    loss.backward()
    return loss.detach(), logits_NKHW.grad


def work(rank, folder):
    """One of the processes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    try:
        share = slice(2 * rank, 2 * rank + 2)
        torch.save([loss_and_gradient(options, share) for options in CASES], f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_give_the_loss_and_the_gradient_of_one(tmp_path):
    """The first has the unknown image and the background, so means of two means would differ."""
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=WORLD)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for options, *parts in zip(CASES, *found, strict=True):
        loss, grad_NKHW = loss_and_gradient(options, slice(None))
        for part_loss, _ in parts:
            assert float(part_loss) == pytest.approx(float(loss), abs=1e-6), options
        joined_NKHW = torch.cat([grad for _, grad in parts])
        assert float((joined_NKHW - grad_NKHW).abs().max()) <= 1e-6, options


def test_in_one_process_a_sum_is_itself():
    x = torch.ones(3, requires_grad=True)
    assert summed(x) is x


def test_a_ratio_to_nothing_is_nothing():
    """With a gradient of nothing, too."""
    part = torch.tensor([1.0, 0.0], requires_grad=True)
    found = ratio(part, torch.tensor([2.0, 0.0]))
    found.sum().backward()
    assert found.tolist() == [0.5, 0.0]
    assert part.grad.tolist() == [0.5, 0.0]

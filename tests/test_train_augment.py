"""Augmentation: the same for pixels and target, exact, and a function of (seed, epoch, step)."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from train.augment import Augment  # noqa: E402


@pytest.fixture(scope="module")
def batch():
    """Four different images of five bands with a target that has every value, 255 among them."""
    generator = torch.Generator().manual_seed(1)
    target_NHW = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (4, 16, 16), generator=generator)]
    return torch.randn(4, 5, 16, 16, generator=generator), target_NHW


def test_a_draw_depends_on_seed_epoch_and_step_only(batch):
    first = Augment(3)(*batch, epoch=1, step=2)
    torch.manual_seed(99)
    again = Augment(3)(*batch, epoch=1, step=2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (Augment(3)(*batch, 1, 3), Augment(3)(*batch, 2, 2), Augment(4)(*batch, 1, 2)):
        assert not torch.equal(first[0], other[0])


def test_the_global_generator_is_left_alone(batch):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    Augment(0)(*batch, 0, 0)
    assert torch.equal(torch.rand(1), expected)


def test_geometry_moves_pixels_and_target_alike_and_loses_none(batch):
    """Each image becomes one of its eight symmetries, bit for bit, and its target the same one."""
    augment, (pixels_NCHW, target_NHW) = Augment(0), batch
    seen = set()
    for _ in range(20):
        moved_NCHW, moved_N1HW = augment.geometry(pixels_NCHW, target_NHW[:, None].float())
        for n in range(4):
            turn = which_symmetry(pixels_NCHW[n], moved_NCHW[n])
            assert torch.equal(symmetries(target_NHW[n])[turn], moved_N1HW[n, 0].long())
            seen.add(turn)
    assert len(seen) == 8


def symmetries(image_HW):
    """The eight of a square."""
    return [side.rot90(k, (-2, -1)) for side in (image_HW, image_HW.flip(-1)) for k in range(4)]


def which_symmetry(before, after) -> int:
    """Index of the one that turns one image into the other."""
    return next(i for i, turned in enumerate(symmetries(before)) if torch.equal(turned, after))


def test_light_changes_pixels_a_little_and_bands_differently(batch):
    pixels_NCHW, target_NHW = batch
    lit_NCHW, lit_target_NHW = Augment(0)(pixels_NCHW * 0, target_NHW, 0, 0)
    assert 0 < lit_NCHW.abs().max() < 2
    assert lit_NCHW.std(dim=1).min() > 0
    assert sorted(lit_target_NHW.unique().tolist()) == [0, 1, 2, 255]

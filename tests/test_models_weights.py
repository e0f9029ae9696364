"""Weights of public repositories: all are taken, and the network computes what theirs does."""

from __future__ import annotations

import argparse
from functools import partial

import pytest

torch = pytest.importorskip("torch")

import originals  # noqa: E402
from originals import Weights  # noqa: E402
from tiler.errors import InputError, UsageError  # noqa: E402
from train.models.presets import make  # noqa: E402
from train.models.weights import load_weights  # noqa: E402

ORIGINALS = {
    "milesial": (originals.milesial, "milesial"),
    "milesial-bilinear": (partial(originals.milesial, bilinear=True), "milesial"),
    "wzm": (originals.wzm, "wzm"),
    "wzm-transposed": (partial(originals.wzm, bilinear=False), "wzm"),
    "wzm-vgg16-bn": (originals.wzm_vgg, "wzm-vgg16-bn"),
    "bubbliiiing-vgg": (originals.bubbliiiing_vgg, "bubbliiiing"),
    "bubbliiiing-resnet50": (originals.bubbliiiing_resnet50, "bubbliiiing"),
    "milu": (originals.milu, "milu"),
    "milu-listing": (partial(originals.milu, listing=True), "milu-listing"),
    "nested-unet": (originals.nested_unet, "nested-unet"),
    "nested": (originals.nested, "nested"),
    "nested-supervised": (partial(originals.nested, supervised=True), "nested"),
    "leejunhyun": (originals.lee, "leejunhyun"),
    "leejunhyun-attention": (partial(originals.lee, attention=True), "leejunhyun"),
    "cropland": (originals.cropland, "milesial"),
}
SIDES = {"bubbliiiing-resnet50": (64, 96), "milesial": (37, 50), "wzm": (37, 50), "wzm-vgg16-bn": (37, 50)}
"""Rows and columns; those that take any size are given odd ones."""


def made(name):
    """Pixels, what the original makes of them, and its weights."""
    weights = Weights()
    pixels_NCHW = torch.rand(2, 3, *SIDES.get(name, (32, 48)), generator=torch.Generator().manual_seed(1))
    return pixels_NCHW, ORIGINALS[name][0](weights, pixels_NCHW, 2, 3), weights.state


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_is_loaded_whole_and_computes_the_same(name, tmp_path):
    pixels_NCHW, expected, state = made(name)
    torch.save(state, tmp_path / "weights.pth")
    net = make(name, 3, 3, width=2)
    report = load_weights(net, tmp_path / "weights.pth")
    assert (report.origin, report.missing, report.mismatched, report.unused) == (
        ORIGINALS[name][1],
        (),
        (),
        (),
    )
    net.eval()
    with torch.no_grad():
        found = net(pixels_NCHW)
    expected = expected[-1] if isinstance(expected, list) else expected
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_all_heads_of_the_original_are_those_of_training():
    pixels_NCHW, expected, state = made("nested-supervised")
    net = make("nested-supervised", 3, 3, width=2)
    net.load_state_dict({_ours(name): value for name, value in state.items()})
    net.train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    for found, theirs in zip(net(pixels_NCHW), expected, strict=True):
        assert torch.allclose(found, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def _ours(name):
    from train.models.origins import renamed

    return renamed(name, "nested")


def test_a_classifier_is_taken_for_an_encoder(tmp_path):
    """By torchvision's names; its fully connected layers are nothing of ours."""
    weights = Weights()
    originals.resnet50(weights, torch.rand(1, 3, 32, 32), 2, "", lambda x: x)
    weights.get("fc.weight", 10, 64)
    torch.save(weights.state, tmp_path / "resnet50.pth")
    net = make("resnet50", 3, 2, width=2)
    report = load_weights(net, tmp_path / "resnet50.pth")
    assert report.origin == "torchvision"
    assert report.unused == ("fc.weight",)
    assert set(report.loaded) == {f"encoder.{name}" for name in net.encoder.state_dict()}
    assert all(name.startswith(("merge.", "last.", "head.")) for name in report.missing)
    assert torch.equal(net.encoder.layer3[1].conv2.weight, weights.state["layer3.1.conv2.weight"])


def test_another_head_and_other_bands_stay_as_they_were(tmp_path):
    """And are listed, with both shapes; nothing else is."""
    torch.save(made("milesial")[2], tmp_path / "weights.pth")
    net = make("milesial", 5, 7, width=2)
    before = net.head.weight.clone()
    report = load_weights(net, tmp_path / "weights.pth")
    assert report.mismatched == (
        "first.0.weight (2x3x3x3, not 2x5x3x3)",
        "head.weight (3x2x1x1, not 7x2x1x1)",
        "head.bias (3, not 7)",
    )
    assert report.missing == report.unused == ()
    assert torch.equal(net.head.weight, before)
    assert str(report).splitlines()[1].startswith("weights: 3 mismatched: first.0.weight (2x3x3x3,")


def test_what_training_scripts_wrap_is_unwrapped(tmp_path):
    """A data-parallel prefix, arguments and an optimizer beside the weights."""
    state = {f"module.{name}": value for name, value in made("wzm")[2].items()}
    whole = {"model": state, "optimizer": {"lr": 0.1}, "args": argparse.Namespace(epochs=3)}
    torch.save(whole, tmp_path / "model.pth")
    assert load_weights(make("wzm", 3, 3, width=2), tmp_path / "model.pth").missing == ()


def test_our_own_files_and_folders(tmp_path):
    from safetensors.torch import save_file

    net, other = make("unet", 3, 2, width=2), make("unet", 3, 2, width=2)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        report = load_weights(other, path)
        assert (report.origin, report.missing, report.unused) == ("gigatiler", (), ())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_files_that_are_no_weights_of_it_are_one_line(tmp_path):
    net = make("unet", 3, 2, width=2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.save({"a.weight": torch.ones(3)}, tmp_path / "other.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save({"model": make}, tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("weights")
    # As a pickle, the first letter is an order each: look up, end a tuple, read an integer.
    for name in ("hello", "tuple", "J"):
        (tmp_path / f"{name}.pth").write_text(name)
    (tmp_path / "text.safetensors").write_text("weights")
    wrong = {"other.pth": "a.weight", "tensor.pth": "tensors by name", "none.pth": "is there"}
    files = ("code.pth", "text.pth", "hello.pth", "tuple.pth", "J.pth", "text.safetensors")
    wrong |= dict.fromkeys(files, "torch.save")
    for name, word in wrong.items():
        with pytest.raises(InputError, match=word) as caught:
            load_weights(net, tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="milesial"):
        load_weights(net, tmp_path / "other.pth", "nobody")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())

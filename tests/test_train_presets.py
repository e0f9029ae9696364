"""Every preset with its recipe learns from real pictures, and becomes a map by the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio

torch = pytest.importorskip("torch")

from tiler.cli.main import run_command, tiler  # noqa: E402
from tiler.errors import UsageError  # noqa: E402
from train.models.options import EncodedOptions  # noqa: E402
from train.models.presets import PRESETS, NetworkOptions  # noqa: E402
from train.recipes import RECIPES  # noqa: E402
from training_data import flags  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
QUICK = {"unet", "paper", "nested-supervised", "tf-3x"}
"""Kinds of networks that differ in what the loop must do; the others are slow tests."""


def crop_of(preset, small):
    """A side near 48 px that the network takes."""
    geometry = NetworkOptions(preset, **small).options(3, 2).geometry
    for n in range(48, 300):
        try:
            geometry.out_size(n)
        except UsageError:
            continue
        return n * geometry.scale
    raise AssertionError(preset)


@pytest.fixture(scope="module")
def folders(shared, tmp_path_factory):
    """Eight real pictures of buildings with their masks."""
    root = tmp_path_factory.mktemp("buildings")
    for name, source in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        (root / name).mkdir()
        for path in sorted((shared / "labelled" / "voc_buildings" / source).iterdir())[:8]:
            (root / name / path.name).symlink_to(path)
    return {"images": str(root / "images"), "masks": str(root / "masks"), "val": 0.15, "test": 0.15}


def told_of(preset, folders):
    """Narrow and short, with a rate that shows within a few steps; the rest is the recipe's."""
    small = {"width": 4} | ({} if PRESETS[preset].kind is EncodedOptions else {"depth": 2})
    told = {"preset": preset, "classes": ("background", "building"), **small}
    told |= {"crop": crop_of(preset, small), "epochs": 3, "crops_per_epoch": 16, "batch": 4}
    told |= {"optimizer": "adam", "momentum": 0.9, "lr": 0.01, "schedule": "constant"}
    told |= {"freeze_epochs": 0, "eval_every": 3, "keep_every": 0, "zoom": (1.0, 1.0), "seed": 0}
    # Weights of deviation 0.02 are for full widths: through narrow layers nothing of a picture is left.
    told |= {"init": "kaiming"} if RECIPES.get(preset, {}).get("init") == "normal" else {}
    told |= {"device": "cpu", "threads": 1, "report": False, "resize": "0.25"}
    return told | folders


@pytest.mark.parametrize(
    "preset", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PRESETS]
)
def test_each_preset_learns_from_real_pictures(preset, folders, tmp_path):
    command = ["train", str(tmp_path / "run"), *flags(told_of(preset, folders)), "--quiet"]
    assert run_command(tiler, command, "tiler") == 0
    with (tmp_path / "run" / "log.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["unet", "paper", "keras"])
def test_what_was_trained_becomes_a_map(preset, folders, tmp_path):
    """Two classes of one channel, of two, and without padding."""
    run, model, out = (tmp_path / name for name in ("run", "net.onnx", "map.tif"))
    told = told_of(preset, folders) | {"resize": "1"}
    picture = next(Path(folders["images"]).iterdir())
    commands = [
        ["train", run, *flags(told), "--quiet"],
        ["export", run / "best", model, "--raster", picture],
        ["segment", picture, model, out, "--quiet"],
    ]
    for command in commands:
        assert run_command(tiler, list(map(str, command)), "tiler") == 0
    with rasterio.open(out) as dataset:
        assert set(np.unique(dataset.read(1))) <= {0, 1, 255}

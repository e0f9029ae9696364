"""Training on what only labels other than masks can say, from the command line to the finished network."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

from slides import generic
from tiler.cli.main import run_command
from train.checkpoint import load_checkpoint
from train.cli import main
from training_data import blocks, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TINY = {
    "depth": 1,
    "width": 4,
    "crop": 32,
    "batch": 4,
    "epochs": 6,
    "crops-per-epoch": 32,
    "lr": 0.02,
    "device": "cpu",
    "threads": 1,
}


def run(outdir, *arguments, **more):
    """The metrics of a finished run."""
    told = [word for key, value in {**TINY, **more}.items() for word in (f"--{key}", str(value))]
    assert run_command(main, [str(outdir), *map(str, arguments), *told, "--no-report", "--quiet"]) == 0
    return json.loads((outdir / "metrics.json").read_text())


def ring(left, top, right, bottom):
    """A polygon."""
    corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [corners]}


def test_a_slide_with_qupath_labels_at_its_micrometres(tmp_path):
    """Few pixels are labelled; the model says the size of a pixel that it was trained at."""
    level_HWC = np.full((512, 1024, 3), 200, np.uint8)
    level_HWC[::2] = 180
    features = []
    for column in range(6):
        left = 40 + 160 * column
        level_HWC[100:160, left : left + 60] = 40
        named = (("Tumor", ring(left, 100, left + 60, 160)), ("Stroma", ring(left, 200, left + 60, 260)))
        features += [{"geometry": g, "properties": {"classification": {"name": name}}} for name, g in named]
    slide = generic(tmp_path / "slide.tif", [level_HWC, level_HWC[::2, ::2]], mpp=0.5)
    (tmp_path / "slide.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    result = run(
        tmp_path / "run", "--pair", slide, tmp_path / "slide.geojson", "--classes", "Stroma,Tumor",
        mpp=1.0, outside="ignore", balance=0.5,
    )  # fmt: skip
    _, spec = load_checkpoint(tmp_path / "run" / "best")
    assert spec.resolution == pytest.approx(1e-6)
    assert result["test"]["mean_iou"] > 0.8


@pytest.mark.slow
def test_a_file_per_class_and_classes_that_overlap(tmp_path):
    for seed in range(6):
        for name in ("images", "masks/dark", "masks/bright"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        raw_CHW, mask_1HW = blocks(64, 64, seed)
        write(tmp_path / "images" / f"{seed}.png", raw_CHW)
        write(tmp_path / "masks" / "bright" / f"{seed}.png", mask_1HW * np.uint8(255))
        if seed:
            write(tmp_path / "masks" / "dark" / f"{seed}.png", (1 - mask_1HW) * np.uint8(255))
    result = run(
        tmp_path / "run", "--data", tmp_path, "--classes", "dark,bright", "--independent",
        activation="sigmoid", loss="bce+dice", test=0.0,
    )  # fmt: skip
    assert result["val"]["classes"]["bright"]["iou"] > 0.5
    _, spec = load_checkpoint(tmp_path / "run" / "best")
    assert (spec.activation, len(spec.classes)) == ("sigmoid", 2)


@pytest.mark.slow
def test_objects_with_weights_of_their_gaps_and_classes(tmp_path):
    """And all augmentation on: it still learns."""
    ids_HW = np.where(blocks(64, 200)[1][0], 1 + np.arange(200) // 4, 0).astype(np.uint16)
    image = write(tmp_path / "i.png", blocks(64, 200)[0])
    mask = write(tmp_path / "m.tif", ids_HW[None])
    strong = {"zoom": "0.8,1.25", "rotate": 10, "elastic": 1, "hue": 0.02, "noise": 0.05}
    result = run(
        tmp_path / "run", "--pair", image, mask, "--classes", "background,cell", "--weigh-classes",
        coding="instances", **{"border-weight": 5, **strong},
    )  # fmt: skip
    assert result["val"]["classes"]["cell"]["iou"] > 0.2

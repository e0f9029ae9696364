"""What the README and the demo promise, run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from tiler.cli.main import run_command, tiler
from tiler.demo import FOLDER, LABELS, MODEL, SCENE
from tiler.errors import TilerError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MIGRATION = (ROOT / "train" / "MIGRATION.md").read_text()
CALLED = "(?:train|labels|export|augment|segment|picture|batch|bench)"


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    """With the shipped scene and model under the names that it uses."""
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    shutil.copy(SCENE, tmp_path / "scene.tif")
    shutil.copy(MODEL, tmp_path / "buildings.onnx")
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102 - the README's own lines
    assert "'building': " in capsys.readouterr().out
    assert (tmp_path / "map.probabilities.tif").is_file()


def test_every_file_that_the_readme_names_is_there():
    """Links and the table of places."""
    links = re.findall(r"\]\(([\w./-]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize(
    "line",
    re.findall(rf"(?:`| {{4}})((?:tiler|torchrun [^`\n]*-m) {CALLED} (?!--list)[^`\n]+)", MIGRATION),
)
def test_commands_that_others_are_led_to_are_understood(line, tmp_path, monkeypatch):
    """Options, presets, losses and their values; that data and weights are not there is all that is wrong."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(re.sub(f"^.*? (?={CALLED} )", "", line.replace("...", "ground,thing")))
    command = tiler.get_command(None, name)
    context = command.make_context(name, list(words))
    if name == "train" and words[0] == "run":
        with pytest.raises(TilerError, match=r"is a folder|is a CSV file|of weights is there"):
            command.invoke(context)


def test_the_demo(tmp_path, capsys):
    """Label and probability COGs, a picture, and a table with the IoU against labels not trained on."""
    assert run_command(tiler, ["demo", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    for word in ("Mpx/s", "planned", "building", "area m2", "IoU", "overlay.png"):
        assert word in out
    for name in ("buildings.tif", "buildings.probabilities.tif"):
        assert cog_validate(tmp_path / "out" / name, strict=True)[0]
    assert run_command(tiler, ["evaluate", str(tmp_path / "out/buildings.tif"), str(LABELS), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["classes"]["building"]["iou"] >= 0.6
    report = json.loads((tmp_path / "out/buildings.report.json").read_text())
    assert sum(c["area_m2"] for c in report["classes"]) == pytest.approx(45_920, rel=0.01)
    assert report["plan"]["mode"] == "exact"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_picture_shows_the_scene_and_the_classes(tmp_path):
    """Two halves: the right one differs where there are buildings, and only there."""
    assert run_command(tiler, ["demo", str(tmp_path), "--quiet"]) == 0
    with rasterio.open(tmp_path / "overlay.png") as dataset:
        picture_CHW = dataset.read()
    half = (picture_CHW.shape[2] - 8) // 2
    left_CHW, right_CHW = picture_CHW[:, :, :half], picture_CHW[:, :, -half:]
    changed = (left_CHW != right_CHW).any(axis=0).mean()
    with rasterio.open(tmp_path / "buildings.tif") as dataset:
        assert changed == pytest.approx((dataset.read(1) == 1).mean(), rel=0.1)
    assert left_CHW.std() > 20


def test_what_is_shipped_is_small():
    """Scene and model at most 3 MB each."""
    assert max(p.stat().st_size for p in FOLDER.iterdir() if p.is_file()) <= 3_000_000


def test_running_the_demo_twice_is_fine(tmp_path):
    """It replaces its own results, byte for byte."""
    contents = set()
    for _ in range(2):
        assert run_command(tiler, ["demo", str(tmp_path), "--quiet"]) == 0
        contents.add((tmp_path / "buildings.probabilities.tif").read_bytes())
    assert len(contents) == 1


def test_a_demo_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run_command(tiler, ["demo", str(tmp_path / "file" / "x")]) != 0
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_exact_on_real_pixels_at_full_size(shared):
    """The benchmark's own comparison on a real 4096 x 4096 window: labels equal, scores within 1e-4."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from exactness import CASES, crops, measure
    finally:
        sys.path.pop(0)
    from tiler.backends.onnx import load_model

    model = load_model(MODEL)
    for raster in crops(shared / "rasters" / "zanzibar_oam_z21.tif", 4096):
        for outcome in measure(raster, model, [c for c in CASES if c[0] != 256 and c[2] is None]):
            assert outcome.worst_score <= 1e-4
            assert outcome.wrong_clear == 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_training_from_nothing_by_the_command_in_the_readme(shared, tmp_path):
    """IoU of at least 0.60 for buildings on the part of the scene that was not trained on."""
    pytest.importorskip("torch")
    (line,) = re.findall(r"^    (python -m train .*)$", README, flags=re.MULTILINE)
    places = {"zanzibar_oam_z21.tif": "rasters", "zanzibar_oam_z21_mask.tif": "labelled/hot_buildings"}
    words = [str(shared / places[w] / w) if w in places else w for w in line.split()[1:]]
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
    scores = json.loads((tmp_path / "runs/buildings/metrics.json").read_text())
    assert scores["test"]["classes"]["building"]["iou"] >= 0.6

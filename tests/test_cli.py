"""The command line as a user types it: tables, JSON, configuration, help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio

import networks
from rasters import write_raster
from tiler.cli import doctor
from tiler.cli.main import COMMANDS, run_command, tiler
from tiler.errors import InputError, UsageError
from tiler.metrics import Confusion
from tiler.options import RunOptions, parse_bytes
from tiler.spec import ClassSpec, ModelSpec, default_classes

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def place(tmp_path) -> Path:
    """A raster, a model and a finished result."""
    raw_CHW = np.random.default_rng(0).integers(0, 255, (3, 200, 300), np.uint8)
    write_raster(tmp_path / "scene.tif", raw_CHW)
    networks.unet(tmp_path / "net.onnx")
    assert run(tmp_path, "segment", "scene.tif", "net.onnx", "out.tif", "--quiet") == 0
    return tmp_path


def run(place, command, *arguments) -> int:
    """Run a command; names that have a dot and no dash are files in ``place``."""
    return run_command(
        tiler, [command, *(str(place / a) if re.fullmatch(r"[\w]+\.\w+", a) else a for a in arguments)]
    )


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in {"train", "export"}])
def test_help_fits_a_terminal_of_80_columns(command, capsys):
    assert run_command(tiler, [command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: ")
    assert max(map(len, out.splitlines())) <= 80


def test_plan_fits_too_and_writes_nothing(place, capsys):
    before = sorted(place.iterdir())
    assert run(place, "plan", "scene.tif", "net.onnx", "--tile", "64") == 0
    out = capsys.readouterr().out
    for word in ("exact", "64 x 64 px, overlap 48 px", "budget", "network", "band", "about"):
        assert word in out
    assert sorted(place.iterdir()) == before


def test_inspect_a_model_and_a_raster(place, capsys):
    assert run(place, "inspect", "net.onnx") == 0
    out = capsys.readouterr().out
    for word in ("4n px", "22 px", "yes: tiles with this halo", "logits", "class0, class1"):
        assert word in out
    assert "wrongly" not in out
    networks.centred(place / "centred.onnx", model_spec=networks.spec(stride=2))
    assert run(place, "inspect", "centred.onnx") == 0
    out = capsys.readouterr().out
    for word in ("no, tiles are blended", "GlobalAveragePool", "says, wrongly  exact"):
        assert word in out
    assert run(place, "inspect", "scene.tif") == 0
    assert "300 x 200 px" in capsys.readouterr().out


def test_the_written_configuration_repeats_the_run(place):
    """And every option of the command line is a key."""
    arguments = ("scene.tif", "net.onnx")
    given = (
        "--blend",
        "linear",
        "--tile",
        "64",
        "--scale",
        "1/255,0.5,1",
        "--classes",
        "a,b",
        "--memory",
        "2GB",
    )
    assert run(place, "segment", *arguments, "a.tif", *given, "--quiet") == 0
    stored = tomllib.loads((place / "a.config.toml").read_text())
    assert stored["scale"] == [1 / 255, 0.5, 1.0]
    assert stored["classes"] == ["a", "b"]
    assert (
        RunOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}).memory
        == 2 * 10**9
    )
    assert run(place, "segment", *arguments, "b.tif", "--config", "a.config.toml", "--quiet") == 2
    config = str(place / "a.config.toml")
    assert run(place, "segment", *arguments, "b.tif", "--config", config, "--quiet") == 0
    assert (place / "a.tif").read_bytes() == (place / "b.tif").read_bytes()


def test_an_option_wins_over_the_configuration(place):
    (place / "run.toml").write_text('tile = 64\nblend = "hann"\n')
    command = ("scene.tif", "net.onnx", "c.tif", "--config", "run.toml", "--tile", "128", "--quiet")
    assert run(place, "segment", *command) == 0
    assert json.loads((place / "c.report.json").read_text())["plan"]["tile"] == [128, 128]


def test_json_log_is_one_event_per_line(place, capsys):
    assert run(place, "segment", "scene.tif", "net.onnx", "j.tif", "--log", "json") == 0
    out, err = capsys.readouterr()
    assert out == ""
    names = [json.loads(line)["event"] for line in err.splitlines()]
    assert names[0] == "Planned"
    assert names[-1] == "Finished"
    assert "BlockStored" in names


def test_compare(place, capsys):
    """Exit code 1 where they differ, and where the first difference is."""
    assert run(place, "compare", "out.tif", "out.tif") == 0
    with rasterio.open(place / "out.tif") as dataset:
        labels = dataset.read()
    labels[0, 7, 9] ^= 1
    write_raster(place / "other.tif", labels, nodata=255)
    capsys.readouterr()
    assert run(place, "compare", "out.tif", "other.tif", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found == {"pixels": 60000, "different": 1, "nodata_differs": 0, "first": "row 7, column 9"}
    assert run(place, "compare", "out.tif", "scene.tif") == 2


def test_evaluate(place, capsys):
    """The closed form of a 2 x 2 confusion matrix, nodata left out."""
    truth = np.repeat([0, 0, 1, 1, 255], [50, 5, 10, 35, 7]).astype(np.uint8)[None, None]
    predicted = np.repeat([0, 1, 0, 1, 1], [50, 5, 10, 35, 7]).astype(np.uint8)[None, None]
    write_raster(place / "t.tif", truth, nodata=255)
    write_raster(place / "p.tif", predicted, nodata=255)
    assert run(place, "evaluate", "p.tif", "t.tif") == 2
    assert "--classes" in capsys.readouterr().err
    assert run(place, "evaluate", "p.tif", "t.tif", "--classes", "ground,roof", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confusion"] == [[50, 5], [10, 35]]
    assert found["classes"]["ground"]["iou"] == pytest.approx(0.769231, abs=1e-6)
    assert found["classes"]["roof"]["dice"] == pytest.approx(0.823529, abs=1e-6)
    assert found["mean_iou"] == pytest.approx(0.734615, abs=1e-6)
    assert found["accuracy"] == 0.85
    assert run(place, "evaluate", "p.tif", "t.tif", "--classes", "ground,roof") == 0
    assert "roof" in capsys.readouterr().out


def test_evaluate_against_labels_that_do_not_overlap(place, capsys):
    write_raster(place / "t.tif", np.full((1, 200, 300), 255, np.uint8), nodata=255)
    assert run(place, "evaluate", "out.tif", "t.tif") == 2
    assert "no valid pixel in common" in capsys.readouterr().err


def test_an_absent_class_is_not_a_number_and_not_in_the_mean():
    confusion = Confusion(3)
    confusion.add(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert np.isnan(confusion.iou[2])
    assert confusion.mean_iou == 0.5
    assert np.isnan(Confusion(2).mean_iou)
    with pytest.raises(InputError, match="classes 0 to 2 or 255 for nodata, got 7"):
        confusion.add(np.array([7]), np.array([0]))


def test_doctor(capsys):
    assert run_command(tiler, ["doctor"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime" in out
    assert "rasterio" in out


def test_doctor_knows_what_is_needed():
    """The packages of `pyproject.toml`, but for those that it asks more of: ONNX Runtime and OpenVINO."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

    def names(lines):
        return {re.match(r"[\w-]+", line)[0] for line in lines} - {"onnxruntime", "onnxruntime-gpu"}

    assert set(doctor.NEEDED) == names(project["dependencies"])
    extras = project["optional-dependencies"]
    assert set(extras) - {"cuda", "openvino", "dev"} == set(doctor.OPTIONAL) == set(doctor.USES)
    for extra, listed in doctor.OPTIONAL.items():
        assert set(listed) == names(extras[extra]), extra


def test_rio_plugin(place):
    """`rio tiler inspect` is `tiler inspect`."""
    rio = Path(sys.executable).with_name("rio")
    done = subprocess.run(
        [rio, "tiler", "inspect", place / "net.onnx"], capture_output=True, text=True, check=True
    )
    assert "tiles with this halo equal the whole image" in done.stdout
    done = subprocess.run(
        [rio, "tiler", "inspect", place / "none.onnx"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: no such model file")


def test_no_command_shows_the_help_and_an_unknown_one_is_refused(capsys):
    assert run_command(tiler, []) == 2
    assert capsys.readouterr().err.startswith("Usage: ")
    assert run_command(tiler, ["frobnicate"]) == 2
    assert "frobnicate" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 GiBB", "1ib", "2 apples"])
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match="2GB"):
        parse_bytes(text)


def test_a_spec_survives_its_metadata():
    """And one from a newer version is refused, not half understood."""
    spec = networks.spec(
        2, ("a", "b", "c"), mean=(0.1, 0.2), resolution=0.5, fill=(1.0, 2.0), attribution='"ä"'
    )
    assert ModelSpec.from_json(spec.to_json()) == spec
    for text, words in [
        ("no json", "is JSON"),
        ("[]", "schema 1"),
        (spec.to_json().replace('"schema": 1', '"schema": 2'), "update tiler"),
        (spec.to_json().replace('"halo"', '"hallo"'), "hallo"),
        (spec.to_json().replace('"classes"', '"bands2"'), "bands2"),
    ]:
        with pytest.raises(InputError, match=words):
            ModelSpec.from_json(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bands": ()}, "at least one band"),
        ({"classes": ()}, "1 to 255 classes, got 0"),
        ({"activation": "tanh"}, "got 'tanh'"),
        ({"scale": (1.0, 2.0)}, r"one value per band \(1\), got 2"),
        ({"std": (0.0,)}, "above 0"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"stride": 0}, "at least 1, got 0"),
        ({"halo": -1}, "at least 0, got -1"),
        ({"resolution": 0.0}, "above 0, got 0.0"),
    ],
)
def test_an_impossible_spec_is_refused(values, words):
    with pytest.raises(UsageError, match=words):
        ModelSpec(**{"bands": ("b",), "classes": default_classes(("x", "y")), **values})


@pytest.mark.parametrize(
    ("name", "color"), [("", (0, 0, 0)), ("a", (0, 0)), ("a", (0, 0, 256)), ("a", (0.5, 0, 0))]
)
def test_an_impossible_class_is_refused(name, color):
    with pytest.raises(UsageError):
        ClassSpec(name, color)

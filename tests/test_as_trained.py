"""What `--bands` and `--nodata` told training is in the model, and is the default wherever it is fed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
import rasterio
from rasterio.enums import ColorInterp

import networks
import tiler
from refusals import refused
from tiler.bench import run_speed
from tiler.cli.main import run_command
from tiler.cli.main import tiler as tiler_command
from tiler.cluster.worker import OpenRun, SharedRun
from tiler.demo import MODEL
from tiler.errors import InputError, UsageError
from tiler.fingerprint import fingerprint
from tiler.geometry import Window
from tiler.job import plan_facts, prepare
from tiler.open import open_for_model
from tiler.options import RunOptions
from tiler.spec import METADATA_KEY, ModelSpec
from training_data import blocks, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
HEIGHT, WIDTH = 48, 96
WHOLE = Window(0, 0, HEIGHT, WIDTH)
INVALID = HEIGHT + WIDTH - 1
"""Pixels of the 20th row and column."""
TOLD = {"source_bands": (4, 2, 1), "nodata": 7.0}
TYPED = RunOptions(bands=(4, 2, 1), nodata=7.0)


def four_bands(seed=0):
    """Bands that no order confuses; where a row or column is the 20th, all four are 7."""
    noise_CHW, mask_1HW = blocks(HEIGHT, WIDTH, seed)
    raw_CHW = np.concatenate([noise_CHW, 255 - noise_CHW[:1]]) // np.array([1, 2, 3, 4])[:, None, None]
    raw_CHW[:, 20] = raw_CHW[:, :, 20] = 7
    return raw_CHW.astype(np.uint8), mask_1HW


def raster(path, **profile):
    return write(path, four_bands()[0], **{"photometric": "MINISBLACK", "alpha": "NO", **profile})


def pixelwise(path, **told):
    return networks.pixelwise(path, model_spec=networks.spec(**{**TOLD, **told}))


# --- the spec


def test_models_that_were_told_nothing_say_what_they_said():
    """Byte for byte, so that other versions read them and finished maps stay finished."""
    stored = next(p.value for p in onnx.load(MODEL).metadata_props if p.key == METADATA_KEY)
    assert ModelSpec.from_json(stored).to_json() == stored
    assert not set(TOLD) & set(json.loads(stored))


@pytest.mark.parametrize("nodata", [0.0, -9999.0, math.nan])
def test_a_spec_is_read_as_it_was_written(nodata):
    text = networks.spec(source_bands=(3, 2, 1), nodata=nodata).to_json()
    spec = ModelSpec.from_json(text)
    assert spec.to_json() == text
    assert spec.source_bands == (3, 2, 1)
    assert spec.nodata == pytest.approx(nodata, nan_ok=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source_bands": (0, 1, 2)}, r"numbered from 1, got \(0, 1, 2\)"),
        ({"source_bands": (1.0, 2.0, 3.0)}, "numbered from 1"),
        ({"source_bands": (1, 2)}, r"one value per band \(3\), got 2"),
        ({"nodata": "0"}, "a number, got '0'"),
    ],
)
def test_an_impossible_spec_is_refused(values, words):
    with pytest.raises(UsageError, match=words):
        networks.spec(**values)


# --- from training to the map


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of ``--bands 4,2,1 --nodata 7``, and the raster with its mask that it was trained on."""
    pytest.importorskip("torch")
    from train.options import TrainOptions
    from train.run import train

    folder = tmp_path_factory.mktemp("as_trained")
    image = raster(folder / "image.tif")
    mask = write(folder / "mask.tif", four_bands()[1])
    told = {"crop": 16, "batch": 4, "epochs": 1, "crops_per_epoch": 4, "width": 4, "depth": 1}
    data = {"classes": ("background", "building"), "pair": ((str(image), str(mask)),)}
    options = TrainOptions(
        **told, **data, bands=TYPED.bands, nodata=TYPED.nodata, device="cpu", threads=1, report=False
    )
    train(options, folder / "run")
    return folder / "run" / "best", image, mask


def examiner(checkpoint, image, mask):
    """The trainer's, and the whole raster as it opens it."""
    import torch

    from train.checkpoint import load_checkpoint
    from train.data.image import View
    from train.data.labelled import Library, Part, Source
    from train.data.legend import Legend
    from train.data.maskfile import MaskFile
    from train.evaluate import Examiner

    net, spec = load_checkpoint(checkpoint)
    library = Library(Legend(tuple(c.name for c in spec.classes)))
    source = Source(image, MaskFile(mask), View(bands=TYPED.bands, nodata=TYPED.nodata))
    return Examiner(net, torch.device("cpu"), library, spec), Part(source, WHOLE)


def test_a_map_is_fed_what_the_trainer_fed(trained, tmp_path):
    """The trainer's own pixels, and the map that typing its options gives; not that of other options."""
    trainer, part = examiner(*trained)
    spec, image = trainer.spec, trained[1]
    assert (spec.source_bands, spec.nodata) == (TYPED.bands, TYPED.nodata)
    seen, fed = trainer.library.open(part.source).read(WHOLE)[0], open_for_model(image, spec).read(WHOLE)
    assert np.array_equal(fed.raw_CHW, seen.raw_CHW)
    assert np.array_equal(fed.valid_HW, seen.valid_HW)
    assert (~fed.valid_HW).sum() == INVALID
    model = networks.pixelwise(tmp_path / "net.onnx", model_spec=spec)
    maps = []
    for options in (RunOptions(), TYPED, RunOptions(bands=(1, 2, 3), nodata="file")):
        told = replace(options, output="probabilities", overwrite=True)
        tiler.segment(image, model, tmp_path / "map.tif", told)
        with rasterio.open(tmp_path / "map.tif") as dataset:
            maps.append(dataset.read())
    assert np.array_equal(maps[0], maps[1])
    assert (maps[0] != maps[2]).mean() > 0.5


@pytest.mark.slow
def test_from_the_checkpoint_by_export_to_the_trainers_labels(trained, tmp_path):
    """Compared on the same pixels, of a raster of more bands than the network; what is typed goes first."""
    from export.cli import main

    trainer, part = examiner(*trained)
    few = write(tmp_path / "few.tif", four_bands()[0][:3])
    words = [str(trained[0]), str(tmp_path / "net.onnx"), "--raster"]
    assert run_command(main, [*words, str(few)]) == 2
    assert run_command(main, [*words, str(few), "--bands", "1,2,3"]) == 0
    written = (tmp_path / "net.onnx").read_bytes()
    assert run_command(main, [*words, str(trained[1])]) == 0
    assert (tmp_path / "net.onnx").read_bytes() == written
    tiler.segment(trained[1], tmp_path / "net.onnx", tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        labels_HW = dataset.read(1)
    for answer in trainer.answers(part):
        labels_HW[answer.window.slices] ^= answer.labels_QHW[0]
    assert np.count_nonzero(labels_HW) <= 3, "PyTorch and ONNX Runtime differ where scores tie"


# --- wherever a model is fed


def test_plan_run_and_inspect_say_it(tmp_path, capsys):
    image, model = raster(tmp_path / "image.tif"), pixelwise(tmp_path / "net.onnx")
    words = "bands 4,2,1 and nodata 7 over what the file says"
    assert run_command(tiler_command, ["plan", str(image), str(model)]) == 0
    assert words in " ".join(capsys.readouterr().out.split())
    archive = ["batch", str(model), str(tmp_path / "out"), str(image), "--dry-run"]
    assert run_command(tiler_command, archive) == 0
    assert words in " ".join(capsys.readouterr().out.split())
    assert run_command(tiler_command, ["segment", str(image), str(model), str(tmp_path / "map.tif")]) == 0
    assert f"as the model was trained: {words}" in capsys.readouterr().err
    report = json.loads((tmp_path / "map.report.json").read_text())
    assert report["plan"]["as_trained"] == words
    assert run_command(tiler_command, ["inspect", str(model)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "read from bands 4,2,1 of a raster" in out
    assert "nodata 7, over what a file says" in out


def test_what_is_typed_goes_first_and_each_by_itself(tmp_path):
    image, model = raster(tmp_path / "image.tif"), pixelwise(tmp_path / "net.onnx")
    raw_CHW = four_bands()[0]

    def found(**typed):
        job = prepare(image, model, RunOptions(**typed))
        return job.raster.read(WHOLE), plan_facts(job, job.plan())["as_trained"]

    pixels, words = found(bands=(1, 2, 3))
    assert np.array_equal(pixels.raw_CHW, raw_CHW[:3])
    assert (~pixels.valid_HW).sum() == INVALID
    assert words == "nodata 7 over what the file says"
    pixels, words = found(nodata=8.0)
    assert np.array_equal(pixels.raw_CHW, raw_CHW[[3, 1, 0]])
    assert pixels.valid_HW[20].all()
    assert words == "bands 4,2,1"
    assert found(bands=TYPED.bands, nodata="file")[1] == ""


def test_nodata_of_the_model_goes_over_that_of_the_file(tmp_path):
    """As ``--nodata`` does in training and when it is typed; ``file`` is the way back."""
    spec = networks.spec(**TOLD)
    raw_CHW = four_bands()[0]
    raw_CHW[3, :, :48] = 0
    said = raster(tmp_path / "said.tif", nodata=raw_CHW[0, 0, 0])
    clear = tmp_path / "alpha.tif"
    with rasterio.open(said) as dataset:
        profile = {**dataset.profile, "nodata": None}
    with rasterio.open(clear, "w", **profile) as dataset:
        dataset.colorinterp = (*[ColorInterp.undefined] * 3, ColorInterp.alpha)
        dataset.write(raw_CHW)
    for path, bands in ((said, (4, 2, 1)), (clear, (3, 2, 1))):
        told = replace(spec, source_bands=bands)
        by_model = open_for_model(path, told).read(WHOLE).valid_HW
        by_file = open_for_model(path, told, RunOptions(nodata="file")).read(WHOLE).valid_HW
        typed = open_for_model(path, networks.spec(), RunOptions(bands=bands, nodata=7)).read(WHOLE).valid_HW
        assert np.array_equal(by_model, typed)
        assert (~by_model).sum() == INVALID
        assert not np.array_equal(by_model, by_file)
    assert np.array_equal(by_file, raw_CHW[3] != 0)


def test_too_few_bands_are_refused_with_the_fix(tmp_path, capsys):
    """Of scenes and of colour tables; what is typed wrongly is not the model's."""
    model = pixelwise(tmp_path / "net.onnx")
    few = write(tmp_path / "few.tif", four_bands()[0][:3])
    words = "the model was trained on bands 4,2,1, and {} has bands 1 to 3"
    for command in (["plan", few, model], ["segment", few, model, tmp_path / "map.tif"]):
        refused(capsys, tiler_command, command, words.format(few), "got [4]; see --bands to say where")
    table = tmp_path / "table.tif"
    shape = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "uint8", "photometric": "palette"}
    with rasterio.open(table, "w", driver="GTiff", **shape) as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3, 255)})
    with pytest.raises(InputError, match=r"the model was trained on bands 4,2,1, and .* the colours of its"):
        prepare(table, model)
    with pytest.raises(InputError, match=r"^.*few.tif has bands 1 to 3, got \[5\]; see --bands$"):
        prepare(few, model, RunOptions(bands=(5, 1, 2)))
    assert prepare(few, model, RunOptions(bands=(1, 2, 3))).raster.info.bands == 3
    refused(
        capsys, tiler_command, ["plan", few, model, "--nodata", "none"], "'none' is not a number, or file"
    )
    with pytest.raises(UsageError, match="nodata is a number or \"file\", got 'native'"):
        RunOptions(nodata="native")


def test_workers_and_resumed_runs_are_told_by_the_model(tmp_path):
    """Both open the raster anew; what the model says is in the run's mark, NaN too."""
    image, model = raster(tmp_path / "image.tif"), pixelwise(tmp_path / "net.onnx", nodata=math.nan)
    opened = OpenRun(SharedRun("me", str(image), model, tmp_path / "map.tif", RunOptions()))
    assert np.array_equal(opened.job.raster.read(WHOLE).raw_CHW, four_bands()[0][[3, 1, 0]])
    assert opened.mark == fingerprint(prepare(image, model))
    assert opened.mark == json.loads(json.dumps(opened.mark))
    assert opened.mark["model"]["spec"]["source_bands"] == [4, 2, 1]
    other = pixelwise(tmp_path / "other.onnx", nodata=0.0)
    assert opened.mark != fingerprint(prepare(image, other))


@pytest.mark.slow
def test_bench_runs_on_the_bands_that_it_cut(tmp_path):
    """Its scene has three; the model's numbers are of the raster."""
    image, model = raster(tmp_path / "image.tif"), pixelwise(tmp_path / "net.onnx")
    assert run_speed(image, model, RunOptions(), 48, 1, lambda _: None).megapixels > 0


# --- evaluation of what is too small


@pytest.mark.parametrize("side", [16, 17])
def test_pictures_too_small_for_a_network_are_refused_before_training(tmp_path, side):
    """In the words of segmenting; one pixel more is mirrored to two strides, which is enough."""
    pytest.importorskip("torch")
    from train.data.labelled import Part, Source
    from train.data.maskfile import MaskFile
    from train.evaluate import check_parts
    from train.models.build import build
    from train.models.options import UNetOptions

    net = build(UNetOptions(in_channels=3, classes=2, width=2, depth=4, padding="reflect"))
    part = Part(Source(tmp_path / "a.png", MaskFile(tmp_path / "b.png")), Window(0, 0, side, 40))
    if side == 17:
        check_parts(net, [part])
        return
    with pytest.raises(InputError, match=r"sides of at least 32 px, got 40 x 16 in .*a.png; leave it out"):
        check_parts(net, [part])

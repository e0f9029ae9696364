"""``--tolerance`` and ``--check-seams``, with the shipped network on the shipped scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio

import networks
from rasters import write_raster
from refusals import refused
from tiler.backends.onnx import load_model
from tiler.cli.main import tiler
from tiler.demo import MODEL, SCENE
from tiler.errors import UsageError
from tiler.finish import Finisher
from tiler.geometry import Window, spread
from tiler.job import prepare
from tiler.options import RunOptions
from tiler.readers.array import ArrayRaster
from tiler.run import segment
from tiler.tolerance import measure_halo

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TILE = 384


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A part of the demo's scene at the network's resolution, so that it is fed as it is."""
    raster = prepare(SCENE, MODEL).raster
    window = Window(0, 0, raster.info.height, raster.info.width)
    profile = {"crs": raster.info.crs, "transform": raster.info.transform}
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return write_raster(path, raster.read(window).raw_CHW, **profile)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_a_trained_network_needs_less_than_its_receptive_field(scene, tmp_path):
    """Fewer pixels computed, the same labels, and it says what it did."""
    whole, near = tmp_path / "whole.tif", tmp_path / "near.tif"
    exact = segment(scene, MODEL, whole, RunOptions(tile=512))
    report = segment(scene, MODEL, near, RunOptions(tile=512, tolerance=0.01))
    plan = report.plan
    assert (exact.plan["mode"], exact.plan["halo"]) == ("exact", 96)
    assert plan["mode"] == "tolerance"
    assert 0 < plan["halo"] < 96
    assert plan["waste"] < exact.plan["waste"]
    assert f"halo {plan['halo']} px instead of 96" in plan["reason"]
    different = np.count_nonzero(read(whole) != read(near))
    assert different <= 1e-4 * read(whole).size


def test_less_is_allowed_by_more(scene):
    """Halos fall with the tolerance; each keeps every sampled label, and one stride less does not."""
    job = prepare(scene, MODEL)
    found = [measure_halo(job.raster, job.model, job.finisher, t) for t in (1e-6, 1e-3, 0.05)]
    assert [f.halo for f in found] == sorted((f.halo for f in found), reverse=True)
    assert found[0].halo > found[2].halo
    for tolerance, measured in zip((1e-6, 1e-3, 0.05), found, strict=True):
        assert measured.worst <= tolerance
        assert measured.samples >= (4 if measured.halo < 96 else 1)
        assert measured == measure_halo(job.raster, job.model, job.finisher, tolerance)


def test_a_network_that_needs_all_of_its_halo_keeps_it():
    """A sum over 9 x 9 pixels: without its 4 pixels of halo it is another."""

    def summed(batch_NCHW):
        padded = np.pad(batch_NCHW, [(0, 0), (0, 0), (4, 4), (4, 4)])
        total = sum(
            padded[:, :1, y : y + batch_NCHW.shape[2], x : x + batch_NCHW.shape[3]]
            for y in range(9)
            for x in range(9)
        )
        return np.concatenate([total - 40, 40 - total], axis=1)

    spec = networks.spec(1, halo=4, stride=1, scale=(1 / 255,))
    model = networks.function_model(summed, spec, 2)
    raster = ArrayRaster(np.random.default_rng(0).integers(0, 255, (1, 900, 900), np.uint8))
    assert measure_halo(raster, model, Finisher(spec, 2), 1e-3).halo == 4
    # And one that does not look around at all needs none, whatever it says of itself.
    lazy = replace(model, backend=networks.function_model(lambda b: np.repeat(b, 2, 1), spec, 2).backend)
    assert measure_halo(raster, lazy, Finisher(spec, 2), 1e-3).halo == 0


def test_where_there_is_nothing_to_sample(tmp_path):
    """Too small, or all nodata: the proven halo."""
    model = load_model(MODEL)
    finisher = Finisher(model.spec, model.channels)
    for raster in (
        ArrayRaster(np.zeros((3, 300, 900), np.uint8)),
        ArrayRaster(np.zeros((3, 900, 900), np.uint8), np.zeros((900, 900), bool)),
    ):
        found = measure_halo(raster, model, finisher, 0.1)
        assert (found.halo, found.samples) == (96, 0)


def test_samples_lie_inside_the_mask(scene):
    """What is measured elsewhere says nothing of what is wanted."""

    class Wanted:
        def __init__(self, rows):
            self.rows = rows

        def read(self, window):
            return np.broadcast_to(np.arange(window.top, window.bottom)[:, None] < self.rows, window.shape)

    job = prepare(scene, MODEL)
    measured = (job.raster, job.model, job.finisher, 0.01)
    nothing, top, all_of_it = (measure_halo(*measured, Wanted(rows)) for rows in (0, 400, 10**6))
    assert (nothing.samples, nothing.halo) == (0, 96)
    assert top.samples >= 1
    assert all_of_it == measure_halo(*measured)


def test_a_halo_that_is_told_too_small_is_no_exact_mode(scene, tmp_path):
    """It is in the model's description, and the tile is a part of the fingerprint."""
    report = segment(scene, MODEL, tmp_path / "out.tif", RunOptions(halo=32, tile=TILE))
    assert report.plan["mode"] == "told"
    assert report.plan["reason"] == "the halo of 32 px as told; 94 px would be exact"
    assert report.fingerprint["model"]["spec"]["exact"] is False
    assert report.fingerprint["options"]["tile"] == TILE


def test_resumes_keep_the_halo_of_the_first_run(scene, tmp_path, monkeypatch):
    """It is in the plan, and is not measured again."""
    out = tmp_path / "out.tif"
    options = RunOptions(tile=TILE, tolerance=0.01)

    class StopError(Exception):
        pass

    def stop(event):
        if type(event).__name__ == "BlockStored":
            raise StopError

    with pytest.raises(StopError):
        segment(scene, MODEL, out, options, stop)
    monkeypatch.setattr("tiler.job.measure_halo", lambda *_: pytest.fail("measured again"))
    assert segment(scene, MODEL, out, options).plan["halo"] < 96


def test_refusals(scene, tmp_path, capsys):
    """What has no halo to shorten, or no probability to compare."""
    out = tmp_path / "out.tif"
    refused(capsys, tiler, ["segment", scene, MODEL, out, "--tolerance", "2"], "between 0 and 1")
    refused(capsys, tiler, ["segment", scene, MODEL, out, "--tolerance", "0.1", "--blend", "hann"], "blended")
    refused(capsys, tiler, ["segment", scene, MODEL, out, "--tolerance", "0.1", "--halo", "64"], "of 94 px")
    plain = networks.unet(tmp_path / "plain.onnx", model_spec=networks.spec(exact=False, halo=None, stride=4))
    refused(capsys, tiler, ["segment", scene, plain, out, "--tolerance", "0.1", "--blend", "hann"], "blended")
    model = load_model(MODEL)
    spec = replace(model.spec, activation="none")
    with pytest.raises(UsageError, match="probabilities"):
        measure_halo(prepare(scene, MODEL).raster, replace(model, spec=spec), Finisher(spec, 2), 0.1)
    with pytest.raises(UsageError, match="any tile size"):
        measure_halo(
            prepare(scene, MODEL).raster, replace(model, shape=(1, 256, 256)), Finisher(spec, 2), 0.1
        )


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_exact_tiles_have_no_seams(scene, tmp_path, output):
    """Zero, near and far."""
    options = RunOptions(tile=TILE, check_seams=True, output=output)
    seams = segment(scene, MODEL, tmp_path / "out.tif", options).seams
    assert seams["tiles"] >= 4
    assert seams["near"] > 1000
    assert seams["far"] > 1000
    assert seams["near_different"] == seams["far_different"] == seams["excess"] == 0


def test_a_halo_that_is_too_short_is_seen(scene, tmp_path):
    """Cores cut without a halo: labels differ near the seams, and hardly far from them."""
    options = RunOptions(tile=TILE, halo=0, check_seams=True)
    seams = segment(scene, MODEL, tmp_path / "out.tif", options).seams
    assert seams["excess"] > 1e-4
    assert seams["near_different"] / seams["near"] > 3 * seams["far_different"] / seams["far"]


def test_blended_tiles_are_compared_too(scene, tmp_path, capsys):
    """The number is printed."""
    out = tmp_path / "out.tif"
    command = ["segment", scene, MODEL, out, "--blend", "hann", "--tile", TILE, "--check-seams"]
    from tiler.cli.main import run_command

    assert run_command(tiler, [str(a) for a in command]) == 0
    assert "seams" in capsys.readouterr().out


def test_one_tile_has_no_seams(tmp_path):
    """Nothing to compare, and no error."""
    small = write_raster(tmp_path / "small.tif", np.full((3, 64, 64), 9, np.uint8))
    options = RunOptions(check_seams=True, resolution="native")
    seams = segment(small, MODEL, tmp_path / "out.tif", options).seams
    assert (seams["tiles"], seams["excess"]) == (0, None)


@pytest.mark.parametrize("size", [(900, 300), (300, 900), (1500, 1500)])
def test_every_seam_can_be_looked_at(tmp_path, size):
    """Tiles in one row, in one column, and more than are sampled: what is compared lies in the raster."""
    raw_CHW = np.random.default_rng(0).integers(0, 255, (3, *size), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", raw_CHW)
    options = RunOptions(check_seams=True, tile=TILE, resolution="native")
    seams = segment(scene, MODEL, tmp_path / "out.tif", options).seams
    assert seams["tiles"] >= 3
    assert min(seams["near"], seams["far"]) > 1000
    assert seams["near_different"] == seams["far_different"] == 0


def test_points_are_spread():
    """Every sixteenth of the square has some of the first hundred."""
    cells = {(int(4 * u), int(4 * v)) for u, v in spread(100)}
    assert len(cells) == 16

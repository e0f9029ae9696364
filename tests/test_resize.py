"""A network trained on resized pictures maps pictures that are resized alike, on their own pixels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import rasterio

import networks
import tiler
from tiler.errors import InputError, UsageError
from tiler.geometry import Window, nearest
from tiler.job import prepare
from tiler.open import open_for_model, open_labels, open_mask, open_raster
from tiler.options import RunOptions
from tiler.readers.resized import resized
from tiler.readers.slide import METRES
from tiler.resize import Resize
from tiler.spec import METADATA_KEY, ModelSpec
from training_data import PLACE, blocks, write, write_images

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
WAYS = ("letterbox:48x40", "stretch:48x96", "0.6")


def picture(path, height=60, width=100, **place):
    return write(path, blocks(height, width)[0], **place)


def labels_of(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def with_spec(path, out, **changes):
    """The same network, which says something else of itself."""
    model = onnx.load(path)
    told = ModelSpec.from_json(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    onnx.helper.set_model_props(model, {METADATA_KEY: replace(told, **changes).to_json()})
    onnx.save(model, out)
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint trained on letterboxed pictures, its file, and one of the pictures with its mask."""
    pytest.importorskip("torch")
    from export.onnx import export_onnx
    from train.checkpoint import load_checkpoint
    from train.options import TrainOptions
    from train.run import train

    folder = tmp_path_factory.mktemp("resized")
    images, masks = write_images(folder, [(60, 100)] * 4)
    told = {"crop": 32, "batch": 4, "epochs": 1, "crops_per_epoch": 48, "lr": 0.02, "width": 4, "depth": 1}
    data = {"classes": ("background", "building"), "images": str(images), "masks": str(masks)}
    options = TrainOptions(
        **told, **data, resize=WAYS[0], val=0.25, test=0.25, device="cpu", threads=1, report=False
    )
    train(options, folder / "run")
    net, spec = load_checkpoint(folder / "run" / "best")
    image, mask = images / "0.png", masks / "0.png"
    export_onnx(net, spec, open_for_model(image, spec), folder / "net.onnx", 1e-4)
    return net, spec, folder / "net.onnx", image, mask


def trainers_labels(net, spec, image, mask):
    """What the trainer's evaluation finds, brought back to the picture's own pixels."""
    import torch

    from train.data.image import View
    from train.data.labelled import Library, Part, Source
    from train.data.legend import Legend
    from train.data.maskfile import MaskFile
    from train.evaluate import Examiner

    resize = Resize.parse(spec.resize)
    library = Library(Legend(tuple(c.name for c in spec.classes)))
    source = Source(image, MaskFile(mask), View(resize=resize))
    info = library.info(source)
    fed_HW = np.empty((info.height, info.width), np.uint8)
    examiner = Examiner(net, torch.device("cpu"), library, spec)
    for answer in examiner.answers(Part(source, Window(0, 0, *fed_HW.shape))):
        fed_HW[answer.window.slices] = answer.labels_QHW[0]
    return fed_HW[np.ix_(*resize.place(60, 100).under())]


@pytest.mark.parametrize("way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])])
def test_a_map_is_what_the_trainer_evaluated(trained, tmp_path, way):
    net, spec, path, image, mask = trained
    assert spec.resize == WAYS[0]
    model = with_spec(path, tmp_path / "net.onnx", resize=way)
    tiler.segment(image, model, tmp_path / "map.tif")
    mapped_HW = labels_of(tmp_path / "map.tif")
    expected_HW = trainers_labels(net, replace(spec, resize=way), image, mask)
    assert mapped_HW.shape == expected_HW.shape == (60, 100)
    assert 0 < (mapped_HW == 1).sum() < mapped_HW.size
    assert (mapped_HW != expected_HW).sum() <= 3, "PyTorch and ONNX Runtime differ where scores tie"
    tiler.segment(image, model, tmp_path / "native.tif", RunOptions(resolution="native"))
    assert (labels_of(tmp_path / "native.tif") != expected_HW).sum() > 30


def test_pixels_on_the_ground_say_more_than_a_scale(tmp_path):
    """Halved pictures of half a metre are pictures of a metre; one size for all is no size on the ground."""
    image = open_raster(picture(tmp_path / "image.tif", **PLACE))
    assert resized(image, Resize.parse("0.5")).info.ground == pytest.approx((1, 1), rel=1e-3)
    assert resized(image, Resize.parse("stretch:50x30")).info.ground is None


def test_a_spec_that_is_not_of_resized_pictures_is_as_it_was():
    """Other versions read it, and finished maps stay finished."""
    spec = networks.spec()
    assert "resize" not in json.loads(spec.to_json())
    told = replace(spec, resize="0.5")
    assert ModelSpec.from_json(told.to_json()) == told
    with pytest.raises(UsageError, match="resized or of a resolution"):
        replace(told, resolution=0.5)
    with pytest.raises(UsageError, match="got 'huge'"):
        replace(spec, resize="huge")


def test_where_the_map_lies(tmp_path):
    """On the picture's own pixels and ground; without bars it may also be as it was fed."""
    image = picture(tmp_path / "image.tif", **PLACE)
    for way, size in (("stretch:48x96", (96, 48)), ("letterbox:48x40", None)):
        model = networks.pixelwise(tmp_path / "net.onnx", model_spec=networks.spec(resize=way))
        job = prepare(image, model)
        assert job.grid == "source"
        assert job.output_info.transform == PLACE["transform"]
        told = RunOptions(grid="model")
        if size is None:
            with pytest.raises(UsageError, match="--grid model"):
                prepare(image, model, told)
        else:
            info = prepare(image, model, told).output_info
            assert (info.height, info.width) == size


@pytest.mark.parametrize("way", WAYS)
def test_masks_and_labels_follow_the_picture(tmp_path, way):
    """Of the picture's size, or on its ground: what counts is the picture's pixel under a pixel's centre."""
    wanted_HW = np.zeros((60, 100), np.uint8)
    wanted_HW[10:30, 40:90] = 1
    place = Resize.parse(way).place(60, 100)
    for name, told in (("plain.png", {}), ("placed.tif", PLACE)):
        image = picture(tmp_path / f"image{name[-4:]}", **told)
        mask = write(tmp_path / name, wanted_HW[None], **told)
        fed = open_for_model(image, networks.spec(resize=way)).info
        whole = Window(0, 0, fed.height, fed.width)
        found_HW = open_mask(mask, fed).read(whole)
        labels = open_labels(mask, fed).read(whole)
        assert np.array_equal(found_HW, labels.valid_HW & (labels.raw_CHW[0] == 1))
        under = nearest(place.inner.height, 60), nearest(place.inner.width, 100)
        expected_HW = np.zeros(whole.shape, bool)
        expected_HW[place.inner.slices] = wanted_HW[np.ix_(*under)]
        assert np.array_equal(found_HW, expected_HW)
        assert found_HW.any()


def test_what_is_no_picture_is_refused(tmp_path):
    model = networks.spec(resize="letterbox:8")
    image = picture(tmp_path / "image.png", 64, 264)
    with pytest.raises(InputError, match=r"letterbox:8: .* at most 32 times smaller, got 264 x 64 px"):
        open_for_model(image, model)
    assert open_for_model(image, model, RunOptions(resolution="native")).info.width == 264
    with pytest.raises(InputError, match="is a slide; pass --level 0"):
        open_for_model(image, model, RunOptions(assume_mpp=0.5))
    fed = open_for_model(image, model, RunOptions(assume_mpp=0.5, level=0)).info
    assert fed.ground == (0.5 * METRES, 0.5 * METRES)


def test_a_resized_picture_keeps_its_plan(tmp_path):
    """Memory, tiles and the note are those of what is fed."""
    image = picture(tmp_path / "image.png")
    model = networks.pixelwise(tmp_path / "net.onnx", model_spec=networks.spec(resize="letterbox:48"))
    job = prepare(image, model)
    plan = job.plan()
    assert plan.grid.tile == (48, 48)
    assert plan.terms["resampling"] >= 0
    assert "letterbox" in job.raster.info.note
    assert open_raster(image).info.picture is None

"""Pictures with a colour table are fed as their colours; labels with one are its indices."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

import networks
import tiler
from tiler.cli.main import run_command
from tiler.cli.main import tiler as tiler_command
from tiler.errors import InputError
from tiler.geometry import Window
from tiler.open import open_for_model, open_labels, open_raster
from tiler.options import RunOptions
from training_data import write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TABLE = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (0, 255, 0, 255), 3: (9, 9, 9, 255)}
WHOLE = Window(0, 0, 48, 64)


def indices(seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 4, (48, 64)).astype(dtype)


def with_table(path, indices_HW, table=None, **profile):
    """A file of indices, with the driver of its name."""
    driver = {".png": "PNG", ".tif": "GTiff"}[path.suffix]
    profile = {"height": 48, "width": 64, "dtype": indices_HW.dtype, "count": 1, **profile}
    with rasterio.open(path, "w", driver=driver, photometric="palette", **profile) as dataset:
        dataset.write(indices_HW, 1)
        dataset.write_colormap(1, table or TABLE)
    return path


def expanded(indices_HW):
    colours_NC = np.array([TABLE[i][:3] for i in range(4)], np.uint8)
    return colours_NC[indices_HW].transpose(2, 0, 1)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "wide.tif"])
def test_an_image_is_its_colours_and_labels_are_indices(tmp_path, name):
    """Whatever the type of the indices, and whatever bands are chosen."""
    found_HW = indices(dtype=np.uint16 if name == "wide.tif" else np.uint8)
    path = with_table(tmp_path / name, found_HW)
    image = open_for_model(path, networks.spec())
    assert (image.info.bands, image.info.dtype, image.info.colours) == (3, np.uint8, True)
    pixels = image.read(WHOLE)
    assert np.array_equal(pixels.raw_CHW, expanded(found_HW))
    assert pixels.raw_CHW.flags.c_contiguous
    assert pixels.valid_HW.all()
    part = Window(5, 7, 20, 40)
    assert np.array_equal(image.read(part).raw_CHW, pixels.raw_CHW[:, *part.slices])
    turned = open_for_model(path, networks.spec(), RunOptions(bands=(3, 2, 1)))
    assert np.array_equal(turned.read(WHOLE).raw_CHW, pixels.raw_CHW[::-1])
    for labels in (open_raster(path), open_labels(path, image.info)):
        assert np.array_equal(labels.read(WHOLE).raw_CHW[0], found_HW)


def test_training_sees_what_segmenting_sees(tmp_path):
    """Both are fed the colours; the mask with the same table is classes."""
    pytest.importorskip("torch")
    from train.data.image import View, open_image, raw_mask

    path = with_table(tmp_path / "a.png", indices())
    fed = open_for_model(path, networks.spec()).read(WHOLE)
    for view in (View(), View(rgb=True)):
        seen = open_image(path, view).read(WHOLE)
        assert np.array_equal(seen.raw_CHW, fed.raw_CHW)
    assert np.array_equal(raw_mask(path).read(WHOLE).raw_CHW[0], indices())


def test_the_map_is_that_of_the_colours(tmp_path):
    """As if somebody had expanded the file before; averaged pixels are means of colours, not of indices."""
    plain = write(tmp_path / "rgb.png", expanded(indices()))
    path = with_table(tmp_path / "table.png", indices())
    model = networks.pixelwise(tmp_path / "net.onnx", model_spec=networks.spec(resize="0.5"))
    maps = []
    for image in (plain, path):
        told = RunOptions(output="probabilities")
        tiler.segment(image, model, tmp_path / f"{image.stem}.tif", told)
        with rasterio.open(tmp_path / f"{image.stem}.tif") as dataset:
            maps.append(dataset.read())
    assert np.array_equal(*maps)
    assert len(np.unique(maps[0])) > 2


def test_overviews_have_the_colours_too(tmp_path):
    path = with_table(tmp_path / "a.tif", np.repeat([[0], [2]], 24, 0).repeat(64, 1).astype(np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2], rasterio.enums.Resampling.nearest)
    level = open_raster(path, assume_mpp=1, level=1, colours=True)
    assert level.info.bands == 3
    pixels = level.read(Window(0, 0, 24, 32))
    assert np.array_equal(np.unique(pixels.raw_CHW.reshape(3, -1), axis=1).T, [[0, 255, 0], [10, 20, 30]])


def test_transparent_colours_nodata_and_alpha_are_not_valid(tmp_path):
    found_HW = indices()
    clear = with_table(tmp_path / "clear.png", found_HW, {**TABLE, 1: (200, 100, 50, 0)})
    glassy = {**TABLE, 1: (200, 100, 50, 0), 2: (0, 255, 0, 99)}
    paler = with_table(tmp_path / "paler.png", found_HW, glassy)
    told = with_table(tmp_path / "told.tif", found_HW, nodata=1)
    hidden = with_table(tmp_path / "hidden.tif", np.where(found_HW == 1, 9, found_HW).astype(np.uint8))
    alpha = tmp_path / "alpha.tif"
    profile = {"height": 48, "width": 64, "dtype": "uint8", "count": 2}
    with rasterio.open(alpha, "w", driver="GTiff", **profile) as dataset:
        dataset.colorinterp = (ColorInterp.palette, ColorInterp.alpha)
        dataset.write_colormap(1, TABLE)
        dataset.write(np.stack([found_HW, (found_HW != 1) * np.uint8(255)]))
    for path in (clear, paler, told, alpha):
        image = open_raster(path, colours=True)
        assert image.info.gaps
        pixels = image.read(WHOLE)
        assert np.array_equal(pixels.valid_HW, found_HW != 1), path.name
        assert np.array_equal(pixels.raw_CHW[:, pixels.valid_HW], expanded(found_HW)[:, found_HW != 1])
    # GDAL fills up the table of a TIFF with black.
    assert open_raster(hidden, colours=True).read(WHOLE).raw_CHW[:, found_HW == 1].max() == 0
    by_index = open_raster(told, nodata=2, colours=True).read(WHOLE)
    assert np.array_equal(by_index.valid_HW, found_HW != 2)


def test_a_model_of_another_number_of_bands_says_what_the_bands_are(tmp_path, capsys):
    """A classified raster that is fed to a model of one band is most often a mistake."""
    path = with_table(tmp_path / "classes.tif", indices())
    with pytest.raises(InputError, match=r"takes 1 bands .*got 3 in .*classes.tif, the colours of its table"):
        open_for_model(path, networks.spec(1))
    with pytest.raises(InputError, match=r"bands 1 to 3, the colours of its table, got \[4\]; see --bands"):
        open_for_model(path, networks.spec(), RunOptions(bands=(1, 2, 4)))
    assert run_command(tiler_command, ["inspect", str(path)]) == 0
    assert "3 of uint8 (the colours of its table" in capsys.readouterr().out


def test_a_table_with_colours_that_are_none(tmp_path):
    path = with_table(tmp_path / "a.tif", indices())
    text = f"""<VRTDataset rasterXSize="64" rasterYSize="48"><VRTRasterBand dataType="Byte" band="1">
        <ColorInterp>Palette</ColorInterp>TABLE<SimpleSource><SourceFilename relativeToVRT="1">{path.name}
        </SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
    vrt = tmp_path / "a.vrt"
    entry = '<ColorTable><Entry c1="300" c2="0" c3="0" c4="255"/></ColorTable>'
    vrt.write_text(text.replace("TABLE", entry).replace("\n        </Source", "</Source"))
    with pytest.raises(InputError, match="colours are from 0 to 255, got others in the table"):
        open_raster(vrt, allow_vrt=True, colours=True)
    vrt.write_text(text.replace("TABLE", "").replace("\n        </Source", "</Source"))
    assert open_raster(vrt, allow_vrt=True, colours=True).info.bands == 1

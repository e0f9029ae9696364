"""Every real raster goes through `tiler segment`, or is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

import networks
from conftest import DATA
from tiler.cli.main import run_command, tiler

BANDS = {
    "RGB.byte.tif": 3,
    "RGBA.uint16.tif": 3,
    "bluemarble_europe_africa_z8.tif": 3,
    "cog_cmap.tif": 3,
    "cog_gcps_sentinel1.tif": 1,
    "cog_hirise_mars.tif": 3,
    "cog_landsat_greenland_uint16.tif": 1,
    "cog_rgb_mask.tif": 3,
    "drone_DJI_0025.jpg": 3,
    "dummy_fotomap_small.tif": 3,
    "landsat_mosaic.vrt": 3,
    "landsat_ucayali_1985.tif": 4,
    "mosaic_cog1.tif": 3,
    "mosaic_cog2.tif": 3,
    "naip_m_4709963_se_14_1_20100629.tif": 4,
    "neon_OSBS_029.tif": 3,
    "neon_YELL_crop.tiff": 3,
    "restor_5dded5bc_23.tif": 3,
    "sentinel2_B01_60m.jp2": 1,
    "zanzibar_oam_z21.tif": 3,
}
"""Bands that are not alpha."""
SLOW = {"bluemarble_europe_africa_z8.tif"}

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_the_table_names_every_raster(shared):
    """A new file must be added to the table."""
    files = {p.name for p in (shared / "rasters").iterdir()} - {"README.md"}
    assert files == set(BANDS)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in BANDS]
)
def test_a_real_raster_becomes_a_valid_cog(shared, tmp_path, name, capsys):
    """Same size, CRS and transform as the source; labels equal a direct computation on its first pixels."""
    source, output = shared / "rasters" / name, tmp_path / "out.tif"
    model = networks.pixelwise(tmp_path / "net.onnx", BANDS[name])
    command = ["segment", str(source), str(model), str(output), "--allow-vrt", "--tile", "1024"]
    assert run_command(tiler, command) == 0, capsys.readouterr().err
    valid, errors, warnings = cog_validate(output, strict=True)
    assert valid, (errors, warnings)
    with rasterio.open(source) as before, rasterio.open(output) as after:
        assert after.shape == before.shape
        assert after.crs == before.crs
        assert after.transform == before.transform
        labels_HW = after.read(1)
    nodata_share = (labels_HW == 255).mean()
    assert nodata_share < 0.7
    assert set(np.unique(labels_HW)) <= {0, 1, 255}


@pytest.mark.parametrize(("name", "share"), [("RGB.byte.tif", 0.32), ("cog_rgb_mask.tif", 0.026)])
def test_nodata_and_masks_become_nodata(tmp_path, name, share):
    """Exactly the pixels that rasterio calls masked."""
    output = tmp_path / "out.tif"
    model = networks.pixelwise(tmp_path / "net.onnx", 3)
    assert run_command(tiler, ["segment", str(DATA / name), str(model), str(output), "--quiet"]) == 0
    with rasterio.open(DATA / name) as before, rasterio.open(output) as after:
        masked_HW = before.dataset_mask() == 0
        np.testing.assert_array_equal(after.read(1) == 255, masked_HW)
    assert masked_HW.mean() == pytest.approx(share, abs=0.01)


def test_nodata_given_by_hand_overrides_the_file(shared, tmp_path):
    """The Greenland scene has a collar of ones and no nodata tag."""
    source, output = shared / "rasters" / "cog_landsat_greenland_uint16.tif", tmp_path / "out.tif"
    model = networks.pixelwise(tmp_path / "net.onnx", 1)
    command = ["segment", str(source), str(model), str(output), "--nodata", "1", "--quiet"]
    assert run_command(tiler, command) == 0
    with rasterio.open(source) as before, rasterio.open(output) as after:
        collar_HW = before.read(1) == 1
        np.testing.assert_array_equal(after.read(1) == 255, collar_HW)
    assert collar_HW.mean() > 0.4


def test_a_vrt_is_read_only_when_asked_for(shared, tmp_path, capsys):
    """And then pixel by pixel as rasterio reads it."""
    source = shared / "rasters" / "landsat_mosaic.vrt"
    model = networks.pixelwise(tmp_path / "net.onnx", 3)
    assert run_command(tiler, ["segment", str(source), str(model), str(tmp_path / "out.tif")]) == 2
    assert "--allow-vrt" in capsys.readouterr().err


def test_georeferencing_warnings_do_not_reach_the_user(shared, recwarn):
    """A photo without CRS is a plain raster."""
    from tiler.open import open_raster

    assert open_raster(shared / "rasters" / "drone_DJI_0025.jpg").info.crs is None
    assert not [w for w in recwarn if issubclass(w.category, NotGeoreferencedWarning)]

"""Rasters: files against rasterio, resampling against its definition, and independence of the window."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from conftest import DATA
from rasters import write_raster
from tiler.errors import DamageError, InputError
from tiler.geometry import Window, nearest
from tiler.open import open_for_model, open_labels, open_raster
from tiler.options import RunOptions
from tiler.pixels import Pixels, fill_invalid, fill_values, normalise
from tiler.readers.array import ArrayRaster
from tiler.readers.gdal import damage_watch
from tiler.readers.ground import pixel_area, pixel_size, pixel_vectors
from tiler.readers.resampled import NearestRaster, ResampledRaster, resampled_info
from tiler.spec import ModelSpec, default_classes
from tiler.tiles import mirrored, read_mirrored

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
UTM = "EPSG:32633"


@pytest.mark.parametrize(
    "name",
    sorted(p.name for p in DATA.glob("*.tif*")),
)
def test_windows_equal_rasterio(name):
    """Pixels, and the mask that rasterio's own dataset mask gives."""
    raster = open_raster(DATA / name)
    with rasterio.open(DATA / name) as dataset:
        raw_CHW, mask_HW = dataset.read()[: raster.info.bands], dataset.dataset_mask() != 0
    rng = np.random.default_rng(0)
    for _ in range(12):
        top, left = rng.integers(0, raster.info.height - 1), rng.integers(0, raster.info.width - 1)
        bottom, right = top + rng.integers(1, 300), left + rng.integers(1, 300)
        window = Window(
            int(top), int(left), min(int(bottom), raster.info.height), min(int(right), raster.info.width)
        )
        pixels = raster.read(window)
        np.testing.assert_array_equal(pixels.raw_CHW, raw_CHW[:, *window.slices])
        np.testing.assert_array_equal(pixels.valid_HW, mask_HW[window.slices])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {}])
def test_layouts_and_dtypes(tmp_path, dtype, layout):
    """Striped or tiled, each dtype, chosen bands in the order asked for."""
    raw_CHW = np.arange(3 * 40 * 50).reshape(3, 40, 50).astype(dtype)
    path = write_raster(tmp_path / "x.tif", raw_CHW, **layout, photometric="MINISBLACK")
    pixels = open_raster(path, bands=(3, 1)).read(Window(5, 6, 30, 31))
    np.testing.assert_array_equal(pixels.raw_CHW, raw_CHW[[2, 0], 5:30, 6:31])


def test_not_finite_pixels_are_not_valid(tmp_path):
    """In any of the bands used, and only in those."""
    raw_CHW = np.ones((2, 3, 3), np.float32)
    raw_CHW[0, 0, 0], raw_CHW[1, 1, 1] = np.nan, np.inf
    path = write_raster(tmp_path / "x.tif", raw_CHW)
    assert (~open_raster(path).read(Window(0, 0, 3, 3)).valid_HW).sum() == 2
    assert (~open_raster(path, bands=(1,)).read(Window(0, 0, 3, 3)).valid_HW).sum() == 1


def test_threads_read_through_their_own_handles(shared):
    """Eight threads at once see what one sees."""
    raster = open_raster(shared / "rasters" / "zanzibar_oam_z21.tif")
    window = Window(500, 700, 1300, 1500)
    expected = raster.read(window).raw_CHW
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(raster.read(window).raw_CHW)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert all((pixels == expected).all() for pixels in seen)


def test_damage_is_noticed_in_its_own_thread_only(tmp_path):
    """Another thread's log record is not this window's damage."""
    with damage_watch() as seen:
        thread = threading.Thread(target=lambda: logging.getLogger("rasterio._err").warning("corrupt"))
        thread.start()
        thread.join()
        assert seen == []
        logging.getLogger("rasterio._err").warning("corrupt")
        assert seen == ["corrupt"]
    content = bytearray((DATA / "neon_YELL_crop.tiff").read_bytes())
    content[300_000:300_400] = b"\x55" * 400
    (tmp_path / "damaged.tiff").write_bytes(content)
    raster = open_raster(tmp_path / "damaged.tiff")
    assert raster.read(Window(0, 0, 32, 1249)).valid_HW.all()
    with pytest.raises(DamageError, match="rows 320:352"):
        raster.read(Window(0, 0, 1035, 1249))


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_mirroring_is_numpys(extent, before, after):
    """For any padding, also of rasters smaller than it."""
    row = np.arange(extent)
    expected = np.pad(row, (before, after), mode="reflect")
    np.testing.assert_array_equal(mirrored(np.arange(-before, extent + after), extent), expected)
    raster = ArrayRaster(row[None, None].astype(np.uint8))
    pixels = read_mirrored(raster, Window(0, -before, 1, extent + after))
    np.testing.assert_array_equal(pixels.raw_CHW[0, 0], expected)


def placed(raw_CHW, valid_HW=None, height=0, width=0):
    """An array raster resampled to another size."""
    raster = ArrayRaster(raw_CHW, valid_HW)
    return ResampledRaster(raster, resampled_info(raster.info, height, width, ""))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_a_resampled_pixel_does_not_depend_on_its_window(height, width, to_height, to_width, seed):
    """Bit by bit, for shrinking and growing; GDAL's warper does not do this."""
    rng = np.random.default_rng(seed)
    raw_CHW = rng.integers(0, 60000, (2, height, width), np.uint16)
    raster = placed(raw_CHW, rng.random((height, width)) < 0.8, to_height, to_width)
    whole = raster.read(Window(0, 0, to_height, to_width))
    top, left = rng.integers(0, to_height), rng.integers(0, to_width)
    window = Window(
        int(top),
        int(left),
        int(rng.integers(top + 1, to_height + 1)),
        int(rng.integers(left + 1, to_width + 1)),
    )
    part = raster.read(window)
    np.testing.assert_array_equal(part.raw_CHW, whole.raw_CHW[:, *window.slices])
    np.testing.assert_array_equal(part.valid_HW, whole.valid_HW[window.slices])


def test_shrinking_by_a_whole_number_is_the_mean():
    rng = np.random.default_rng(0)
    raw_CHW = rng.random((1, 12, 20), np.float32)
    pixels = placed(raw_CHW, None, 4, 5).read(Window(0, 0, 4, 5))
    np.testing.assert_allclose(pixels.raw_CHW[0], raw_CHW[0].reshape(4, 3, 5, 4).mean(axis=(1, 3)), rtol=1e-6)


def test_shrinking_keeps_the_mean_at_any_ratio():
    """Area averaging loses nothing and counts nothing twice."""
    raw_CHW = np.random.default_rng(1).random((1, 37, 53), np.float32)
    pixels = placed(raw_CHW, None, 11, 17).read(Window(0, 0, 11, 17))
    assert pixels.raw_CHW.mean() == pytest.approx(raw_CHW.mean(), rel=1e-5)


def test_means_are_over_valid_pixels_only():
    raw_CHW = np.array([[[10, 200], [30, 200]]], np.uint8)
    valid_HW = np.array([[True, False], [True, False]])
    pixels = placed(raw_CHW, valid_HW, 1, 1).read(Window(0, 0, 1, 1))
    assert pixels.raw_CHW.tolist() == [[[20]]]
    assert not placed(raw_CHW, ~np.ones((2, 2), bool), 1, 1).read(Window(0, 0, 1, 1)).valid_HW.any()


def test_growing_interpolates_between_centres():
    raw_CHW = np.array([[[0, 100]]], np.uint8)
    assert placed(raw_CHW, None, 1, 4).read(Window(0, 0, 1, 4)).raw_CHW.tolist() == [[[0, 25, 75, 100]]]


def test_the_overview_at_least_as_fine_is_read(shared):
    """0.25 m from 7.4 cm: the half-size overview (0.15 m) is finer, the quarter-size one is not."""
    raster = open_raster(shared / "rasters" / "zanzibar_oam_z21.tif", resolution=0.25)
    assert "averaged from 4096 x 2048 px" in raster.info.note
    assert raster.info.ground == pytest.approx((0.25, 0.25), rel=1e-3)
    assert raster.info.transform.a * raster.info.width == pytest.approx(611.496, abs=0.01)


def test_a_model_is_fed_at_its_resolution(shared):
    """Unless the raster is within 5 % of it, is told another, or does not say its own."""
    scene = shared / "rasters" / "zanzibar_oam_z21.tif"
    close, half, any_ = (
        ModelSpec(("r", "g", "b"), default_classes(("a", "b")), resolution=r) for r in (0.075, 0.15, None)
    )
    assert open_for_model(scene, close).info.width == 8192
    assert open_for_model(scene, any_).info.width == 8192
    assert open_for_model(scene, half).info.width == pytest.approx(4054, abs=2)
    assert open_for_model(scene, half, RunOptions(resolution="native")).info.width == 8192
    with pytest.raises(InputError, match="--resolution native"):
        open_for_model(shared / "rasters" / "drone_DJI_0025.jpg", half)


def test_labels_are_brought_onto_the_grid_of_their_raster(tmp_path):
    """Nearest label; outside their extent: not valid."""
    quarters_CHW = np.array([[[1, 2], [3, 4]]], np.uint8)
    coarse = write_raster(tmp_path / "l.tif", quarters_CHW, transform=Affine(2, 0, 10, 0, -2, 20), crs=UTM)
    place = {"transform": Affine(1, 0, 10, 0, -1, 20), "crs": UTM}
    fine = write_raster(tmp_path / "r.tif", np.zeros((3, 4, 6), np.uint8), **place)
    like = open_raster(fine).info
    pixels = open_labels(coarse, like).read(Window(0, 0, 4, 6))
    assert pixels.raw_CHW[0, :, :4].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert pixels.valid_HW[:, :4].all()
    assert not pixels.valid_HW[:, 4:].any()


def test_labels_without_a_place_have_the_size_of_their_raster(tmp_path):
    """They are not stretched; 32-bit labels, as rasterising tools write them, are fine."""
    labels = write_raster(tmp_path / "l.tif", np.full((1, 4, 6), 3, np.int32))
    same = write_raster(tmp_path / "r.tif", np.zeros((3, 4, 6), np.uint8))
    other = write_raster(tmp_path / "o.tif", np.zeros((3, 8, 12), np.uint8))
    assert open_labels(labels, open_raster(same).info).read(Window(0, 0, 4, 6)).raw_CHW.max() == 3
    with pytest.raises(InputError, match=r"12 x 8 px\), got 6 x 4"):
        open_labels(labels, open_raster(other).info)


def test_labels_in_another_crs_are_refused(tmp_path):
    labels = write_raster(
        tmp_path / "l.tif",
        np.zeros((1, 4, 4), np.uint8),
        transform=Affine(1, 0, 0, 0, -1, 0),
        crs="EPSG:3857",
    )
    raster = write_raster(
        tmp_path / "r.tif", np.zeros((1, 4, 5), np.uint8), transform=Affine(1, 0, 0, 0, -1, 0), crs=UTM
    )
    with pytest.raises(InputError, match="EPSG:32633"):
        open_labels(labels, open_raster(raster).info)


@given(st.integers(1, 50), st.integers(1, 50))
def test_nearest_is_the_pixel_under_the_centre(target, source):
    expected = np.floor((np.arange(target) + 0.5) * source / target).astype(int)
    assert np.abs(nearest(target, source) - expected).max() <= (0 if source % 2 or target % 2 else 1)


def test_web_mercator_metres_are_not_metres():
    """At 60 degrees north they are about half as long."""
    east, north = pixel_size(CRS.from_epsg(3857), Affine(100, 0, 0, 0, -100, 8399737.89), 0, 0)
    assert east == pytest.approx(100 * 0.5 * 1.00252, rel=1e-4)
    assert north == pytest.approx(100 * 0.5, rel=2e-3)


def test_a_degree_of_longitude_on_the_equator():
    vectors = pixel_vectors(CRS.from_epsg(4326), Affine(1, 0, 0, 0, -1, 0), 0, 0)
    assert vectors[0][0] == pytest.approx(111_319.49, rel=1e-6)
    assert vectors[1][1] == pytest.approx(-110_574.3, rel=1e-4)


def test_utm_pixels_are_within_a_thousandth():
    area = pixel_area(CRS.from_string(UTM), Affine(10, 0, 500000, 0, -10, 5000000), Window(0, 0, 1, 1))
    assert area == pytest.approx(100 / 0.9996**2, rel=1e-5)


def test_another_planet_is_measured_in_its_own_units():
    """No transform leads from Mars to WGS 84."""
    info = open_raster(DATA / "cog_hirise_mars.tif").info
    assert info.ground == pytest.approx((info.transform.a, -info.transform.e))


def test_fill_is_the_mean_in_raw_units_rounded():
    spec = ModelSpec(
        ("a", "b"), default_classes(("x", "y")), scale=(1 / 255, 1 / 255), mean=(0.5, 2.0), std=(0.1, 1.0)
    )
    assert fill_values(spec, np.uint8).tolist() == [128, 255]
    raw_CHW = np.zeros((2, 1, 2), np.uint8)
    filled = fill_invalid(Pixels(raw_CHW, np.array([[True, False]])), fill_values(spec, np.uint8))
    assert filled.tolist() == [[[0, 128]], [[0, 255]]]
    assert raw_CHW.max() == 0
    np.testing.assert_allclose(
        normalise(np.full((2, 1, 1), 51, np.uint8), spec).ravel(), [-3, -1.8], rtol=1e-5
    )


def test_nodata_counts_in_the_bands_that_are_used(tmp_path):
    """A sentinel in one used band of a float raster is enough; in others it does not matter."""
    raw_CHW = np.full((2, 2, 4), 5, np.float32)
    raw_CHW[0, 0] = -9999
    path = write_raster(tmp_path / "x.tif", raw_CHW, nodata=-9999)
    everything = Window(0, 0, 2, 4)
    for bands, share in (((1,), 0.5), ((2,), 1.0), ((2, 1), 0.5)):
        assert open_raster(path, bands=bands).read(everything).valid_HW.mean() == share
        given = open_raster(path, bands=bands, nodata=-9999).read(everything)
        assert given.valid_HW.mean() == share


def test_a_colour_that_has_the_nodata_value_in_one_band_is_valid(tmp_path):
    """Nodata 0 of bytes is black in all bands."""
    raw_CHW = np.array([[[0, 0]], [[0, 9]], [[0, 9]]], np.uint8)
    path = write_raster(tmp_path / "x.tif", raw_CHW, nodata=0)
    assert open_raster(path).read(Window(0, 0, 1, 2)).valid_HW.tolist() == [[False, True]]


def test_damage_is_noticed_however_little_a_program_logs(tmp_path):
    """`rio -q` asks for errors only, and GDAL reports damage as a warning."""
    log = logging.getLogger("rasterio")
    level = log.level
    log.setLevel(logging.ERROR)
    logging.getLogger("rasterio._err").setLevel(logging.NOTSET)
    try:
        with damage_watch() as seen:
            logging.getLogger("rasterio._err").warning("corrupt")
        assert seen == ["corrupt"]
    finally:
        log.setLevel(level)


def test_nearest_pixels_of_a_much_finer_raster_are_read_in_pieces(monkeypatch):
    """Whatever the pieces, the same pixels."""
    fine = np.random.default_rng(0).integers(0, 9, (1, 700, 500), np.uint8)
    valid = np.random.default_rng(1).random((700, 500)) > 0.2
    raster = ArrayRaster(fine, valid)
    rows, columns = np.arange(40) * 18 - 5, np.arange(30) * 17
    info = replace(raster.info, height=40, width=30)
    coarse = NearestRaster(raster, rows, columns, info)
    whole = coarse.read(Window(0, 0, 40, 30))
    monkeypatch.setattr("tiler.readers.resampled.MOST_AT_ONCE", 20_000)
    pieces = coarse.read(Window(0, 0, 40, 30))
    assert np.array_equal(pieces.raw_CHW, whole.raw_CHW)
    assert np.array_equal(pieces.valid_HW, whole.valid_HW)
    inside = (rows >= 0) & (rows < 700)
    assert np.array_equal(whole.raw_CHW[0, inside], fine[0][np.ix_(rows[inside], columns)])
    assert not whole.valid_HW[~inside].any()

"""Labels of every kind become classes on their image's grid, and what is not known is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
from rasterio.transform import from_origin

from slides import generic
from tiler.errors import InputError, UsageError
from tiler.geometry import Window
from tiler.open import open_raster
from train.data.image import View, open_image
from train.data.item import Item
from train.data.labelled import Library, Source
from train.data.legend import Legend
from train.data.target import IGNORE
from training_data import PLACE, blocks, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TWO = ("background", "building")


def target_of(image, mask, legend, field=None, view=None, region=None):
    """Of the whole image."""
    library = Library(legend)
    item = Item(image, str(mask), region=region)
    source = item.source(view or View(), field)
    info = library.info(source)
    return library.open(source).read(Window(0, 0, info.height, info.width))[1]


@pytest.fixture
def image(tmp_path):
    """Noise of 24 x 32 px."""
    raw_CHW = np.random.default_rng(0).integers(0, 256, (3, 24, 32), np.uint8)
    return write(tmp_path / "image.png", raw_CHW)


def mask(tmp_path, values_HW, name="mask.png"):
    """A mask of the image's size whose first pixels have these values."""
    raw_HW = np.zeros((24, 32), np.uint8)
    raw_HW[: len(values_HW), : len(values_HW[0])] = values_HW
    return write(tmp_path / name, raw_HW[None])


# --- values


@pytest.mark.parametrize("coding", ["0=background,house=building", "0=background,-1=ignore,1=building"])
def test_a_mask_is_not_read_by_a_coding_with_names(tmp_path, image, coding):
    """It was read by index, whatever the values in the coding said; polygons may be called either."""
    path = mask(tmp_path, [[0, 1, 1, 0]])
    with pytest.raises(InputError, match=r"values or colours alone, got .* with names for .*mask\.png"):
        target_of(image, path, Legend(TWO, coding))
    assert Legend(TWO, "3=background,house=building").named("3", "labels.geojson") == 0


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("index", None),
        (">127", [[0, 0, 1, 1]]),
        ("<=127", [[1, 1, 0, 0]]),
        ("0=background,1=building,128=ignore,255=building", [[0, 1, IGNORE, 1]]),
        ("instances", [[0, 1, 1, 1]]),
    ],
)
def test_values_become_classes_by_the_coding(tmp_path, image, coding, expected):
    path = mask(tmp_path, [[0, 1, 128, 255]])
    if expected is None:
        with pytest.raises(InputError, match=r"0 to 1, or 255 for not known, got 128 in .*mask\.png"):
            target_of(image, path, Legend(TWO, coding))
    else:
        assert target_of(image, path, Legend(TWO, coding))[:1, :4].tolist() == expected


def test_colours_become_classes(tmp_path, image):
    raw_CHW = np.zeros((3, 24, 32), np.uint8)
    raw_CHW[:, 0, 1], raw_CHW[:, 0, 2] = (255, 0, 0), (0, 0, 255)
    path = write(tmp_path / "colours.png", raw_CHW)
    legend = Legend(("land", "road"), "#000000=land,#ff0000=road,#0000FF=ignore")
    assert target_of(image, path, legend)[0, :4].tolist() == [0, 1, IGNORE, 0]
    with pytest.raises(InputError, match=r"got #0000ff in .*colours\.png; see --classes and --coding"):
        target_of(image, path, Legend(("land", "road"), "#000000=land,#ff0000=road"))
    with pytest.raises(InputError, match=r"1 band for --coding index, got 3 .*#RRGGBB=CLASS"):
        target_of(image, path, Legend(TWO))


@pytest.mark.parametrize(
    ("classes", "coding", "word"),
    [
        (TWO, "0=background,7=tree", "got 'tree'"),
        (TWO, "0=background,0=building", "names each value once"),
        (TWO, "0=background,#ff0000=building", "alone, or none"),
        (TWO, "#000000=background,#f00=building", "alone, or none"),
        (TWO, "#f00=building", "alone, or none"),
        (TWO, "numbers", "--coding is index"),
        (TWO, "", "--coding is index"),
        ((*TWO, "tree"), ">127", "tells 2 classes apart, got 3"),
        (("background", "ignore"), "index", "is no class"),
    ],
)
def test_legends_that_break_a_rule(classes, coding, word):
    with pytest.raises(UsageError, match=word):
        Legend(classes, coding)


def test_classes_that_may_overlap_have_a_plane_each(tmp_path, image):
    path = mask(tmp_path, [[0, 1, 255]])
    planes_KHW = target_of(image, path, Legend(TWO, independent=True))
    assert planes_KHW[:, 0, :3].tolist() == [[1, 0, IGNORE], [0, 1, IGNORE]]


# --- polygons


def geojson(path, shapes, properties=None, **more):
    """Features of a FeatureCollection."""
    told = properties or [{}] * len(shapes)
    features = [
        {"type": "Feature", "geometry": s, "properties": p} for s, p in zip(shapes, told, strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def box(left, top, right, bottom):
    """A polygon."""
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring]}


def test_georeferenced_polygons_of_another_crs_are_those_of_rasterio(tmp_path):
    """Boxes in degrees against GDAL's own burning of the reprojected corners."""
    raster = write(tmp_path / "r.tif", blocks(64, 200)[0], **PLACE)
    utm = [box(500_010, 9_299_990, 500_030.3, 9_299_975), box(500_050, 9_299_995, 500_080, 9_299_970)]
    degrees = [rasterio.warp.transform_geom(PLACE["crs"], "EPSG:4326", shape, precision=12) for shape in utm]
    path = geojson(tmp_path / "p.geojson", degrees, [{"kind": 1}, {"kind": "lake"}])
    got_HW = target_of(raster, path, Legend((*TWO, "lake")), field="kind")
    expected_HW = rasterio.features.rasterize(
        [(utm[0], 1), (utm[1], 2)], (64, 200), transform=PLACE["transform"]
    )
    assert np.array_equal(got_HW, expected_HW)
    assert set(np.unique(got_HW)) == {0, 1, 2}


def test_polygons_say_their_class_or_are_all_of_one(tmp_path):
    raster = write(tmp_path / "r.tif", blocks(64, 200)[0], **PLACE)
    utm = {"crs": {"type": "name", "properties": {"name": "EPSG:32737"}}}
    shapes = [box(500_010, 9_299_990, 500_030, 9_299_975)]
    path = geojson(tmp_path / "p.geojson", shapes, [{"kind": "tree"}], **utm)
    assert target_of(raster, path, Legend(TWO)).sum() == 40 * 30
    outside = target_of(raster, path, Legend(TWO, outside="ignore"))
    assert (outside == IGNORE).sum() == 64 * 200 - 40 * 30
    with pytest.raises(InputError, match="without --field"):
        target_of(raster, path, Legend((*TWO, "lake")))
    with pytest.raises(InputError, match=r"called background, building, got 'tree' .*tree=CLASS"):
        target_of(raster, path, Legend(TWO), field="kind")
    with pytest.raises(InputError, match=r"attribute 'type', one in .* has not; it has kind"):
        target_of(raster, path, Legend(TWO), field="type")
    assert target_of(raster, path, Legend(TWO, "tree=building"), field="kind").sum() == 40 * 30
    with pytest.raises(InputError, match="has no other"):
        target_of(raster, geojson(path, shapes, ["tree"], **utm), Legend(TWO), field="kind")


def test_attributes_of_other_formats(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    raster = write(tmp_path / "r.tif", blocks(64, 200)[0], **PLACE)
    shape = shapely.box(500_010, 9_299_975, 500_030, 9_299_990)
    path = tmp_path / "p.gpkg"
    columns = {"geometry_type": "Polygon", "crs": "EPSG:32737", "fields": ["kind"], "layer": "p"}
    pyogrio.raw.write(path, shapely.to_wkb([shape]), [np.array([1.0])], **columns)
    assert target_of(raster, path, Legend(TWO), field="kind").sum() == 40 * 30
    with pytest.raises(InputError, match=r"attribute 'no', one in .* has not; it has kind"):
        target_of(raster, path, Legend(TWO), field="no")


def test_the_smaller_polygon_is_on_top(tmp_path, image):
    """Whatever the order in the file: a hole's inhabitant lies inside what surrounds it."""
    shapes = [box(4, 4, 8, 8), box(0, 0, 20, 20)]
    names = [{"classification": {"name": n}} for n in ("building", "background")]
    for order in ((0, 1), (1, 0)):
        path = geojson(tmp_path / "q.geojson", [shapes[i] for i in order], [names[i] for i in order])
        assert target_of(image, path, Legend(TWO)).sum() == 16


def test_overlapping_polygons_of_independent_classes_do_not_hide_each_other(tmp_path, image):
    names = [{"classification": {"name": n}} for n in ("background", "building", "Ignore*")]
    path = geojson(tmp_path / "q.geojson", [box(0, 0, 20, 20), box(4, 4, 8, 8), box(0, 0, 2, 2)], names)
    legend = Legend(TWO, "Ignore*=ignore", independent=True, outside="ignore")
    planes_KHW = target_of(image, path, legend)
    assert (planes_KHW == 1).sum(axis=(1, 2)).tolist() == [400 - 4, 16]
    assert (planes_KHW[1] == IGNORE).sum() == 24 * 32 - 16, "nothing is said of the rest"
    planes_KHW = target_of(image, path, Legend(TWO, "Ignore*=ignore", independent=True))
    assert (planes_KHW == 1).sum(axis=(1, 2)).tolist() == [400 - 4, 16], "the rest is of no class"


def test_qupath_labels_of_a_slide_at_a_resolution(tmp_path):
    """Level-0 pixels, as QuPath has them; the slide at twice its micrometres per pixel."""
    pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    levels = [np.full((512 // k, 768 // k, 3), 200, np.uint8) for k in (1, 2)]
    slide = generic(tmp_path / "slide.tif", levels, mpp=0.5)
    names = [{"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}]
    path = geojson(tmp_path / "slide.geojson", [box(100, 60, 300, 260)], names)
    got_HW = target_of(slide, path, Legend(TWO, "Tumor=building"), view=View(mpp=1.0))
    assert got_HW.shape == (256, 384)
    assert got_HW.sum() == 100 * 100
    assert got_HW[30:130, 50:150].all()
    features = json.loads(path.read_text())["features"]
    path.write_text(json.dumps(features))
    assert np.array_equal(target_of(slide, path, Legend(TWO, "Tumor=building"), view=View(mpp=1.0)), got_HW)


def test_what_qupath_should_not_have_written_is_refused(tmp_path, image):
    named = [{"classification": {"name": "building"}}]
    line = {"type": "LineString", "coordinates": [[0, 0], [3, 3]]}
    for shapes, properties, word in (
        ([box(0, 0, 3, 3)], [{}], "classification"),
        ([line], named, "LineString"),
        ([box(100, 100, 103, 103)], named, r"none of the 1 polygons .* touches .*32 x 24 px"),
        ([{"type": "Polygon", "coordinates": [[[0, 0], [1, "x"]]]}], named, "GeoJSON"),
        ([{"type": "MultiPolygon", "coordinates": []}], named, "a polygon has rings"),
    ):
        with pytest.raises(InputError, match=word):
            target_of(image, geojson(tmp_path / "q.geojson", shapes, properties), Legend(TWO))
    (tmp_path / "q.geojson").write_text("[")
    with pytest.raises(InputError, match="JSON"):
        target_of(image, tmp_path / "q.geojson", Legend(TWO))


# --- labelme


def labelme(path, shapes, height=24, width=32):
    """As labelme writes it, without the picture."""
    told = [{"label": n, "points": p, "shape_type": k, "group_id": None, "flags": {}} for n, k, p in shapes]
    size = {"imageHeight": height, "imageWidth": width, "imagePath": "image.png", "imageData": None}
    path.write_text(json.dumps({"version": "5.4.1", "flags": {}, "shapes": told, **size}))
    return path


def test_labelme_shapes_are_burnt_in_their_order(tmp_path, image):
    shapes = [
        ("building", "polygon", [[2, 2], [12, 2], [12, 10], [2, 10]]),
        ("tree", "rectangle", [[20, 12], [10, 6]]),
        ("lake", "circle", [[24, 16], [24, 11]]),
    ]
    got_HW = target_of(image, labelme(tmp_path / "m.json", shapes), Legend((*TWO, "tree", "lake")))
    assert (got_HW == 1).sum() == 10 * 8 - 2 * 4
    assert (got_HW[6:12, 10:20] == 2).all()
    assert (got_HW == 3).sum() == pytest.approx(np.pi * 25, rel=0.06)


def test_labelme_mistakes_are_named(tmp_path, image):
    square = [[2, 2], [12, 2], [12, 10]]
    path = tmp_path / "m.json"
    for shapes, size, word in (
        ([("tree", "polygon", square)], {}, "got 'tree'"),
        ([("building", "line", square[:2])], {}, r"got a line of 2 points called 'building'"),
        ([("building", "polygon", square)], {"width": 33}, r"\(32 x 24 px\), got 33 x 24"),
    ):
        with pytest.raises(InputError, match=word):
            target_of(image, labelme(path, shapes, **size), Legend(TWO))
    path.write_text('{"shapes": [{}]}')
    with pytest.raises(InputError, match="labelme's JSON"):
        target_of(image, path, Legend(TWO))
    assert target_of(image, labelme(path, []), Legend(TWO)).sum() == 0


# --- files of yes and no


def test_objects_of_a_folder_are_merged(tmp_path, image):
    folder = tmp_path / "masks"
    folder.mkdir()
    for name, values in (("a.png", [[255, 255, 0]]), ("b.png", [[0, 255, 255]]), ("c.png", [[0]])):
        mask(folder, values, name)
    assert target_of(image, folder, Legend(TWO))[0, :4].tolist() == [1, 1, 1, 0]
    mask(folder, [[0, 90]], "d.png")
    with pytest.raises(InputError, match=r"0 and 1, or 0 and 255, .* got 90 in .*d\.png"):
        target_of(image, folder, Legend(TWO))
    assert target_of(image, folder, Legend(TWO, ">127"))[0, :4].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("by", ["{class}", "{number}"])
def test_a_file_per_class_and_none_for_an_absent_one(tmp_path, image, by):
    for number, name in enumerate(("cell", "wall", "dust")):
        folder = tmp_path / (name if by == "{class}" else str(number))
        folder.mkdir()
        if name != "dust":
            mask(folder, [[255, 255 * number]], "image.png")
    classes = ("cell", "wall", "dust")
    planes_KHW = target_of(image, tmp_path / by / "image.png", Legend(classes, independent=True))
    assert planes_KHW[:, 0, :3].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    with pytest.raises(InputError, match="--independent"):
        target_of(image, tmp_path / by / "image.png", Legend(classes))


# --- images


def test_arrays_are_images_and_masks(tmp_path):
    raw_HWC = np.random.default_rng(0).random((24, 32, 5)).astype(np.float32)
    raw_HWC[3, 4, 2] = np.nan
    np.save(tmp_path / "i.npy", raw_HWC)
    np.save(tmp_path / "m.npy", np.eye(24, 32, dtype=np.int64))
    raster = open_image(tmp_path / "i.npy", View(bands=(5, 3)))
    pixels = raster.read(Window(0, 0, 24, 32))
    assert np.array_equal(pixels.raw_CHW, raw_HWC[..., [4, 2]].transpose(2, 0, 1), equal_nan=True)
    assert np.argwhere(~pixels.valid_HW).tolist() == [[3, 4]]
    target_HW = target_of(tmp_path / "i.npy", tmp_path / "m.npy", Legend(TWO))
    assert (target_HW == 1).sum() == 24
    assert np.argwhere(target_HW == IGNORE).tolist() == [[3, 4]]


def test_arrays_that_are_none_are_refused(tmp_path):
    np.save(tmp_path / "d.npy", np.zeros((4, 5)))
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "4.npy", np.zeros((1, 2, 3, 4), np.float32))
    for name, word in (("d", "got float64"), ("o", "cannot open"), ("4", "axes"), ("none", "cannot open")):
        with pytest.raises(InputError, match=word):
            open_image(tmp_path / f"{name}.npy", View())
    np.save(tmp_path / "g.npy", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match="bands 1 to 1"):
        open_image(tmp_path / "g.npy", View(bands=(2,)))


def test_tensors_are_images_and_masks(tmp_path):
    """Bands first, as PyTorch has them, or last, as milesial does."""
    torch = pytest.importorskip("torch")
    pixels_CHW = torch.rand(5, 24, 32)
    pixels_CHW[2, 3, 4] = torch.nan
    torch.save(pixels_CHW, tmp_path / "i.pt")
    torch.save(torch.eye(24, 32, dtype=torch.int64), tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    pixels = open_image(tmp_path / "i.pt", View(bands=(5, 3))).read(Window(0, 0, 24, 32))
    assert np.array_equal(pixels.raw_CHW, pixels_CHW[[4, 2]].numpy(), equal_nan=True)
    target_HW = target_of(tmp_path / "i.pt", tmp_path / "m.pth", Legend(TWO))
    assert (target_HW == 1).sum() == 24
    assert np.argwhere(target_HW == IGNORE).tolist() == [[3, 4]]
    torch.save(pixels_CHW[:3].permute(1, 2, 0), tmp_path / "last.pt")
    found = open_image(tmp_path / "last.pt", View()).read(Window(0, 0, 24, 32))
    assert np.array_equal(found.raw_CHW, pixels_CHW[:3].numpy(), equal_nan=True)


def test_files_that_are_no_tensor_are_refused(tmp_path):
    """Nothing of theirs is run."""
    torch = pytest.importorskip("torch")
    torch.save({"image": torch.zeros(4, 5)}, tmp_path / "dict.pt")
    torch.save(torch.zeros(1, 2, 3, 4), tmp_path / "four.pt")
    torch.save(torch.zeros(4, 5, dtype=torch.float64), tmp_path / "double.pt")
    torch.save(torch.zeros(4, 5, dtype=torch.bfloat16), tmp_path / "brain.pt")
    torch.save(Path("x"), tmp_path / "code.pt")
    whole = (tmp_path / "four.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    words = {
        "dict": "got dict",
        "four": r"got \(1, 2, 3, 4\)",
        "double": "got float64",
        "brain": "plain tensor",
    }
    words |= dict.fromkeys(("code", "short", "none"), "cannot open")
    for name, word in words.items():
        with pytest.raises(InputError, match=word) as caught:
            open_image(tmp_path / f"{name}.pt", View())
        assert f"{name}.pt" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_grey_is_made_rgb_only_when_asked(tmp_path, image):
    grey = write(tmp_path / "grey.png", np.arange(24 * 32, dtype=np.uint8).reshape(1, 24, 32))
    assert open_image(grey, View()).info.bands == 1
    pixels = open_image(grey, View(rgb=True)).read(Window(0, 0, 24, 32))
    assert np.array_equal(
        pixels.raw_CHW, np.repeat(open_raster(grey).read(Window(0, 0, 24, 32)).raw_CHW, 3, 0)
    )
    whole = Window(0, 0, 24, 32)
    coloured = open_image(image, View(rgb=True)).read(whole)
    assert np.array_equal(coloured.raw_CHW, open_raster(image).read(whole).raw_CHW)
    with pytest.raises(UsageError, match="--rgb and --bands"):
        View(rgb=True, bands=(1,))
    with pytest.raises(UsageError, match="resampled once, got --resolution and --mpp"):
        View(resolution=1.0, mpp=1.0)


def test_a_region_of_interest_leaves_the_rest_unknown(tmp_path, image):
    region_HW = np.zeros((24, 32), np.uint8)
    region_HW[5:10, 5:10] = 255
    region = write(tmp_path / "region.png", region_HW[None])
    target_HW = target_of(image, mask(tmp_path, [[1]]), Legend(TWO), region=region)
    assert np.array_equal(target_HW == IGNORE, region_HW == 0)


def test_sixteen_bits_and_nodata(tmp_path):
    """Six bands of uint16 whose nodata becomes not known."""
    raw_CHW = np.random.default_rng(0).integers(1, 40_000, (6, 24, 32)).astype(np.uint16)
    raw_CHW[:, 2, 3:6] = 0
    raster = write(tmp_path / "r.tif", raw_CHW)
    path = mask(tmp_path, [[0, 1]])
    assert (target_of(raster, path, Legend(TWO), view=View(nodata=0)) == IGNORE).sum() == 3
    assert (target_of(raster, path, Legend(TWO)) == IGNORE).sum() == 0
    source = Source(raster, Item(raster, str(path)).labels(None), View(bands=(4, 1)))
    pixels, _ = Library(Legend(TWO)).open(source).read(Window(0, 0, 24, 32))
    assert np.array_equal(pixels.raw_CHW, raw_CHW[[3, 0]])


def test_a_picture_of_a_mask_fits_a_georeferenced_raster_of_its_size(tmp_path):
    """Such as a PNG drawn on a GeoTIFF."""
    raster = write(tmp_path / "r.tif", np.ones((1, 24, 32), np.uint8), **PLACE)
    assert target_of(raster, mask(tmp_path, [[1, 1]]), Legend(TWO)).sum() == 2
    small = write(tmp_path / "small.png", np.zeros((1, 12, 16), np.uint8))
    with pytest.raises(InputError, match=r"32 x 24 px\), got 16 x 12"):
        target_of(raster, small, Legend(TWO))


# --- real sets


def test_real_buildings_are_burnt_as_their_mask_has_them(shared):
    """Footprints in degrees on a raster in EPSG:3857: the shipped mask was burnt by GDAL from the same."""
    raster = shared / "rasters" / "zanzibar_oam_z21.tif"
    folder = shared / "labelled" / "hot_buildings"
    library, window = Library(Legend(TWO)), Window(0, 0, 2048, 2048)
    burnt, stored = (
        library.open(Item(raster, str(folder / name)).source(View(), None)).read(window)[1]
        for name in ("zanzibar_buildings.geojson", "zanzibar_oam_z21_mask.tif")
    )
    assert (burnt != stored).mean() < 1e-4
    assert 0.05 < stored.mean() < 0.3


def test_real_nuclei_are_objects(shared):
    folder = shared / "labelled" / "dsb2018_sample"
    image, path = folder / "img2d.tif", folder / "mask2d.tif"
    target_HW = target_of(image, path, Legend(("background", "nucleus"), "instances"))
    ids_HW = open_raster(path).read(Window(0, 0, 512, 512)).raw_CHW[0]
    assert np.array_equal(target_HW == 1, ids_HW > 0)


def test_real_clouds_have_their_classes(shared):
    folder = shared / "labelled" / "clouds"
    image, path = folder / "landsat5_toa6_x10000.tif", folder / "landsat5_mask.png"
    names = ("shadow", "water", "snow", "land", "cloud")
    counts = np.bincount(target_of(image, path, Legend(names)).ravel(), minlength=5)
    assert np.flatnonzero(counts).tolist() == [0, 1, 3, 4]


def test_pixels_are_placed_by_their_centres(tmp_path):
    """A polygon that covers a pixel's centre has the pixel; one that stops short of it has not."""
    place = {"crs": "EPSG:32737", "transform": from_origin(0, 24, 1, 1)}
    raster = write(tmp_path / "r.tif", np.ones((1, 24, 32), np.uint8), **place)
    utm = {"crs": {"type": "name", "properties": {"name": "EPSG:32737"}}}
    path = geojson(tmp_path / "p.geojson", [box(2.6, 20.4, 5.6, 22.4)], **utm)
    got = np.argwhere(target_of(raster, path, Legend(TWO)) == 1).tolist()
    assert got == [[row, column] for row in (2, 3) for column in (3, 4, 5)]

"""Names to things: a path and options become a raster of one plane, or a network.

Everything about resolution, bands and formats is settled here; the engine only sees `tiler.ports.Raster`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.etree import ElementTree as ET

import numpy as np
from affine import Affine

from tiler.errors import InputError, UsageError
from tiler.options import RunOptions
from tiler.readers.address import address, is_remote, shown
from tiler.readers.gdal import MAX_PIXELS, GdalRaster
from tiler.readers.kind import SUFFIXES as SLIDES
from tiler.readers.kind import is_slide
from tiler.readers.mask import RasterMask, VectorMask
from tiler.readers.polygons import VECTOR, read_polygons
from tiler.readers.remote import RemoteRaster, open_remote, remote_version
from tiler.readers.resampled import NearestRaster, ResampledRaster, resampled_info
from tiler.readers.resized import resized, resized_labels
from tiler.readers.slide import METRES, SlideRaster
from tiler.readers.source import DRIVERS, LABEL_DTYPES, Source
from tiler.resize import Resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.damage import DamageLog
    from tiler.ports import Mask, Raster, RasterInfo
    from tiler.spec import ModelSpec

Resolution = float | Literal["native"]
CLOSE_ENOUGH: Final = 0.05
"""A raster within this share of the resolution that a model was trained at is fed as it is."""
MOST_SHRUNK: Final = 32
"""Along a side, pixels of a picture per pixel that is fed; what is larger is a scene, and no picture."""


def open_raster(
    path: str | Path,
    *,
    bands: tuple[int, ...] | None = None,
    nodata: float | None = None,
    resolution: Resolution = "native",
    mpp: float | None = None,
    level: int | None = None,
    assume_mpp: float | None = None,
    allow_vrt: bool = False,
    allow_remote: bool = False,
    colours: bool = False,
    damage: DamageLog | None = None,
) -> Raster:
    """Open a raster or slide file as one plane of pixels.

    Parameters
    ----------
    path
        GeoTIFF, COG, JPEG 2000, PNG or JPEG; a slide that OpenSlide knows; a VRT with ``allow_vrt``; an
        http(s) address with ``allow_remote``.
    bands
        Band numbers from 1, in the order that they are wanted; None: all but alpha.
    nodata
        Value of invalid pixels, over what the file says; of a file with a colour table, the index.
    resolution
        Metres per pixel on the ground; other than the file's own, the pixels are averaged (from the
        nearest finer overview) or, where it is finer, interpolated.
    mpp
        Micrometres per pixel of a slide: the level that has them, within 5 %, else the nearest finer one
        averaged to them.
    level
        Of a slide's pyramid, 0 is the finest.
    assume_mpp
        Micrometres per full-resolution pixel of a slide, or of a picture without georeferencing, where the
        file does not say them; such a picture is a slide from then on.
    colours
        Whether a file with a colour table is the three bands of its colours, as networks are fed; else it is
        one band of indices, as labels are. What is wholly transparent is not valid.
    damage
        Where damaged blocks are noted, which then are not valid; None: they are errors when they are read.

    Raises
    ------
    InputError
        if the file cannot be used.
    """
    version = ""
    if is_remote(path):
        url = address(path)
        if not allow_remote:
            raise InputError(
                f"{shown(url)} is not a file here; download it, or pass --allow-remote to segment"
            )
        if Path(shown(url)).suffix.lower() in SLIDES:
            # GDAL would make a picture without resolution or tissue of what it knows of it.
            raise InputError(f"a slide is read from a file here, got {shown(url)}; download it")
        # Asked before it is opened: else what is read of an old version could pass for the new one.
        version = remote_version(url)
        native: GdalRaster | SlideRaster = open_remote(Source(url, DRIVERS, bands, nodata, colours=colours))
    elif is_slide(Path(path), assume_mpp is not None):
        native = SlideRaster(Path(path), told=bands, nodata=nodata, assume_mpp=assume_mpp, damage=damage)
    else:
        drivers = _drivers(Path(path), allow_vrt)
        native = GdalRaster(Source(Path(path), drivers, bands, nodata, colours=colours), damage)
    if assume_mpp is not None:
        _assume(native, assume_mpp)
    if level is not None:
        return _of_one_version(_at_level(native, level), version)
    if mpp is not None:
        _check_is_slide(native.info, f"--mpp {mpp:g}")
        return _at_resolution(native, mpp * METRES, version, CLOSE_ENOUGH)
    if resolution == "native":
        return _of_one_version(native, version)
    if not 0 < resolution < np.inf:
        raise UsageError(f"resolution is metres per pixel above 0, got {resolution}")
    return _at_resolution(native, resolution, version)


def open_for_model(
    path: str | Path,
    spec: ModelSpec,
    options: RunOptions | None = None,
    damage: DamageLog | None = None,
    native: Raster | None = None,
) -> Raster:
    """Open a raster as a model was trained, unless told otherwise: at its resolution, or resized whole.

    Parameters
    ----------
    path
        See `open_raster`.
    spec
        Of the model.
    options
        Those of a run; None: the defaults.
    damage
        Where damaged blocks are noted if ``options`` say so.
    native
        The raster as `open_native` opened it, if somebody has.

    Raises
    ------
    InputError
        if the raster cannot serve the model.
    """
    options = options or RunOptions()
    native = native or open_native(path, options, damage)
    _check_bands(native.info, spec)
    _check_mpp(native.info)
    resolution: Resolution | None = options.resolution  # type: ignore[assignment] # checked by RunOptions
    mpp, level = options.mpp, options.level
    if (mpp, level, resolution) == (None, None, None):
        if spec.resize is not None:
            return _resized(native, Resize.parse(spec.resize), spec.resize)
        if native.info.to_level0 is not None and spec.resolution is not None:
            mpp = spec.resolution / METRES
        else:
            resolution = _resolution_for(native.info, spec.resolution)
    if (mpp, level, resolution) == (None, None, "native"):
        return native
    how = _how(options, damage)
    return open_raster(path, resolution=resolution or "native", mpp=mpp, level=level, **how)


def open_native(path: str | Path, options: RunOptions, damage: DamageLog | None = None) -> Raster:
    """Open a raster at its own resolution, for a network that it is to be fed to.

    Raises
    ------
    InputError
        if the file cannot be used.
    """
    return open_raster(path, **_how(options, damage))


def _how(options: RunOptions, damage: DamageLog | None) -> dict[str, Any]:
    """What `open_raster` is told at any resolution."""
    return {
        "bands": options.bands,
        "nodata": options.nodata,
        "assume_mpp": options.assume_mpp,
        "allow_vrt": options.allow_vrt,
        "allow_remote": options.allow_remote,
        "colours": True,
        "damage": damage if options.on_error == "nodata" else None,
    }


def _check_bands(info: RasterInfo, spec: ModelSpec) -> None:
    wanted = len(spec.bands)
    if info.bands == wanted:
        return
    made = ", the colours of its table" if info.colours else ""
    choose = "; choose them with --bands, e.g. --bands " + ",".join(map(str, range(1, wanted + 1)))
    raise InputError(
        f"the model takes {wanted} bands ({', '.join(spec.bands)}), got {info.bands} in {info.name}{made}"
        + (choose if info.bands > wanted else "")
    )


def _resized(native: Raster, resize: Resize, told: str) -> Raster:
    """A whole picture as the pictures that a model was trained on; ``told`` is how that was said."""
    info = native.info
    if info.to_level0 is not None:
        raise InputError(
            f"the model was trained on whole pictures, brought to {told}, and {info.name} is a slide; "
            "pass --level 0 to feed its pixels as they are, or --mpp"
        )
    inner = resize.place(info.height, info.width).inner
    shrunk = max(info.height / inner.height, info.width / inner.width)
    if not resize.keeps_scale and shrunk > MOST_SHRUNK:
        raise InputError(
            f"the model was trained on whole pictures, brought to {told}: sides become at most {MOST_SHRUNK} "
            f"times smaller, got {info.width} x {info.height} px in {info.name}; cut it into pictures like "
            "those, or pass --resolution native to feed its pixels as they are"
        )
    return resized(native, resize)


def open_coarse(path: str | Path, height: int, width: int, **how: Any) -> Raster:  # noqa: ANN401 - as open_raster
    """The smallest overview of a file here that has at least so many pixels, else its full resolution.

    Raises
    ------
    InputError
        if the file cannot be used.
    """
    native = open_raster(path, **how)
    return _finest_below(native, height, width) if isinstance(native, GdalRaster | SlideRaster) else native


def _resolution_for(info: RasterInfo, wanted: float | None) -> Resolution:
    """The model's resolution, or "native" where that is what the raster has, give or take."""
    if wanted is None:
        return "native"
    if info.ground is None:
        raise InputError(
            f"the model was trained at {wanted:g} m per pixel and {info.name} does not say its ground "
            "resolution; pass --resolution native to feed its pixels as they are"
        )
    near = all(abs(have / wanted - 1) <= CLOSE_ENOUGH for have in info.ground)
    return "native" if near else wanted


def open_labels(path: str | Path, like: RasterInfo) -> Raster:
    """Open a label raster on the grid of another raster: the nearest label, outside it nodata.

    Raises
    ------
    InputError
        if it has several bands, lies in another CRS, or has another size and no georeferencing.
    """
    native = GdalRaster(Source(Path(path), dtypes=LABEL_DTYPES))
    if native.info.bands != 1:
        raise InputError(f"labels have one band, got {native.info.bands} in {path}")
    return on_grid(native, like)


def on_grid(labels: Raster, like: RasterInfo) -> Raster:
    """Labels on the grid of another raster: the nearest label, outside them nodata.

    Raises
    ------
    InputError
        if they lie in another CRS, or have another size and no georeferencing.
    """
    info = labels.info
    unplaced = info.transform is None or like.transform is None
    if like.picture is not None and unplaced:
        before = replace(like, height=like.picture.before[0], width=like.picture.before[1], picture=None)
        return resized_labels(on_grid(labels, before), like.picture)
    same_size = (info.height, info.width) == (like.height, like.width)
    same_crs = info.crs == like.crs or info.crs is None or like.crs is None
    if same_size and (unplaced or (info.transform == like.transform and same_crs)):
        return labels
    target = replace(info, height=like.height, width=like.width, crs=like.crs, transform=like.transform)
    if info.transform is None or like.transform is None:
        raise InputError(
            f"labels without georeferencing have the size of their raster ({like.width} x {like.height} px), "
            f"got {info.width} x {info.height} in {info.name}"
        )
    if info.crs != like.crs:
        raise InputError(f"labels lie in the CRS of their raster ({like.crs}), got {info.crs} in {info.name}")
    step = ~info.transform @ like.transform
    return NearestRaster(labels, *_nearest_by(step, like.height, like.width, info.name), target)


def open_mask(path: Path, like: RasterInfo) -> Mask:
    """Where a result is wanted, on the grid of a raster.

    Parameters
    ----------
    path
        Polygons (GeoJSON; with the extra ``vector`` also GeoPackage, Shapefile, FlatGeobuf...), or a raster
        of one band in the raster's CRS, whose nearest pixel counts: 0 and nodata are not wanted.

    Raises
    ------
    InputError
        if it cannot be used.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - also where the name is too long
        raise InputError(f"no such mask: {path}")
    if path.suffix.lower() not in VECTOR:
        return RasterMask(open_labels(path, like))
    if like.crs is None or like.transform is None:
        raise InputError(f"a mask of polygons needs a georeferenced raster, {like.name} is not")
    return VectorMask(read_polygons(path, like.crs), like)


def _nearest_by(
    step: Affine, height: int, width: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if abs(step.b) > 1e-9 or abs(step.d) > 1e-9:
        raise InputError(f"labels are not rotated against their raster, got a rotation in {name}")
    rows = np.floor(step.e * (np.arange(height) + 0.5) + step.f).astype(np.int64)
    return rows, np.floor(step.a * (np.arange(width) + 0.5) + step.c).astype(np.int64)


def _check_is_slide(info: RasterInfo, option: str) -> None:
    if info.to_level0 is None:
        fix = (
            "pass --resolution METRES" if info.crs else "pass --assume-mpp too if it is a picture of a slide"
        )
        raise InputError(f"{option} is of a slide, {info.name} is none; {fix}")


def _assume(native: GdalRaster | SlideRaster, mpp: float) -> None:
    """Make a slide of a picture here; a slide that says its resolution keeps it, so archives may be mixed."""
    info, side = native.info, mpp * METRES
    says = ""
    if isinstance(native, SlideRaster):
        return
    if native.source.remote:
        says = "is fetched from an address"
    elif info.crs is not None or info.transform is not None:
        says = "is georeferenced"
    else:
        native.info = replace(info, ground=(side, side), to_level0=Affine.identity())
    if says:
        raise InputError(
            f"--assume-mpp is of a slide, or a picture here, that does not say its resolution, and "
            f"{info.name} {says}; leave it out"
        )


def _check_mpp(info: RasterInfo) -> None:
    if info.to_level0 is not None and info.ground is None:
        raise InputError(
            f"a slide says its micrometres per pixel, {info.name} does not; pass --assume-mpp, e.g. "
            "--assume-mpp 0.5 for an objective of 20x"
        )


def _at_level(native: GdalRaster | SlideRaster, level: int) -> GdalRaster | SlideRaster:
    """A level of a pyramid as it is."""
    _check_is_slide(native.info, f"--level {level}")
    if level > len(native.overviews):
        raise InputError(f"{native.info.name} has levels 0 to {len(native.overviews)}, got --level {level}")
    return native if level == 0 else _overview(native, level - 1)


def _at_resolution(
    native: GdalRaster | SlideRaster, resolution: float, version: str, near: float = 0
) -> Raster:
    """A raster at a resolution in metres; of a slide, the level that is as near to it as that, as it is."""
    info = native.info
    _check_mpp(info)
    if info.ground is None:
        raise InputError(
            f"a resolution needs a georeferenced raster, {info.name} is not; pass --resolution native"
        )
    across, down = info.width * info.ground[0] / resolution, info.height * info.ground[1] / resolution
    if not across * down <= MAX_PIXELS:
        slide = info.to_level0 is not None
        got = f"--mpp {resolution / METRES:g}" if slide else f"--resolution {resolution:g}"
        raise UsageError(f"at most {MAX_PIXELS:.0e} pixels are fed, got {got}")
    width, height = max(1, round(across)), max(1, round(down))
    if info.to_level0 is not None:
        return _slide_at_resolution(native, resolution, (height, width), near)
    if (height, width) == (info.height, info.width):
        return _of_one_version(native, version)
    source = _finest_below(native, height, width)
    way = "averaged" if info.ground[0] < resolution else "interpolated"
    size = f"{info.ground[0]:.3g} x {info.ground[1]:.3g} m"
    note = f"{way} from {source.info.width} x {source.info.height} px (file: {size})"
    return ResampledRaster(_of_one_version(source, version), resampled_info(info, height, width, note))


def _slide_at_resolution(
    native: GdalRaster | SlideRaster, resolution: float, size: tuple[int, int], near: float
) -> Raster:
    """A level of a slide, or its pixels brought to ``resolution``; ``size`` is about (height, width) then."""
    levels = ((native.info.height, native.info.width), *native.overviews)
    off = [max(abs(size[0] / height - 1), abs(size[1] / width - 1)) for height, width in levels]
    best = off.index(min(off))
    if off[best] <= near:
        return _at_level(native, best)
    source = _finest_below(native, *size)
    # What a level's last row and column lack or have too much must not move the others.
    info = source.info
    assert info.ground is not None  # noqa: S101 - as of the slide
    sides = info.width, info.height
    width, height = (round(n * g / resolution) for n, g in zip(sides, info.ground, strict=True))
    if not (width and height):
        raise InputError(
            f"at {resolution / METRES:g} micrometres per pixel the slide {info.name} is less than a pixel; "
            "pass --level 0 to feed it as it is"
        )
    if (height, width) == (info.height, info.width):
        return source
    way = "averaged" if info.ground[0] < resolution else "interpolated"
    note = f"{way} from {info.width} x {info.height} px of {info.ground[0] / METRES:.4g} micrometres"
    return ResampledRaster(source, resampled_info(info, height, width, note))


def _of_one_version(raster: GdalRaster | SlideRaster, version: str) -> Raster:
    """A remote raster is held to the version that it had before it was opened."""
    if isinstance(raster, SlideRaster) or isinstance(raster.source.path, Path):
        return raster
    return RemoteRaster(raster, raster.source.path, version)


def _finest_below(native: GdalRaster | SlideRaster, height: int, width: int) -> GdalRaster | SlideRaster:
    """The smallest overview that is still at least as fine as the target, else the full resolution."""
    fits = [i for i, (h, w) in enumerate(native.overviews) if h >= height and w >= width]
    return _overview(native, fits[-1]) if fits else native


def _overview(native: GdalRaster | SlideRaster, index: int) -> GdalRaster | SlideRaster:
    """A coarser level of the same file."""
    if isinstance(native, SlideRaster):
        return native.level(index + 1)
    full = native.info.height, native.info.width
    source = replace(native.source, overview=index)
    made = open_remote(source, full) if source.remote else GdalRaster(source, native.damage, full)
    if native.info.to_level0 is not None:
        scaled = resampled_info(native.info, made.info.height, made.info.width, "")
        made.info = replace(made.info, transform=None, ground=scaled.ground, to_level0=scaled.to_level0)
    return made


def _drivers(path: Path, allow_vrt: bool) -> tuple[str, ...]:
    """Formats that are tried; VRT only when allowed, and only under its own name, after a look inside."""
    if not allow_vrt or path.suffix.lower() != ".vrt" or not os.path.isfile(path):  # noqa: PTH113
        return DRIVERS
    _check_vrt(path)
    return (*DRIVERS, "VRT")


def _check_vrt(path: Path) -> None:
    """Refuse a VRT whose sources are not rasters here: --allow-vrt is no leave to fetch."""
    try:
        elements = list(ET.parse(path).iter())  # noqa: S314 - entities are not expanded
    except ET.ParseError as error:
        raise InputError(f"a VRT is XML, got {path}: {error}") from None
    # GDAL does not mind the case of tags.
    for element in elements:
        if element.tag.lower() not in {"sourcefilename", "sourcedataset"}:
            continue
        relative = element.get("relativeToVRT", element.get("relativetovrt", "0")) == "1"
        source = (path.parent if relative else Path()) / (element.text or "")
        if not source.is_file():
            raise InputError(f"a VRT names files that are here, got {element.text!r} in {path}")
        # Opened by name of driver: neither another VRT nor a description of a web service.
        Source(source).open().close()

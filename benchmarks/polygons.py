"""Polygons of a label map, streamed, beside those of the whole raster at once: number, area, time, memory.

    python benchmarks/polygons.py [--sides 4096 8192 16384] [--markdown FILE]

Two maps: of bounded regions that fill the plane, six classes of smooth noise; and the shipped map of
buildings, repeated side by side, whose background is one polygon with hundreds of holes. Both are polygonised
with class 0. Every figure is of a process of its own. What the whole raster at once takes is the time of
`rasterio.features.shapes` on the array; its number and its areas are the truth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
import rasterio.features
from affine import Affine
from machine import describe

from tiler import demo, memory
from tiler.memory import in_words
from tiler.vector.command import polygons_of_file
from tiler.vector.options import SUFFIXES, PolygonOptions

TILE = 1024
CLASSES = 6
SMOOTH = 16.0
"""Pixels: how large regions are."""
SCENE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)}
FORMATS = ("gpkg", "fgb", "parquet", "geojson")
SIMPLIFIED = 1.5
GROWTH = 1.2
"""At most, of memory, from the smallest map to the largest."""


def regions(seed: int) -> np.ndarray:
    """A square of smooth regions of six classes, which goes on at its opposite side."""
    rng = np.random.default_rng(seed)
    steps = np.fft.fftfreq(TILE)
    blur = np.exp(-2 * (np.pi * SMOOTH) ** 2 * (steps[:, None] ** 2 + steps[None] ** 2))
    fields = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(TILE, TILE))) * blur).real for _ in range(CLASSES)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def made_map(kind: str, side: int) -> np.ndarray:
    """The labels (side, side) of a map."""
    if kind == "buildings":
        with rasterio.open(Path(demo.__file__).with_name("labels.tif")) as dataset:
            labels_HW = dataset.read(1)
        return np.tile(labels_HW, [-(-side // n) for n in labels_HW.shape])[:side, :side]
    rng = np.random.default_rng(0)
    squares = [regions(seed) for seed in range(4)]

    def varied() -> np.ndarray:
        shift = tuple(rng.integers(0, TILE, 2))
        rolled = np.roll(squares[rng.integers(len(squares))], shift, axis=(0, 1))
        return rng.permutation(CLASSES).astype(np.uint8)[rolled]

    return np.block([[varied() for _ in range(side // TILE)] for _ in range(side // TILE)])


def write_map(path: Path, kind: str, side: int) -> None:
    """As a file like ours."""
    profile = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "nodata": 255}
    shape = {"count": 1, "height": side, "width": side, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile, **SCENE) as dataset:
        dataset.write(made_map(kind, side), 1)


def at_once(path: Path) -> dict[str, object]:
    """The whole raster's polygons: how many, how long it takes, and by class how many square pixels."""
    with rasterio.open(path) as dataset:
        labels_HW = dataset.read(1)
    start = time.perf_counter()
    count = sum(1 for _ in rasterio.features.shapes(labels_HW, connectivity=4))
    seconds = time.perf_counter() - start
    peak = memory.peak()
    areas: dict[int, float] = defaultdict(float)
    for shape, value in rasterio.features.shapes(labels_HW, connectivity=4):
        areas[int(value)] += sum(ring_area(ring) for ring in shape["coordinates"])
    return {"polygons": count, "seconds": seconds, "peak": peak, "pixels": sorted(areas.items())}


def ring_area(ring: list[tuple[float, float]]) -> float:
    """Signed, so that holes count against their shells."""
    x, y = np.array(ring).T
    return float(x[1:] @ y[:-1] - x[:-1] @ y[1:]) / 2


def streamed(path: Path, target: Path, simplify: float) -> dict[str, object]:
    """Ours."""
    # Compiled before the clock starts; a few milliseconds where that was done before.
    with tempfile.TemporaryDirectory() as name:
        warm = Path(name) / "warm.tif"
        write_map(warm, "buildings", 64)
        for tolerance in {0.0, simplify}:
            warm_options = PolygonOptions("parquet", simplify=tolerance)
            polygons_of_file(warm, Path(name) / f"{tolerance}.parquet", warm_options)
    start = time.perf_counter()
    kind = next(kind for kind in FORMATS if target.name.endswith(SUFFIXES[kind]))
    made, _ = polygons_of_file(path, target, PolygonOptions(kind, simplify=simplify, background=True))
    seconds = time.perf_counter() - start
    return {"polygons": made.polygons, "points": made.points, "seconds": seconds, "peak": memory.peak()}


def areas_in(path: Path) -> list[tuple[int, float]]:
    """By class, the area of all polygons of a file in square pixels, from their coordinates."""
    import pyarrow.parquet as pq
    import shapely

    areas: dict[int, float] = defaultdict(float)
    for batch in pq.ParquetFile(path).iter_batches(columns=["value", "geometry"]):
        shapes = shapely.from_wkb(batch["geometry"].to_numpy(zero_copy_only=False))
        for value, area in zip(batch["value"].to_pylist(), shapely.area(shapes), strict=True):
            areas[value] += area / abs(SCENE["transform"].determinant)
    return sorted(areas.items())


def process(*arguments: object) -> dict[str, object]:
    """Run a part of this script in a process of its own."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(what: str, path: str, *more: str) -> None:
    """One process; prints what it found."""
    if what == "at_once":
        print(json.dumps(at_once(Path(path))))
    else:
        print(json.dumps(streamed(Path(path), Path(more[0]), float(more[1]))))


def measure(folder: Path, kind: str, sides: list[int]) -> list[str]:
    """The table of one map."""
    lines = [
        "| map | made by | polygons | points | time, s | of whole raster | peak memory |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    peaks: dict[str, list[int]] = defaultdict(list)
    verdicts = []
    for side in sides:
        path = folder / f"{kind}{side}.tif"
        write_map(path, kind, side)
        truth = process("at_once", path)
        title = f"{side} x {side}"
        lines.append(
            f"| {title} | rasterio, whole raster in memory | {truth['polygons']:,} | "
            f"| {truth['seconds']:.1f} | 1.00 | {in_words(truth['peak'])} |"
        )
        cases = [(name, 0.0) for name in FORMATS] + [("parquet", SIMPLIFIED)]
        for name, simplify in cases:
            target = folder / f"out{SUFFIXES[name]}"
            made = process("streamed", path, target, simplify)
            how = f", `--simplify {simplify:g}`" if simplify else ""
            lines.append(
                f"| {title} | gigatiler, {name}{how} | {made['polygons']:,} | {made['points']:,} "
                f"| {made['seconds']:.1f} | {made['seconds'] / truth['seconds']:.2f} "
                f"| {in_words(made['peak'])} |"
            )
            print(lines[-1], flush=True)
            peaks[name + how].append(made["peak"])
            if name == "parquet" and not simplify:
                equal = made["polygons"] == truth["polygons"] and areas_in(target) == [
                    (value, area) for value, area in map(tuple, truth["pixels"])
                ]
                verdicts.append((title, equal))
            target.unlink()
        path.unlink()
    lines += ["", "Number of polygons and area of every class, against the whole raster's:", ""]
    lines += [f"- {title}: {'equal' if equal else '**DIFFERENT**'}" for title, equal in verdicts]
    lines += ["", f"Peak memory at {sides[-1]} x {sides[-1]} over that at {sides[0]} x {sides[0]}:", ""]
    lines += [f"- {name}: {values[-1] / values[0]:.2f}" for name, values in peaks.items()]
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    how = (
        f"`python benchmarks/polygons.py --sides {' '.join(map(str, options.sides))}`, {describe()}, "
        f"rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}, {datetime.now(UTC).date()}. "
        "Times are from a label file to a file of polygons, read back and counted; rasterio's are of making "
        "its shapes only, which are not written anywhere."
    )
    lines = ["# Polygons: streamed, beside the whole raster at once", "", how]
    with tempfile.TemporaryDirectory() as name:
        for title, kind in (("Bounded regions", "regions"), ("Buildings", "buildings")):
            lines += ["", f"## {title}", "", *measure(Path(name), kind, options.sides)]
    page = "\n".join(lines) + "\n"
    print(page)
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()

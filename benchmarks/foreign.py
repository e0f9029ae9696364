"""Networks made elsewhere: what their graphs prove, and whether tiles then equal the whole image.

    python benchmarks/foreign.py MODELS RASTERS [--markdown FILE]

MODELS is a folder of ONNX files, RASTERS one with a raster for each number of bands that they take.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from exactness import tiled_scores

from tiler.analysis import analyse
from tiler.backends.graph import read_graph
from tiler.backends.onnx import load_model
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.options import RunOptions
from tiler.oracle import whole_image_scores
from tiler.readers.array import ArrayRaster

if TYPE_CHECKING:
    from tiler.model import Model

PIXELS = {1: "sentinel2_B01_60m.jp2", 3: "RGB.byte.tif", 4: "landsat_ucayali_1985.tif"}
"""By number of bands."""
TILE = 256
LARGEST = 1024


def raster_for(bands: int, folder: Path) -> ArrayRaster:
    """Its middle, as an array."""
    raster = open_raster(folder / PIXELS[bands])
    height, width = min(raster.info.height, LARGEST), min(raster.info.width, LARGEST)
    top, left = (raster.info.height - height) // 2, (raster.info.width - width) // 2
    pixels = raster.read(Window(top, left, top + height, left + width))
    return ArrayRaster(pixels.raw_CHW, pixels.valid_HW)


def difference(raster: ArrayRaster, model: Model, halo: int) -> float:
    """Largest difference of a score by tiles with this halo, in deviations of the whole image's scores."""
    whole_KHW, _ = whole_image_scores(raster, model.backend, model.spec, model.dtype)
    cut = replace(model, spec=replace(model.spec, halo=halo))
    scores_KHW, _, _ = tiled_scores(raster, cut, TILE, 1)
    # Tiles without a valid pixel are not computed.
    return float(np.nanmax(np.abs(scores_KHW - whole_KHW)) / (whole_KHW.std() or 1))


def row(path: Path, rasters: Path) -> str:
    """A line of the table."""
    graph, _ = read_graph(path)
    analysis = analyse(graph.proto)
    name = f"| {path.name} | {analysis.stride or '-'} | {'-' if analysis.halo is None else analysis.halo} "
    if not analysis.exact:
        return f"{name}| no: {analysis.reasons[0]} | - | - |"
    if None not in graph.shape[1:]:
        return f"{name}| yes | one size only: {graph.shape[2]} x {graph.shape[1]} px | - |"
    raster = raster_for(graph.channels, rasters)
    scale = 1 / float(np.percentile(raster.raw_CHW, 99) or 1)
    model = load_model(path, RunOptions(scale=(scale,), activation="softmax", device="cpu"))
    halo = model.spec.halo or 0
    less = halo // 4
    return f"{name}| yes | {difference(raster, model, halo):.1e} | {difference(raster, model, less):.1e} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("rasters", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    lines = [
        "| model | stride | halo | exact | worst score / deviation | with a quarter of the halo |",
        "|---|--:|--:|---|--:|--:|",
    ]
    for path in sorted(options.models.rglob("*.onnx")):
        lines.append(row(path, options.rasters))
        print(lines[-1], flush=True)
    how = f"`python benchmarks/foreign.py models rasters`, {datetime.now(UTC).date()}, tiles of {TILE} px."
    page = "\n".join(["# Networks made elsewhere", "", how, "", *lines]) + "\n"
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()

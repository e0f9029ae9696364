"""Exact tiles against whole-image inference, on real pixels: the table in benchmarks/README.md.

    python benchmarks/exactness.py SCENE [--model MODEL] [--side 4096] [--markdown FILE]

The scene is read at its own pixels (the model's resolution is ignored), once as a square and once with
sides that are no multiple of the stride. Whole-image inference needs some 4 GB for a side of 4096.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiler.backends.onnx import load_model
from tiler.demo import MODEL
from tiler.finish import Finisher
from tiler.geometry import Window
from tiler.open import open_raster
from tiler.options import RunOptions
from tiler.oracle import whole_image_scores
from tiler.planning import make_plan
from tiler.predict import predict
from tiler.readers.array import ArrayRaster
from tiler.tiles import TileReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiler.model import Model

CASES = [
    (256, 1, None),
    (256, 4, None),
    (512, 1, None),
    (512, 4, None),
    (1024, 1, None),
    (1024, 4, None),
    (None, 1, None),
    (512, 1, 80),
    (512, 1, 32),
]
"""Tile side (None: as planned), batch, and halo (None: the model's). The last two are the control: with less
halo than the network needs, the comparison must find a difference."""
CLEAR = 1e-5
"""Labels must agree where the two best scores differ by more than this share of their deviation."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table."""

    size: str
    tile: str
    halo: int
    batch: int
    tiles: int
    worst_score: float
    """Largest difference of a score, as a share of the scores' standard deviation."""
    wrong_clear: int
    """Pixels with another label although the two best scores are not a tie."""
    wrong: int
    """Pixels with another label, ties included."""


def tiled_scores(
    raster: ArrayRaster, model: Model, tile: int | None, batch: int
) -> tuple[NDArray[np.float32], str, int]:
    """Scores (K, H, W) put together from cores, the tile's size, and the number of tiles."""
    options = RunOptions(tile=tile, batch=batch, blend="exact", memory=16 * 10**9)
    plan = make_plan(raster.info, model, Finisher(model.spec, model.channels), options)
    scores_KHW = np.full((model.channels, raster.info.height, raster.info.width), np.nan, np.float32)
    reader = TileReader(raster, model.spec, model.dtype)
    for strip in plan.strips():
        tiles = reader.tiles(strip, plan.read_ahead, plan.reader_threads)
        for prediction in predict(tiles, model.backend, plan.batch, plan.batches_ahead):
            scores_KHW[:, *prediction.tile.share.slices] = prediction.share_scores
    height, width = plan.grid.tile
    return scores_KHW, f"{width} x {height}", plan.tiles


def measure(
    raster: ArrayRaster, model: Model, cases: list[tuple[int | None, int, int | None]]
) -> list[Outcome]:
    """Compare every case with the network run once on everything."""
    whole_KHW, _ = whole_image_scores(raster, model.backend, model.spec, model.dtype)
    model.backend.release()
    deviation = float(whole_KHW.std())
    best_2HW = np.partition(whole_KHW, -2, axis=0)[-2:]
    clear_HW = best_2HW[1] - best_2HW[0] > CLEAR * deviation
    labels_HW = whole_KHW.argmax(axis=0)
    outcomes = []
    for tile, batch, halo in cases:
        cut = model if halo is None else replace(model, spec=replace(model.spec, halo=halo))
        scores_KHW, size, tiles = tiled_scores(raster, cut, tile, batch)
        other_HW = scores_KHW.argmax(axis=0) != labels_HW
        worst = float(np.abs(scores_KHW - whole_KHW).max()) / deviation
        shape = f"{raster.info.width} x {raster.info.height}"
        wrong_clear = int((other_HW & clear_HW).sum())
        outcomes.append(
            Outcome(shape, size, cut.spec.halo or 0, batch, tiles, worst, wrong_clear, int(other_HW.sum()))
        )
        print(outcomes[-1], flush=True)
    return outcomes


def crops(scene: Path, side: int) -> tuple[ArrayRaster, ArrayRaster]:
    """A square, and a part whose sides are no multiple of 16, at the scene's own pixels."""
    raster = open_raster(scene)
    made = []
    for height, width in ((side, side), (side - 1101, side - 1203)):
        inside = Window(0, 0, min(height, raster.info.height), min(width, raster.info.width))
        pixels = raster.read(inside)
        made.append(ArrayRaster(pixels.raw_CHW, pixels.valid_HW))
    return made[0], made[1]


def markdown(outcomes: list[Outcome], title: str, how: str) -> str:
    """The table, and how it was made."""
    lines = [
        title,
        "",
        f"{how}, {datetime.now(UTC).date()}. Rows with a smaller halo are the control.",
        "",
        "| raster | tile | halo | batch | tiles | worst score / deviation | labels differ | no tie |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {o.size} | {o.tile} | {o.halo} | {o.batch} | {o.tiles} "
        f"| {o.worst_score:.1e} | {o.wrong} | {o.wrong_clear} |"
        for o in outcomes
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args()
    model = load_model(options.model)
    square, odd = crops(options.scene, options.side)
    outcomes = measure(square, model, CASES) + measure(odd, model, CASES[2:4] + CASES[6:7])
    how = f"`python benchmarks/exactness.py {options.scene.name}`, {options.model.name}, {model.device}"
    table = markdown(outcomes, "# Exact tiles against whole-image inference", how)
    if options.markdown:
        options.markdown.write_text(table)
    print(table)


if __name__ == "__main__":
    main()

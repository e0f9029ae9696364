"""An archive of small rasters: what a raster costs beyond the same work in memory, and where that goes.

    python benchmarks/batch.py [--rasters 1000] [--side 256] [--repeats 3] [--markdown FILE]

In memory: rasterio reads, the network runs in the same session, numpy takes the argmax. Against it `tiler
batch`: in this process, without and with thumbnails, and as a command with its worker, start and summaries
included. Then the parts, each without the parts within it, from one more pass.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import rasterio
from affine import Affine
from machine import describe
from scenes import free_network

import tiler.batch.task
import tiler.run
import tiler.sinks.cog
from tiler.backends.onnx import OnnxBackend, load_model
from tiler.batch.archive import Archive
from tiler.batch.here import Here
from tiler.batch.items import find_items
from tiler.batch.run import Batch, run_batch
from tiler.cli.board import Silent
from tiler.folder import RunFolder
from tiler.job import Job
from tiler.options import RunOptions
from tiler.outputs import Outputs
from tiler.readers.gdal import GdalRaster
from tiler.report import Report
from tiler.store import BlockStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiler.model import Model

PARTS = (
    ("open the raster and check it", tiler.run, "prepare"),
    ("fingerprint", tiler.run, "fingerprint"),
    ("look for what is there", Outputs, "finished"),
    ("plan", Job, "plan"),
    ("run directory, lock, manifest", RunFolder, "begin"),
    ("block store: open", BlockStore, "open"),
    ("free disk, notes", tiler.run, "_announce"),
    ("read", GdalRaster, "read"),
    ("network", OnnxBackend, "predict"),
    ("labels, and what joins the stages", tiler.run, "compute"),
    ("block store: write", BlockStore, "write"),
    ("block store: read", BlockStore, "read"),
    ("GeoTIFF, tally", tiler.run, "assemble"),
    ("COG", tiler.sinks.cog.rasterio.shutil, "copy"),
    ("COG: read back", tiler.sinks.cog, "_verify"),
    ("report", tiler.run, "_report"),
    ("sync, names", RunFolder, "publish"),
    ("remove the run directory, unlock", RunFolder, "__exit__"),
    ("report to JSON", Report, "to_json"),
    ("thumbnail", tiler.batch.task, "draw_thumbnail"),
    ("record and summaries", Archive, "keep"),
)
"""What is timed: in words, where it is, its name."""


def make_rasters(folder: Path, count: int, side: int) -> None:
    """Noise, each with a place of its own."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        place = {"crs": "EPSG:32633", "transform": Affine(1, 0, number * side, 0, -1, 9)}
        size = {"count": 3, "height": side, "width": side, "dtype": "uint8"}
        with rasterio.open(folder / f"{number:05}.tif", "w", driver="GTiff", **size, **place) as dataset:
            dataset.write(rng.integers(1, 255, (3, side, side), np.uint8))


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds for all rasters: on the clock, and of processors, which other programs disturb less."""

    clock: float
    processor: float

    @classmethod
    def of(cls, function: Callable[[], object]) -> Cost:
        """Of a call, the processes that it waits for included."""
        clock, processor = time.perf_counter(), _processor()
        function()
        return cls(time.perf_counter() - clock, _processor() - processor)


def _processor() -> float:
    times = os.times()
    return sum(times[:4])


def in_memory(folder: Path, model: Model) -> None:
    """Nothing is written."""
    for path in sorted(folder.iterdir()):
        with rasterio.open(path) as dataset:
            raw_CHW = dataset.read()
        scores_NKHW = model.backend.predict((raw_CHW / 255).astype(np.float32)[None])
        scores_NKHW[0].argmax(axis=0).astype(np.uint8)


def segmented(folder: Path, model: Model, out: Path, thumbnails: bool) -> None:
    """In this process, as `tiler batch --workers 0` has it done."""

    def loaded(*_: object) -> Model:
        return model

    with ExitStack() as stack:
        stack.enter_context(mock.patch("tiler.batch.here.load_model", loaded))
        if not thumbnails:
            stack.enter_context(mock.patch.object(tiler.batch.task, "draw_thumbnail"))
        batch = Batch(str(model.path), out, find_items([str(folder)], out, RunOptions()), RunOptions())
        record = run_batch(batch, Here(), Silent())
    assert record.totals["done"] == len(batch.items), record.totals  # noqa: S101


def commanded(folder: Path, model: Model, out: Path) -> None:
    """By the command, from its start to its end."""
    command = [sys.executable, "-m", "tiler", "batch", model.path, out, folder, "--quiet"]
    subprocess.run(command, check=True)


class Parts:
    """Sums the time of functions, each without that of those within it, and counts calls of fsync."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.syncs = 0
        self._within = [0.0]

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time every part while the block runs."""
        with ExitStack() as stack:
            for words, place, name in PARTS:
                stack.enter_context(mock.patch.object(place, name, self._timed(words, getattr(place, name))))
            stack.enter_context(mock.patch.object(os, "fsync", self._counted(os.fsync)))
            yield

    def _timed(self, words: str, function: Any) -> Any:  # noqa: ANN401 - any function
        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            start = time.perf_counter()
            self._within.append(0.0)
            try:
                return function(*arguments, **options)
            finally:
                whole = time.perf_counter() - start
                self.seconds[words] += whole - self._within.pop()
                self._within[-1] += whole

        return timed

    def _counted(self, function: Any) -> Any:  # noqa: ANN401
        def counted(descriptor: int) -> None:
            self.syncs += 1
            function(descriptor)

        return counted


def measure(folder: Path, count: int, side: int, repeats: int) -> list[str]:
    """The lines of the page."""
    make_rasters(folder / "rasters", count, side)
    free_network(folder / "free.onnx", 2)
    model = load_model(folder / "free.onnx")
    rasters = folder / "rasters"
    in_memory(rasters, model)
    segmented(rasters, model, folder / "warm", thumbnails=True)
    ways: dict[str, list[Cost]] = {}
    for number in range(repeats):
        for words, function in (
            ("in memory", partial(in_memory, rasters, model)),
            (
                "without thumbnails",
                partial(segmented, rasters, model, folder / f"a{number}", thumbnails=False),
            ),
            ("tiler batch", partial(segmented, rasters, model, folder / f"b{number}", thumbnails=True)),
            ("tiler batch, as a command", partial(commanded, rasters, model, folder / f"c{number}")),
        ):
            ways.setdefault(words, []).append(Cost.of(function))
            print(words, ways[words][-1], flush=True)
    parts = Parts()
    with parts.timed():
        whole = Cost.of(partial(segmented, rasters, model, folder / "parts", thumbnails=True))
    return [*_ways(ways, count), "", *_parts(parts, whole.clock, count)]


def _ways(ways: dict[str, list[Cost]], count: int) -> list[str]:
    lines = [
        "| way | ms per raster | beyond memory | of processors, ms | beyond memory |",
        "|---|--:|--:|--:|--:|",
    ]
    floors: list[float] = []
    for words, costs in ways.items():
        middles = [statistics.median(getattr(c, name) for c in costs) for name in Cost.__slots__]
        per_raster = [middle / count * 1000 for middle in middles]
        floors = floors or per_raster
        cells = (f"{ms:.1f} | {ms - floor:.1f}" for ms, floor in zip(per_raster, floors, strict=True))
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def _parts(parts: Parts, whole: float, count: int) -> list[str]:
    rest = whole - sum(parts.seconds.values())
    rows = [*parts.seconds.most_common(), ("what else there is", rest)]
    return [
        f"{parts.syncs / count:.1f} calls of fsync per raster.",
        "",
        "| part | ms per raster |",
        "|---|--:|",
        *(f"| {words} | {seconds / count * 1000:.2f} |" for words, seconds in rows),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rasters", type=int, default=1000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), options.rasters, options.side, options.repeats)
    command = f"python benchmarks/batch.py --rasters {options.rasters} --side {options.side}"
    how = f"`{command} --repeats {options.repeats}`, {datetime.now(UTC).date()}, {describe()}. Medians."
    what = f"{options.rasters} rasters of {options.side} x {options.side} px, uint8 RGB, a free network."
    page = "\n".join(["# An archive of small rasters", "", how, "", what, "", *lines]) + "\n"
    print(page)
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()

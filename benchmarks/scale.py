"""A country mosaic and an archive of slides on paper: from what small runs cost here to where it breaks.

    python benchmarks/scale.py [--folder DIR] [--markdown FILE]

Whatever the page says is measured by this script, follows from what it measures, or is one of the
assumptions that stand at its top.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cluster import Traffic, traffic
from machine import describe
from scenes import free_network, make_scene

from tiler.backends.onnx import load_model
from tiler.batch.record import Entry, Record
from tiler.batch.summary import to_csv, to_html
from tiler.blocks import BlockGrid, BlockSet
from tiler.cluster.parts import SECONDS, part_side, parts
from tiler.demo import MODEL
from tiler.events import Event, Finishing, Publishing
from tiler.finish import Finisher
from tiler.manifest import Manifest
from tiler.memory import in_words
from tiler.options import RunOptions
from tiler.planning import make_plan
from tiler.ports import RasterInfo
from tiler.report import ClassTally, Report
from tiler.run import segment
from tiler.space import most_bytes
from tiler.store import BlockStore

if TYPE_CHECKING:
    from collections.abc import Iterator

MOSAIC = 10**6
"""Side of the mosaic, pixels."""
SLIDES = 100_000
SLIDE = (50_000, 40_000)
"""Width and height of a slide in pixels of 0.25 micrometres."""
TISSUE = (0.25, 0.40)
"""Share of a slide that is tissue."""
OUTPUT_FILES = 6
"""Of a slide: labels, report, options, tissue preview, thumbnail, and the folder's own share."""
FAKE = (100_000, 1_000_000)
"""Blocks of the run directories whose listing is timed."""
ENTRIES = 10_000
"""Rasters of the record that is written."""
WORKERS = (10, 100, 1000, 10_000)
GPX = 10**9
HOUR = 3600


@dataclass(frozen=True, slots=True)
class Measured:
    """What things cost on this machine."""

    compute: float
    """Seconds per Gpx that one worker of one thread takes, reading and storing included."""
    store: float
    """Seconds to store one block, synced."""
    block: float
    """Bytes of a stored block."""
    finish: tuple[float, float]
    """Seconds per Gpx to build and verify the output, at two sizes."""
    output: float
    """Bytes of the output per Gpx."""
    directory: float
    """The run directory at its largest, over the output."""
    planning: dict[str, float]
    """Seconds of what is done with the plan of the mosaic."""
    tiles: int
    tile: tuple[int, int]
    manifest: int
    """Bytes."""
    listing: dict[int, dict[str, float]]
    """Seconds by number of blocks."""
    record: dict[str, float]
    """Of a batch's record and summaries, per raster: seconds and bytes."""
    traffic: Traffic


@contextmanager
def timing(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long the block takes."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def watched(scene: Path, model: Path, output: Path, options: RunOptions) -> tuple[Report, dict[str, int]]:
    """A run, and the bytes of its directory when all blocks are there and when all files are."""
    sizes: dict[str, int] = {}

    def look(event: Event) -> None:
        if isinstance(event, (Finishing, Publishing)):
            sizes[type(event).__name__] = size_of(output.with_name(output.name + ".run"))

    report = segment(scene, model, output, options, look)
    if report is None:
        raise RuntimeError("a run without shards has a report")
    return report, sizes


def small_runs(folder: Path, sides: tuple[int, int, int]) -> dict[str, Any]:
    """Cost per Gpx: of the whole line with the demo's network, of finish with a free one."""
    options = RunOptions(threads=1, resolution="native")
    make_scene(folder / "scene.tif", sides[0])
    report, sizes = watched(folder / "scene.tif", MODEL, folder / "demo.tif", options)
    seconds = report.seconds - report.startup_seconds - report.stage_seconds["finish"]
    free = folder / "free.onnx"
    free_network(free, 2)
    finishes = []
    for side in sides[1:]:
        make_scene(folder / "scene.tif", side)
        made, _ = watched(folder / "scene.tif", free, folder / f"{side}.tif", options)
        finishes.append(made.stage_seconds["finish"] / made.pixels * GPX)
        (folder / f"{side}.tif").unlink()
    output = (folder / "demo.tif").stat().st_size
    return {
        "compute": seconds / report.pixels * GPX,
        "store": report.stage_seconds["store"] / report.blocks,
        "block": sizes["Finishing"] / report.blocks,
        "finish": tuple(finishes),
        "output": output / report.pixels * GPX,
        "directory": sizes["Publishing"] / output,
    }


def planning(rate: float) -> dict[str, Any]:
    """What the plan of the mosaic costs: made, written, cut into tasks."""
    seconds: dict[str, float] = {}
    model = load_model(MODEL)
    finisher = Finisher(model.spec, model.channels)
    info = RasterInfo("mosaic", MOSAIC, MOSAIC, len(model.spec.bands), np.dtype(np.uint8))
    with timing(seconds, "make the plan"):
        plan = make_plan(info, model, finisher, RunOptions(memory=4 * GPX))
    with timing(seconds, "count its tiles"):
        tiles = plan.tiles
    with timing(seconds, "write and read the manifest"):
        manifest = Manifest({}, plan).to_json().encode()
        Manifest.from_json(manifest)
    with timing(seconds, "the set of all blocks, its pixels, one shard of a thousand"):
        whole = BlockSet.all(plan.blocks)
        if whole.pixels != MOSAIC**2 or not len(whole.shard(500, 1000, plan.strip_width)):
            raise RuntimeError("blocks are missing")
    side = part_side(plan.blocks, rate, max(WORKERS))
    with timing(seconds, "cut it into tasks"):
        tasks = list(parts(whole, side))
    with timing(seconds, "what the client does for each of 1,000 answers"):
        for part in tasks[:1000]:
            if not part.of(whole).pixels:
                raise RuntimeError("a task has no blocks")
    return {"planning": seconds, "tiles": tiles, "tile": plan.grid.tile, "manifest": len(manifest)}


def listing(folder: Path, blocks: int) -> dict[str, float]:
    """A run directory of so many empty blocks: made, listed, removed."""
    seconds: dict[str, float] = {}
    side = math.isqrt(blocks - 1) + 1
    grid = BlockGrid(side * 1024, side * 1024, 1024)
    store = BlockStore(folder / "run" / "blocks", grid, 1)
    store.open()
    with timing(seconds, "create empty files"):
        for row in range(side):
            place = folder / "run" / "blocks" / "c" / "0" / str(row)
            place.mkdir(parents=True)
            for column in range(side):
                os.close(os.open(place / str(column), os.O_CREAT | os.O_WRONLY))
    with timing(seconds, "list all"):
        if not store.present().all():
            raise RuntimeError("blocks are missing")
    among_RC = np.zeros(grid.shape, np.bool_)
    among_RC[:3, :3] = True
    with timing(seconds, "open, and list what a task of 3 x 3 blocks needs"):
        store.open()
        store.present(among_RC)
    with timing(seconds, "look for what killed processes left"):
        store.sweep()
    with timing(seconds, "remove"):
        shutil.rmtree(folder / "run")
    return seconds


def record(folder: Path) -> dict[str, float]:
    """What a batch writes of each raster, every time that it writes: without thumbnails."""
    tallies = tuple(ClassTally(name, 10**9, 1.5e6) for name in ("background", "building"))
    entry = Entry("slides/000000.svs", "000000.tif", "done", "", "", 100.0, 10**9, 10**9, 10.0, 2000, tallies)
    entries = {
        f"{i:06}.tif": replace(entry, source=f"slides/{i:06}.svs", output=f"{i:06}.tif")
        for i in range(ENTRIES)
    }
    made = Record({"path": "model.onnx", "sha256": "0" * 64}, asdict(RunOptions()), {}, entries, None)
    seconds: dict[str, float] = {}
    with timing(seconds, "record"):
        made.write(folder / "run.json")
    with timing(seconds, "summaries"):
        size = len(to_csv(made)) + len(to_html(made, lambda entry: folder / "none.jpg"))
    total = size + (folder / "run.json").stat().st_size
    return {"seconds": sum(seconds.values()) / ENTRIES, "bytes": total / ENTRIES}


def measure(folder: Path, sides: tuple[int, int, int], tasks: int) -> Measured:
    """Everything; takes some minutes."""
    runs = small_runs(folder, sides)
    print(runs, flush=True)
    plans = planning(GPX / runs["compute"])
    print(plans, flush=True)
    lists = {blocks: listing(folder, blocks) for blocks in FAKE}
    print(lists, flush=True)
    return Measured(**runs, **plans, listing=lists, record=record(folder), traffic=traffic(tasks))


def table(rows: list[tuple[str, str]], head: tuple[str, str]) -> list[str]:
    """Two columns."""
    return [f"| {head[0]} | {head[1]} |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows), ""]


def span(seconds: float) -> str:
    """A time for people."""
    for unit, name in ((86_400, "days"), (HOUR, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds * 1e6:,.1f} us"


def mosaic(m: Measured) -> list[str]:
    """The country."""
    grid = BlockGrid(MOSAIC, MOSAIC, 1024)
    blocks, gpx = math.prod(grid.shape), MOSAIC**2 / GPX
    side = part_side(grid, GPX / m.compute, max(WORKERS))
    tasks = math.prod(-(-n // side) for n in grid.shape)
    compute, finish = m.compute * gpx, m.finish[1] * gpx
    model = load_model(MODEL)
    worst = most_bytes(Finisher(model.spec, model.channels), MOSAIC**2, MOSAIC**2)
    per_task = compute / tasks
    rows = [
        ("tiles", f"{m.tiles:,} of {m.tile[1]} x {m.tile[0]} px"),
        ("blocks, one file each", f"{blocks:,}"),
        ("inodes while it runs", f"{blocks + grid.shape[0] + 10:,}"),
        ("files in the largest folder", f"{grid.shape[1]:,}"),
        ("block store", in_words(blocks * m.block)),
        ("output", in_words(m.output * gpx)),
        ("run directory at its largest", in_words(m.directory * m.output * gpx)),
        ("disk that is asked for before the start, by entropy", in_words(worst)),
        ("manifest", in_words(m.manifest)),
        ("tasks", f"{tasks:,} of {side} x {side} blocks, {span(per_task)} each"),
        ("computing, one worker of one thread", span(compute)),
        ("one output file, built and verified by one process", span(finish)),
        ("listing all blocks when the same command is run again", span(m.listing[FAKE[1]]["list all"])),
    ]
    lines = ["## A country: 10^12 pixels", "", *table(rows, ("what", "figure"))]
    lines += [
        "| workers | computing | messages per second | load of the scheduler | finish over computing |",
        "|--:|--:|--:|--:|--:|",
    ]
    for workers in WORKERS:
        rate = workers / per_task
        load = rate * m.traffic.seconds / m.traffic.tasks
        lines.append(
            f"| {workers:,} | {span(compute / workers)} | {rate * m.traffic.messages:,.0f} | {load:.1%} "
            f"| {finish / (compute / workers):.1%} |"
        )
    limits = [
        (compute / finish, "finish, which is one process, takes as long as all computing"),
        (m.traffic.tasks / m.traffic.seconds * per_task, "the scheduler handles no more tasks"),
        (m.compute * 1024**2 / GPX / m.store, "a disk that stores one block at a time is busy all the time"),
    ]
    return [*lines, "", "Where it breaks first, by number of workers:", "", *ordered(limits)]


def ordered(limits: list[tuple[float, str]]) -> list[str]:
    """What gives way first comes first."""
    lines = (
        f"{i}. From {workers:,.0f} workers on {what}." for i, (workers, what) in enumerate(sorted(limits), 1)
    )
    return [*lines, ""]


def slides(m: Measured) -> list[str]:
    """The archive."""
    pixels = SLIDE[0] * SLIDE[1]
    grid = BlockGrid(SLIDE[1], SLIDE[0], 1024)
    finish = m.finish[0] * pixels / GPX
    rows, limits = [], []
    for share in TISSUE:
        seconds = m.compute * share * pixels / GPX + finish
        rows += [
            (f"one slide, {share:.0%} tissue, one worker of one thread", span(seconds)),
            (f"all slides, {share:.0%} tissue, one worker", span(seconds * SLIDES)),
        ]
    least = m.compute * TISSUE[0] * pixels / GPX + finish
    whole = m.record["seconds"] * SLIDES
    rows += [
        ("tasks", f"{SLIDES:,}, one per slide"),
        ("blocks of a slide while it is computed", f"{math.prod(grid.shape):,}"),
        ("files in the end", f"{SLIDES * OUTPUT_FILES:,}"),
        ("outputs", in_words(m.output * pixels / GPX * SLIDES)),
        ("run directory of one slide at its largest", in_words(m.directory * m.output * pixels / GPX)),
        ("record and summaries, without thumbnails", in_words(m.record["bytes"] * SLIDES)),
        ("writing them once", span(whole)),
    ]
    limits = [
        (m.traffic.tasks / m.traffic.seconds * least, "the scheduler handles no more tasks"),
        (
            least / m.store / math.prod(grid.shape),
            "a disk that stores one block at a time is busy all the time",
        ),
    ]
    lines = ["## An archive: 100,000 slides", "", *table(rows, ("what", "figure"))]
    lines += ["| workers | all slides, 25 % tissue | messages per second |", "|--:|--:|--:|"]
    for workers in WORKERS:
        rate = workers / least
        lines.append(f"| {workers:,} | {span(least * SLIDES / workers)} | {rate * m.traffic.messages:,.2f} |")
    return [*lines, "", "Where it breaks first, by number of workers:", "", *ordered(limits)]


def page(m: Measured, told: str) -> str:
    """All of it."""
    lines = [
        "# Scale, on paper",
        "",
        f"`python benchmarks/scale.py{told}`, {datetime.now(UTC).date()}, {describe()}.",
        "",
        "Assumed, not measured: the mosaic is one raster of 10^6 x 10^6 px of the demo scene's kind, all valid; a "
        f"slide has {SLIDE[0]:,} x {SLIDE[1]:,} px at 0.25 um and is fed at that, {TISSUE[0]:.0%} to "
        f"{TISSUE[1]:.0%} of it is tissue and nothing else is computed; a worker is one thread of this machine, "
        f"with {MODEL.name}; reading from a shared disk costs what reading here does; costs grow with the number "
        "of pixels as they do here. A task is meant to take "
        f"{SECONDS:g} s.",
        "",
        "## Measured here",
        "",
        *table(
            [
                ("computing, one thread, reading and storing included, per Gpx", span(m.compute)),
                ("storing one block of 1024 x 1024 px, synced", span(m.store)),
                ("bytes of a stored block", f"{m.block:,.0f}"),
                ("finish per Gpx, at the smaller of two sizes", span(m.finish[0])),
                ("finish per Gpx, at the larger", span(m.finish[1])),
                ("output per Gpx", in_words(m.output)),
                ("run directory at its largest, over the output", f"{m.directory:.2f}"),
                *((f"mosaic: {name}", span(seconds)) for name, seconds in m.planning.items()),
                *(
                    (f"{blocks:,} blocks: {name}", span(seconds))
                    for blocks, what in m.listing.items()
                    for name, seconds in what.items()
                ),
                ("a batch's record and summaries, per raster, each time", span(m.record["seconds"])),
                ("tasks that do nothing, per second", f"{m.traffic.tasks / m.traffic.seconds:,.0f}"),
                ("messages of the scheduler per task", f"{m.traffic.messages:.2f}"),
            ],
            ("what", "figure"),
        ),
        *mosaic(m),
        *slides(m),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Measure, compute, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="on the disk that is measured  [default: temporary]")
    parser.add_argument("--sides", default="4096,8192,16384", help="of the scenes, pixels")
    parser.add_argument("--tasks", type=int, default=3000, help="that do nothing")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    first, second, third = map(int, options.sides.split(","))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measured = measure(Path(name), (first, second, third), options.tasks)
    print(json.dumps(asdict(measured), indent=1))
    text = page(measured, "" if options.sides == parser.get_default("sides") else f" --sides {options.sides}")
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

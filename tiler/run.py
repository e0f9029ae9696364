"""A run from start to end: open, plan, stream, finish, report. Effects are here; the stages are pure."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio

from tiler import __version__, memory
from tiler.backends.onnx import load_model
from tiler.engine import segment_blocks
from tiler.errors import OutputError
from tiler.events import BlockStored, Finished, Finishing, Noted, Planned, ignore
from tiler.finish import Finisher
from tiler.folder import RunFolder, check_output
from tiler.model import Model
from tiler.open import open_for_model, open_raster
from tiler.options import RunOptions
from tiler.planning import Plan, make_plan
from tiler.report import Report, Tally
from tiler.sinks.cog import PREFIX, Product, build_cog
from tiler.sinks.regrid import source_grid_blocks
from tiler.sinks.scratch import ScratchTiff
from tiler.stopwatch import Stopwatch, TimedBackend, TimedRaster
from tiler.tiles import TileReader
from tiler.toml import to_toml

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tiler.ports import Block, Observer, Raster, RasterInfo, Sink


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A run that is settled but not begun."""

    source: Path
    reader: TileReader
    model: Model
    finisher: Finisher
    options: RunOptions
    plan: Plan

    @property
    def raster(self) -> Raster:
        """What the network is fed from."""
        return self.reader.raster

    @property
    def tags(self) -> dict[str, str]:
        """What the result depends on besides the source's pixels, and nothing else."""
        grid = self.plan.grid
        cut = (
            {"halo": self.model.spec.halo}
            if self.plan.mode == "exact"
            else {"tile": grid.tile, "overlap": (grid.rows.overlap, grid.columns.overlap)}
        )
        settings = {
            "mode": self.plan.mode,
            **cut,
            "size": (self.raster.info.height, self.raster.info.width),
            "grid": self.options.grid,
            "bands": self.options.bands,
            "nodata": self.options.nodata,
        }
        return {
            PREFIX + "VERSION": __version__,
            PREFIX + "MODEL_SHA256": self.model.sha256,
            PREFIX + "MODEL": self.model.spec.to_json(),
            PREFIX + "OPTIONS": json.dumps(settings),
        }


def prepare(source: str | Path, model: Model | str | Path, options: RunOptions | None = None) -> Job:
    """Open everything and make the plan; nothing is written.

    Raises
    ------
    TilerError
        if the raster, the model and the options do not go together.
    """
    options = options or RunOptions()
    if not isinstance(model, Model):
        model = load_model(model, options)
    raster = open_for_model(
        source,
        model.spec,
        bands=options.bands,
        nodata=options.nodata,
        resolution=options.resolution,  # type: ignore[arg-type] # checked by RunOptions
        allow_vrt=options.allow_vrt,
    )
    reader = TileReader(raster, model.spec, model.dtype)
    finisher = Finisher(model.spec, model.channels, options.output)
    plan = make_plan(raster.info, model, finisher, options)
    return Job(Path(source), reader, model, finisher, options, plan)


def plan(source: str | Path, model: Model | str | Path, options: RunOptions | None = None) -> Plan:
    """What `segment` would do with the same arguments."""
    return prepare(source, model, options).plan


def segment(
    source: str | Path,
    model: Model | str | Path,
    output: str | Path,
    options: RunOptions | None = None,
    observer: Observer = ignore,
) -> Report:
    """Segment a raster of any size into cloud-optimised GeoTIFFs.

    Parameters
    ----------
    source
        The raster; see `tiler.open_raster`.
    model
        An ONNX file, or what `tiler.load_model` returned.
    output
        Path of the result, ``.tif``. With output "both", the probabilities go beside it as
        ``.probabilities.tif``; the report to ``.report.json``, the options to ``.config.toml``.
    options
        See `tiler.RunOptions`.
    observer
        Called with a `tiler.events.Event` now and then.

    Raises
    ------
    TilerError
        one line, with the rule, the value and the fix; nothing is left at the output's names.
    """
    start = time.perf_counter()
    output = Path(output)
    options = options or RunOptions()
    names = _names(output, options)
    check_output(output, Path(source), names, options.overwrite)
    job = prepare(source, model, options)
    with RunFolder(output, options.overwrite) as folder, rasterio.Env(GDAL_CACHEMAX=job.plan.cache):
        observer(Planned(plan_facts(job)))
        for message in _notes(job):
            observer(Noted(message))
        report = _carry_out(job, output, folder, observer, start)
        settings = asdict(replace(options, overwrite=False))
        folder.write(output.with_suffix(".config.toml"), to_toml(settings))
        folder.write(output.with_suffix(".report.json"), report.to_json() + "\n")
        folder.publish()
    observer(Finished(asdict(report)))
    return report


def _notes(job: Job) -> list[str]:
    """What the user did not ask for in so many words."""
    notes = [f"on {job.model.device}"]
    if job.raster.info.note:
        notes.append(f"fed {job.raster.info.width} x {job.raster.info.height} px, {job.raster.info.note}")
    if job.options.blend == "auto" and job.plan.mode != "exact":
        notes.append(f"tiles are blended ({job.plan.mode}): {job.plan.reason}")
    return notes


def _names(output: Path, options: RunOptions) -> tuple[Path, ...]:
    """Every file that a run may write, but for the output itself."""
    extra = [".probabilities.tif"] if options.output == "both" else []
    return tuple(output.with_suffix(suffix) for suffix in (*extra, ".report.json", ".config.toml"))


def products(job: Job, output: Path) -> list[Product]:
    """The files that a run writes pixels to; the one at the output's own name comes last."""
    finisher, spec = job.finisher, job.model.spec
    names = tuple(c.name for c in spec.classes) if finisher.multilabel else ("class",)
    cut = finisher.label_planes
    both = job.options.output == "both"
    made = []
    if finisher.probability_planes:
        path = output.with_suffix(".probabilities.tif") if both else output
        planes = slice(cut, finisher.planes)
        made.append(
            Product(path, "probabilities", planes, finisher.probability_names, spec.classes, job.tags)
        )
    if finisher.label_planes:
        made.append(Product(output, "labels", slice(0, cut), names, spec.classes, job.tags))
    return made


def _carry_out(job: Job, output: Path, folder: RunFolder, observer: Observer, start: float) -> Report:
    stopwatch = Stopwatch()
    backend = TimedBackend(job.model.backend, stopwatch)
    info, blocks = _blocks(job, backend, stopwatch, folder)
    made = products(job, output)
    tally = Tally(info, job.finisher)
    with ExitStack() as stack:
        scratches = []
        for product in made:
            scratches.append(ScratchTiff(folder.path / f"{product.kind}.tif", info, product.planes))
            stack.callback(scratches[-1].close)
        try:
            _store(blocks, scratches, tally, info, stopwatch, observer)
        finally:
            backend.release()
        for scratch, product in zip(scratches, made, strict=True):
            observer(Finishing(str(product.path)))
            with stopwatch.timing("finish"):
                build_cog(scratch, product, folder.place(product.path))
    return _report(job, made, info, tally, backend, stopwatch, time.perf_counter() - start)


def _store(
    blocks: Generator[Block],
    sinks: Sequence[Sink],
    tally: Tally,
    info: RasterInfo,
    stopwatch: Stopwatch,
    observer: Observer,
) -> None:
    """Stream every block to disk and count it."""
    done, total = 0, info.height * info.width
    with closing(blocks):
        for block in blocks:
            with stopwatch.timing("store"):
                for sink in sinks:
                    sink.write(block)
                tally.add(block)
            done += block.window.area
            observer(BlockStored(str(block.window), block.window.area, done, total))
    if done != total:
        raise OutputError(f"every pixel is stored once, got {done} of {total}")


def _blocks(
    job: Job, backend: TimedBackend, stopwatch: Stopwatch, folder: RunFolder
) -> tuple[RasterInfo, Generator[Block]]:
    """The blocks of the output, and the raster info of the grid they are on."""
    reader = replace(job.reader, raster=TimedRaster(job.raster, stopwatch))
    blocks = segment_blocks(reader, backend, job.finisher, job.plan)
    if job.options.grid == "model":
        return job.raster.info, blocks
    native = open_raster(
        job.source, bands=job.options.bands, nodata=job.options.nodata, allow_vrt=job.options.allow_vrt
    )
    scratch = ScratchTiff(folder.path / "model-grid.tif", job.raster.info, slice(0, job.finisher.planes))
    return native.info, source_grid_blocks(blocks, scratch, native, job.plan.block)


def _report(
    job: Job,
    made: list[Product],
    info: RasterInfo,
    tally: Tally,
    backend: TimedBackend,
    stopwatch: Stopwatch,
    seconds: float,
) -> Report:
    pixels = job.raster.info.height * job.raster.info.width
    return Report(
        outputs=tuple(str(product.path) for product in made),
        pixels=pixels,
        valid_pixels=tally.valid_pixels,
        classes=tally.classes(),
        seconds=round(seconds, 3),
        megapixels_per_second=round(pixels / seconds / 1e6, 4),
        stage_seconds={name: round(value, 3) for name, value in stopwatch.seconds.items()},
        tiles_computed=backend.tiles,
        peak_memory=memory.peak(),
        plan=plan_facts(job),
        model={
            "path": str(job.model.path),
            "sha256": job.model.sha256,
            "device": job.model.device,
            "said_by": job.model.origins,
        },
        source={"path": str(job.source)},
        output={"height": info.height, "width": info.width},
    )


def plan_facts(job: Job) -> dict[str, Any]:
    """The plan as plain values, for logs and reports."""
    grid = job.plan.grid
    return {
        "mode": job.plan.mode,
        "reason": job.plan.reason,
        "raster": f"{job.raster.info.width} x {job.raster.info.height} px",
        "pixels_made": job.raster.info.note or "as in the file",
        "tile": list(grid.tile),
        "overlap": [grid.rows.overlap, grid.columns.overlap],
        "tiles": job.plan.tiles,
        "waste": round(grid.waste, 3),
        "batch": job.plan.batch,
        "strip_width": job.plan.strip_width,
        "budget": job.plan.budget,
        "memory": dict(job.plan.terms),
        "peak": job.plan.peak,
    }

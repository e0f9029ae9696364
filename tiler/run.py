"""A run from start to end: open, plan, store blocks, finish, report; and from any point in between.

Whatever ends a run early, what it stored stays in its run directory, and the same call carries on.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rasterio

from tiler import memory
from tiler.assemble import assemble
from tiler.blocks import BlockSet
from tiler.compute import Work, compare, compute
from tiler.durable import write_whole
from tiler.errors import DamageError, OutputError
from tiler.events import Finished, Noted, Planned, Polygonising, Publishing, ignore
from tiler.fingerprint import Fingerprint, fingerprint
from tiler.folder import RunFolder
from tiler.job import pixels_made, plan_facts, prepare
from tiler.manifest import Manifest
from tiler.options import RunOptions
from tiler.outputs import Outputs
from tiler.overlay import png
from tiler.readers.slide import METRES
from tiler.report import DamagedWindow, Report, Tally, tissue_in_words
from tiler.space import check_space, most_bytes
from tiler.stopwatch import Stopwatch
from tiler.store import BlockStore, TornBlockError
from tiler.style import to_qml
from tiler.toml import to_toml
from tiler.vector.options import check_installed, check_path

if TYPE_CHECKING:
    from tiler.cluster.client import Cluster
    from tiler.job import Job
    from tiler.model import Model
    from tiler.planning import Plan
    from tiler.ports import Observer, RasterInfo

SHOWN: Final = 8
"""Shards that are named where many are missing."""
ATTEMPTS: Final = 3
"""How often blocks that do not read back are computed again before the disk is given up."""


def segment(
    source: str | Path,
    model: Model | str | Path,
    output: str | Path,
    options: RunOptions | None = None,
    observer: Observer = ignore,
) -> Report | None:
    """Segment a raster of any size into cloud-optimised GeoTIFFs, or carry on with it.

    Blocks are kept in ``OUTPUT.run`` until the output is complete; if the process ends early, in whatever
    way, the same call computes what is missing. The result does not depend on how often that happened.

    Parameters
    ----------
    source
        The raster; see `tiler.open_raster`.
    model
        An ONNX file, or what `tiler.load_model` returned.
    output
        Path of the result, ``.tif``. With output "both", the probabilities go beside it as
        ``.probabilities.tif``; the report to ``.report.json``, the options to ``.config.toml``, a QGIS style
        to ``.qml``, polygons to the suffix of their format.
    options
        See `tiler.RunOptions`.
    observer
        Called with a `tiler.events.Event` now and then.

    Returns
    -------
    Report | None
        None from a shard that leaves blocks to others. ``damaged`` is not empty if parts of the source could
        not be read and ``on_error`` is "nodata".

    Raises
    ------
    TilerError
        one line, with the rule, the value and the fix; nothing unfinished is at the output's names.
    """
    start = time.perf_counter()
    options = options or RunOptions()
    outputs = Outputs(Path(output), options.output, options.polygons)
    outputs.check(source)
    if outputs.polygons is not None:
        check_installed()
        check_path(outputs.polygons)
    folder = RunFolder(outputs.main, options.shard, cluster=options.scheduler is not None)
    if not options.overwrite:
        # Without a report beside it, it is none of ours: no need to open anything.
        outputs.refuse_existing(lambda: outputs.report.exists() or folder.publishing)
    job = prepare(source, model, options)
    outputs = replace(outputs, styled=job.styled, tissue=job.tissue is not None)
    outputs.check_sources((*job.native.info.files, *([] if options.mask is None else [options.mask])))
    mark = fingerprint(job)
    with folder:
        report = None if options.overwrite else outputs.finished(mark)
        if report is not None:
            _restore(job, outputs, observer)
        if report is not None and outputs.lacks_polygons(report):
            report = _add_polygons(job, mark, outputs, folder, observer)
        elif report is not None:
            folder.tidy(mark)
            without = options.check_seams and report.seams is None
            more = ", without --check-seams; --overwrite makes it anew" if without else ""
            observer(Noted(f"{output} is finished already{more}"))
        else:
            report = _carry_out(job, mark, source, outputs, folder, observer, start)
    if report is not None:
        observer(Finished(asdict(report)))
    return report


def _carry_out(
    job: Job,
    mark: Fingerprint,
    source: str | Path,
    outputs: Outputs,
    folder: RunFolder,
    observer: Observer,
    start: float,
) -> Report | None:
    """Compute what is missing and finish, or leave that to another shard."""
    stopwatch = Stopwatch()
    with ExitStack() as stack:
        # Before anything is written: a scheduler that does not answer leaves nothing behind.
        hired = stack.enter_context(ExitStack())
        cluster = _hire(hired, job, observer)
        plan = _settled(job, mark, outputs, folder, stopwatch)
        if plan is None:
            observer(Noted(f"another process finished {outputs.main}"))
            return outputs.finished(mark)
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=plan.cache))
        store = BlockStore(folder.path / "blocks", plan.blocks, job.finisher.planes)
        store.open()
        work = Work(job, plan, store, folder, observer, stopwatch)
        _announce(work)
        whole = BlockSet.all(plan.blocks)
        if cluster is not None:
            cluster.compute(work, whole, source)
            hired.close()
        elif job.options.shard is not None:
            compute(work, whole.shard(*job.options.shard, plan.strip_width))
            if not _last(work, whole):
                return None
        if folder.shared:
            observer(Noted("all blocks are there: finishing when the others at work here have left"))
            if not folder.take_over(mark):
                observer(Noted(f"another process finished {outputs.main}"))
                return outputs.finished(mark)
        store.sweep()
        return _complete(work, whole, outputs, mark, start)


def _complete(work: Work, whole: BlockSet, outputs: Outputs, mark: Fingerprint, start: float) -> Report:
    """Make the files of a run that nobody else is at work on, and give them their names."""
    job, folder = work.job, work.folder
    tally = _finish(work, whole, outputs)
    labels = folder.place(outputs.main)
    with work.stopwatch.timing("polygons") if outputs.polygons else nullcontext():
        polygons = _polygons(job, outputs, folder, labels, work.observer)
    before = outputs.stored()
    if before is not None and before.fingerprint == mark:
        # The same labels again: those of other formats are still true.
        polygons = {**before.polygons, **polygons}
        before = None
    report = replace(_report(work, outputs, tally, mark, start), polygons=polygons)
    _publish(work, outputs, report, () if before is None else outputs.outdated(before, job.stamps))
    return report


def _companion(job: Job, outputs: Outputs, path: Path) -> bytes:
    """What is in a small file that goes with the maps."""
    if path == outputs.style:
        return to_qml(job.model.spec.classes).encode()
    if path == outputs.preview and job.tissue is not None:
        return png(job.tissue.picture())
    return to_toml(job.options.lasting).encode()


def _restore(job: Job, outputs: Outputs, observer: Observer) -> None:
    """Make anew what somebody removed of the small files of a finished output."""
    for path in outputs.companions:
        if not path.exists():
            try:
                write_whole(path, _companion(job, outputs, path))
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}; free some space") from None
            observer(Noted(f"{path} was gone and is made anew"))


def _hire(stack: ExitStack, job: Job, observer: Observer) -> Cluster | None:
    """The workers of ``--scheduler``, until the stack is closed."""
    if job.options.scheduler is None:
        return None
    from tiler.cluster.connection import connected

    return stack.enter_context(connected(job.options.scheduler, observer, "CUDA" in job.model.device))


def _polygons(
    job: Job, outputs: Outputs, folder: RunFolder, labels: Path, observer: Observer
) -> dict[str, Any]:
    """Make polygons of a label file, if they are wanted; what the report says of them."""
    if outputs.vector is None or outputs.polygons is None:
        return {}
    from tiler.vector.labels import open_labels_file
    from tiler.vector.make import make_polygons

    place = job.place
    if note := place.note(outputs.vector):
        observer(Noted(note))
    observer(Polygonising(str(outputs.polygons)))
    working = folder.place(outputs.polygons)
    made = make_polygons(open_labels_file(labels), place, working, outputs.polygons, outputs.vector)
    facts = {"path": str(outputs.polygons), "options": asdict(outputs.vector), **asdict(made)}
    return {outputs.vector.format: facts}


def _add_polygons(
    job: Job, mark: Fingerprint, outputs: Outputs, folder: RunFolder, observer: Observer
) -> Report | None:
    """Make polygons of finished labels; nothing is computed again."""
    folder.begin(mark, lambda: None, overwrite=False)
    report = outputs.finished(mark)
    if report is None or outputs.polygons is None or not outputs.lacks_polygons(report):
        return report
    observer(Noted(f"{outputs.main} is finished already: only polygons are made of it"))
    for path in (outputs.config, outputs.report):
        # Named before the polygons: those that no report tells of would be somebody else's.
        folder.place(path)
    polygons = _polygons(job, outputs, folder, outputs.main, observer)
    report = replace(report, polygons={**report.polygons, **polygons})
    folder.write(outputs.config, to_toml(job.options.lasting).encode())
    folder.write(outputs.report, report.to_json().encode() + b"\n")
    observer(Publishing(str(outputs.polygons)))
    folder.publish()
    return report


def _settled(
    job: Job, mark: Fingerprint, outputs: Outputs, folder: RunFolder, stopwatch: Stopwatch
) -> Plan | None:
    """Begin the run or join it; its plan for this process, or None if another has finished it."""
    overwrite = job.options.overwrite
    if not overwrite:
        outputs.refuse_existing(lambda: folder.publishing or outputs.finished(mark) is not None, mark)
    made: list[Manifest] = []

    def first() -> Manifest | None:
        # Another shard may have finished since we looked.
        if not overwrite and outputs.finished(mark) is not None:
            return None
        with nullcontext() if job.options.tolerance is None else stopwatch.timing("tolerance"):
            made.append(Manifest(mark, job.plan()))
        return made[0]

    manifest = folder.begin(mark, first, overwrite)
    if manifest is None:
        return None
    return manifest.plan if made else job.fitted(manifest.plan)


def _publish(work: Work, outputs: Outputs, report: Report, outdated: tuple[Path, ...]) -> None:
    """Put report and options beside the verified files, and give all of them their names."""
    options, folder = work.job.options, work.folder
    for path in outputs.companions:
        folder.write(path, _companion(work.job, outputs, path))
    folder.write(outputs.report, report.to_json().encode() + b"\n")
    if not options.overwrite and not folder.publishing:
        # Somebody may have put a file there meanwhile.
        outputs.refuse_existing(lambda: False, report.fingerprint)
    if outdated:
        names = ", ".join(map(str, outdated))
        work.observer(Noted(f"removed, because made of the output that is replaced: {names}"))
    work.observer(Publishing(str(outputs.main)))
    folder.publish(outdated)


def _announce(work: Work) -> None:
    """Say what will be done, and what the user did not ask for in so many words."""
    job, total = work.job, BlockSet.all(work.store.grid)
    missing = total.without(work.store.present())
    output = job.output_info.height * job.output_info.width
    check_space(work.folder.path, most_bytes(job.finisher, missing.pixels, output))
    work.observer(Planned(plan_facts(job, work.plan)))
    notes = [f"on {job.model.device}"]
    if len(missing) < len(total):
        notes.append(f"carrying on: {len(total) - len(missing)} of {len(total)} blocks are there")
    fed = job.raster.info
    if fed.note or fed.colours:
        notes.append(f"fed {fed.width} x {fed.height} px, {pixels_made(fed)}")
    if job.tissue is not None:
        with work.stopwatch.timing("tissue"):
            notes.append(f"tissue: {tissue_in_words(job.tissue.facts()['share'])}")
    if job.options.blend == "auto" and work.plan.blended:
        notes.append(f"tiles are blended ({work.plan.mode}): {work.plan.reason}")
    if work.plan.mode == "tolerance":
        notes.append(work.plan.reason)
    if job.options.mask is not None and job.leaves_nothing(work.plan):
        notes.append(f"the mask {job.options.mask} leaves nothing of this raster: all of it will be nodata")
    for note in notes:
        work.observer(Noted(note))
    damage = work.store.damage()
    if damage and job.options.on_error == "fail":
        raise DamageError(
            f"{job.source} is damaged at {damage[0].window}: {damage[0].reason}; restore the file and start "
            "anew, or carry on with --on-error nodata"
        )


def _last(work: Work, whole: BlockSet) -> bool:
    """Whether this shard is the last; else say what the others have yet to do."""
    missing = whole.without(work.store.present())
    if not len(missing):
        return True
    number, count = work.job.options.shard or (1, 1)
    parts = missing.by_shard(count, work.plan.strip_width)
    left = ", ".join(f"{i}/{count} ({size} blocks)" for i, size in islice(parts.items(), SHOWN))
    left += f" and {len(parts) - SHOWN} more shards" if len(parts) > SHOWN else ""
    work.observer(Noted(f"shard {number}/{count} is done; missing: {left}"))
    return False


def _finish(work: Work, whole: BlockSet, outputs: Outputs) -> Tally:
    """Blocks to verified files; blocks that do not read back are computed again."""
    for attempt in range(ATTEMPTS):
        compute(work, whole)
        try:
            if work.job.options.check_seams and work.seams is None:
                compare(work)
            return assemble(work, outputs)
        except TornBlockError as error:
            if attempt + 1 == ATTEMPTS:
                raise
            count = work.store.drop_torn()
            work.observer(Noted(f"{error}: {count} blocks are computed again"))
    raise AssertionError("unreachable")


def _place_on_slide(info: RasterInfo) -> dict[str, Any]:
    """Where the output's pixels lie on a slide; nothing for a scene."""
    if info.to_level0 is None or info.ground is None:
        return {}
    return {
        "to_level0": list(info.to_level0[:6]),
        "mpp": [round(side / METRES, 6) for side in info.ground],
    }


def _bottleneck(work: Work, seconds: float) -> str:
    """The busiest stage; readers are several."""
    at_once = max(work.plan.workers, work.backend.workers)
    threads = {"read": work.plan.reader_threads or 1, "network": at_once}
    shares = {name: busy / threads.get(name, 1) for name, busy in work.stopwatch.seconds.items()}
    name, busy = max(shares.items(), key=lambda item: item[1])
    busy /= work.workers
    return f"{name}: {busy / max(seconds, busy):.0%} of the time"


def _report(work: Work, outputs: Outputs, tally: Tally, mark: Fingerprint, start: float) -> Report:
    job, info, now = work.job, work.job.output_info, time.perf_counter()
    seconds, begun = now - start, work.stopwatch.begun or now
    # Blocks know of damage in what the network was fed; --grid source has read the finest pixels since.
    damaged = sorted({d.window: d for d in (*job.damage.found, *work.store.damage())}.values())
    pixels = job.raster.info.height * job.raster.info.width
    return Report(
        outputs=tuple(str(product.path) for product in job.products(outputs)),
        pixels=pixels,
        valid_pixels=tally.valid_pixels,
        classes=tally.classes(),
        seconds=round(seconds, 3),
        startup_seconds=round(begun - start, 3),
        bottleneck=_bottleneck(work, now - begun),
        megapixels_per_second=round(work.pixels_computed / seconds / 1e6, 4),
        stage_seconds={name: round(value, 3) for name, value in work.stopwatch.seconds.items()},
        tiles_computed=work.backend.tiles,
        blocks_computed=work.blocks_computed,
        blocks=len(BlockSet.all(work.store.grid)),
        damaged=tuple(DamagedWindow(str(d.window), d.reason) for d in damaged),
        peak_memory=memory.peak(),
        tissue=None if job.tissue is None else job.tissue.facts(),
        seams=None if work.seams is None else {**asdict(work.seams), "excess": work.seams.excess},
        plan=plan_facts(job, work.plan),
        model={
            "path": str(job.model.path),
            "sha256": job.model.sha256,
            "device": job.model.device,
            "said_by": job.model.origins,
        },
        source={"path": job.source, "reader": job.raster.info.reader},
        output={"height": info.height, "width": info.width, **_place_on_slide(info)},
        fingerprint=mark,
    )

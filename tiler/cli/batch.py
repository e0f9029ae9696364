"""``tiler batch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiler.cli.options import log_options, run_options
from tiler.errors import TilerError, UsageError

if TYPE_CHECKING:
    from tiler.batch.record import Record
    from tiler.batch.run import Batch
    from tiler.batch.task import Executor
    from tiler.options import RunOptions

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=FILE)
@click.argument("folder", metavar="OUTDIR", type=FILE)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--workers",
    type=click.IntRange(0),
    metavar="N",
    help="Processes, each with its --memory; 0: this one  [default: one per card of cuda:N,M.., else 1]",
)
@click.option("--skip-existing", is_flag=True, help="Do not open rasters whose output is there.")
@click.option("--retry-failed", is_flag=True, help="Only those that failed the last time.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N rasters.")
@click.option("--dry-run", is_flag=True, help="Say what it would take; write nothing.")
@run_options
@log_options
def batch(
    model: Path,
    folder: Path,
    sources: tuple[str, ...],
    *,
    workers: int | None,
    skip_existing: bool,
    retry_failed: bool,
    limit: int | None,
    dry_run: bool,
    options: RunOptions,
    log: str,
    quiet: bool,
) -> None:
    """Segment an archive into OUTDIR, or carry on with it.

    A SOURCE is a raster, a folder (searched to its bottom, but not through links to folders), a glob in
    quotes, or a list: a .txt of paths (# begins a remark, ./# a name), or a .csv with the columns path and,
    if wanted, output, mpp, mask. Of a DICOM slide, name one .dcm: folders are not searched for them, nor for
    maps that have their .report.json beside them. Folders are mirrored in OUTDIR.
    Everything is attempted; what fails is in OUTDIR/summary.html with its reason, and the exit code is 1.
    The same command carries on, and makes anew what another model or other options made. With --shard I/N
    this is every N-th raster, and all N shards may run at once.
    """
    from tiler.batch.here import Here
    from tiler.batch.items import find_items
    from tiler.batch.processes import Processes, devices, shared_out
    from tiler.batch.run import Batch, run_batch
    from tiler.cli.board import batch_observer
    from tiler.cli.progress import observer as progress
    from tiler.cluster.executor import DaskExecutor
    from tiler.cluster.scheduler import Scheduler
    from tiler.device import Device

    if options.scheduler is None:
        where = devices(options, workers)
    elif workers is None:
        where = [options.device] * Scheduler.parse(options.scheduler).workers
    else:
        raise UsageError("--workers are of this machine, those of --scheduler are its own; choose one")
    items = find_items(sources, folder, options, progress(log, quiet))
    options = shared_out(options, len(where))
    made = Batch(str(model), folder, items, options, skip_existing, retry_failed, limit)
    if dry_run:
        _preview(made, max(workers or len(where), 1))
        return
    executor: Executor
    if options.scheduler is not None:
        gpu = Device.parse(options.device).kind == "cuda"
        executor = DaskExecutor(options.scheduler, gpu, progress(log, quiet))
    else:
        executor = Here() if workers == 0 else Processes(where)
    record = run_batch(made, executor, batch_observer(log, quiet))
    if not quiet and log == "text":
        _print(record, folder)
    _check(record, folder)


def _preview(batch: Batch, workers: int) -> None:
    """Print what the batch would take; exit code 1 if any raster cannot be opened."""
    from tiler.backends.onnx import load_model
    from tiler.batch.preview import preview
    from tiler.batch.run import choose
    from tiler.cli.tables import print_pairs
    from tiler.memory import in_words
    from tiler.reading import Reading

    tasks, model = choose(batch, batch.record()), load_model(batch.model, batch.options)
    found, as_trained = list(preview(tasks, model)), Reading.of(batch.options, model.spec).as_trained
    failed = [one for one in found if one.status == "failed"]
    for one in failed:
        click.echo(f"failed {one.task.name}: {one.reason}")
    left = sum(one.status == "polygons" for one in found)
    disk = f"at most {in_words(sum(one.disk for one in found))} of maps"
    if batch.options.vector is not None:
        disk += "; polygons come on top, as large as what is found"
    seconds = sum(one.seconds for one in found) / workers
    print_pairs(
        [
            ("rasters", f"{len(found):,}, of {len(batch.part):,}"),
            ("failed", f"{len(failed):,} cannot be opened, or not for this model"),
            ("done already", f"{sum(one.status == 'already' for one in found):,}"),
            *([("as trained", as_trained)] if as_trained else []),
            *([("only polygons", f"{left:,} maps are done already")] if left else []),
            ("to compute", f"{sum(one.pixels for one in found if one.tiles):,} pixels"),
            ("tiles", f"{sum(one.tiles for one in found):,}"),
            ("time", f"about {seconds:,.0f} s for the network, {workers} at a time"),
            ("disk", disk),
            ("and", f"{in_words(max((one.scratch for one in found), default=0))} while the largest is made"),
        ]
    )
    if failed:
        raise TilerError(f"{len(failed)} of {len(found)} rasters would fail; their reasons are above")


def _print(record: Record, folder: Path) -> None:
    from tiler.cli.tables import print_pairs

    done = [entry for entry in record.entries.values() if entry.pixels]
    print_pairs(
        [
            *((status, f"{count:,}") for status, count in record.totals.items() if count),
            ("pixels", f"{sum(entry.pixels for entry in done):,}"),
            ("work", f"{sum(entry.seconds for entry in done):,.1f} s"),
            ("written", folder / ("summary.html" if record.shard is None else "run.json")),
        ]
    )


def _check(record: Record, folder: Path) -> None:
    """Exit code 1 if anything failed or is damaged."""
    bad = [entry for entry in record.entries.values() if entry.status in {"failed", "damaged"}]
    if bad:
        raise TilerError(
            f"{len(bad)} of {len(record.entries)} rasters failed or are damaged, the first {bad[0].source}: "
            f"{bad[0].reason}; all are in {folder / 'summary.html'}"
        )

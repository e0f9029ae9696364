"""``tiler segment`` and ``tiler plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiler.cli.options import log_options, run_options

if TYPE_CHECKING:
    from tiler.options import RunOptions

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=FILE)
@click.argument("model", type=FILE)
@click.argument("destination", metavar="OUTPUT.tif", type=FILE)
@run_options
@log_options
def segment(source: Path, model: Path, destination: Path, options: RunOptions, log: str, quiet: bool) -> None:
    """Segment one raster into a cloud-optimised GeoTIFF.

    SOURCE is a GeoTIFF, COG, JPEG 2000, PNG or JPEG of any size, MODEL an ONNX file. Beside the output lie
    its report (.report.json) and its options (.config.toml, for --config).
    """
    from tiler.cli.progress import observer
    from tiler.cli.tables import print_report
    from tiler.run import segment as run

    report = run(source, model, destination, options, observer(log, quiet))
    if not quiet and log == "text":
        print_report(report)


@click.command()
@click.argument("source", type=FILE)
@click.argument("model", type=FILE)
@run_options
def plan(source: Path, model: Path, options: RunOptions) -> None:
    """Say what segment would do, and how long it would take here, without doing it."""
    from tiler.cli.tables import print_plan
    from tiler.estimate import network_seconds
    from tiler.run import prepare

    job = prepare(source, model, options)
    print_plan(job, network_seconds(job))

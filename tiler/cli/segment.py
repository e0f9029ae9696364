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
@click.argument("source")
@click.argument("model", type=FILE)
@click.argument("destination", metavar="OUTPUT.tif", type=FILE)
@run_options
@log_options
def segment(source: str, model: Path, destination: Path, options: RunOptions, log: str, quiet: bool) -> None:
    """Segment one raster or slide into a cloud-optimised GeoTIFF, or carry on with it.

    SOURCE is a GeoTIFF, COG, JPEG 2000, PNG, JPEG or a slide of any size, MODEL an ONNX file. Beside the
    output lie its report (.report.json), its options (.config.toml, for --config), of a scene a QGIS style
    (.qml), of a slide a picture of its tissue (.tissue.png); with --vector, its polygons. Killed or
    interrupted, it carries on where it was when the same command is run again: until it is done,
    OUTPUT.tif.run holds what is computed.
    """
    from tiler.cli.progress import observer
    from tiler.cli.tables import print_report
    from tiler.errors import DamageError
    from tiler.run import segment as run

    report = run(source, model, destination, options, observer(log, quiet))
    if report is None:
        return
    if not quiet and log == "text":
        print_report(report)
    if report.damaged:
        raise DamageError(
            f"{len(report.damaged)} damaged blocks of {source} are nodata in {destination}, the first at "
            f"{report.damaged[0].window}; all are listed in {destination.with_suffix('.report.json')}"
        )


@click.command()
@click.argument("source")
@click.argument("model", type=FILE)
@run_options
def plan(source: str, model: Path, options: RunOptions) -> None:
    """Say what segment would do, and how long it would take here, without doing it."""
    from tiler.cli.tables import print_plan
    from tiler.estimate import network_seconds
    from tiler.job import prepare

    job = prepare(source, model, options)
    made = job.plan()
    print_plan(job, made, network_seconds(job.model, made))

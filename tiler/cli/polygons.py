"""``tiler polygons``."""

from __future__ import annotations

from pathlib import Path

import click

from tiler.cli.options import NAMES, polygon_options

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("labels", type=FILE)
@click.argument("destination", metavar="OUTPUT", type=FILE)
@polygon_options
@click.option("--classes", type=NAMES, metavar="A,B..", help="Names by number, where LABELS does not say.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.")
def polygons(
    labels: Path,
    destination: Path,
    min_area: float,
    simplify: float,
    background: bool,
    classes: tuple[str, ...] | None,
    overwrite: bool,
) -> None:
    """Turn a label raster into polygons.

    OUTPUT ends in .gpkg, .fgb, .parquet, .geojson (in degrees) or .qupath.geojson (in pixels of the image).
    Each polygon has its class, the class's number and its area: m2 on the ellipsoid, um2 on a slide, pixels
    of a raster that says nothing of its size. --min-area is in the same unit. Outlines follow the edges of
    pixels; --simplify moves them, and neighbours keep the same border.
    """
    from tiler.cli.tables import print_pairs
    from tiler.vector.command import polygons_of_file
    from tiler.vector.options import PolygonOptions, format_of

    options = PolygonOptions(format_of(destination), min_area, simplify, background)
    made, place = polygons_of_file(labels, destination, options, classes, overwrite)
    if note := place.note(options):
        click.echo(note, err=True)
    print_pairs(
        [
            ("written", destination),
            ("polygons", f"{made.polygons:,} of {made.points:,} points, areas in {place.unit}"),
        ]
    )

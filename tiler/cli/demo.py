"""``tiler demo``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from tiler.cli.options import log_options


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="As of segment.")
@log_options
def demo(folder: Path, device: str, log: str, quiet: bool) -> None:
    """Map the buildings of the shipped drone scene into FOLDER (default: demo).

    The scene is a part of an orthophoto that the shipped network was not trained on.
    """
    from tiler.agreement import evaluate
    from tiler.backends.onnx import load_model
    from tiler.cli.progress import observer
    from tiler.cli.tables import print_confusion, print_report
    from tiler.demo import LABELS, MODEL, SCENE
    from tiler.errors import OutputError
    from tiler.open import open_raster
    from tiler.options import RunOptions
    from tiler.overlay import draw_overlay
    from tiler.run import segment

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from None
    options = RunOptions(output="both", device=device, overwrite=True)
    model = load_model(MODEL, options)
    result = folder / "buildings.tif"
    report = segment(SCENE, model, result, options, observer(log, quiet))
    assert report is not None  # noqa: S101 - only shards leave work to others
    picture = folder / "overlay.png"
    draw_overlay(open_raster(SCENE), open_raster(result), model.spec.classes, picture)
    confusion, names = evaluate(result, LABELS)
    if not quiet and log == "text":
        print_report(replace(report, outputs=(*report.outputs, str(picture))))
        click.echo("\nagainst the shipped labels (OpenStreetMap), not trained on:")
        print_confusion(confusion, names)

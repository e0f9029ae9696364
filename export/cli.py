"""The command line of `export`."""

from __future__ import annotations

from pathlib import Path

import click

from tiler.cli.options import BANDS
from tiler.errors import MissingError, UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--raster",
    type=click.Path(path_type=Path),
    required=True,
    help="Real pixels to compare the file and the network on, e.g. one that was trained on.",
)
@click.option(
    "--bands", type=BANDS, metavar="N,N..", help="Its band numbers, from 1.  [default: all but alpha]"
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="Largest difference, in standard deviations of the logits.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def main(
    checkpoint: Path, out: Path, *, raster: Path, bands: tuple[int, ...] | None, tolerance: float, quiet: bool
) -> None:
    """Export a CHECKPOINT folder, such as RUN/best, to the ONNX file OUT.

    The file is written only if it computes what the network does, on real pixels and at sizes that it was
    not exported with.
    """
    try:
        from export.onnx import export_onnx
        from export.parity import HEADER
        from tiler.open import open_for_model
        from train.checkpoint import load_checkpoint
    except ModuleNotFoundError as error:
        raise MissingError(f"exporting needs {error.name}; pip install 'gigatiler[train]'") from None

    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"OUT is a file in a folder that is there, got {out}")
    net, spec = load_checkpoint(checkpoint)
    pixels = open_for_model(raster, spec, bands=bands)
    found = export_onnx(net, spec, pixels, out, tolerance)
    if not quiet:
        rows = "\n".join(map(str, found))
        click.echo(f"{HEADER}\n{rows}\nwrote {out}, {out.stat().st_size / 1e6:.2f} MB")

"""The command line of `train`; see `train.options` for the defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiler.cli.options import BANDS, NAMES, config_option
from tiler.errors import MissingError
from train.options import PRECISIONS, TrainOptions

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = {f.name: f.default for f in fields(TrainOptions)}


def option(name: str, help_text: str, **more: Any) -> Callable[..., Any]:  # noqa: ANN401 - as click has it
    """An option whose default is that of `TrainOptions`."""
    default = DEFAULT[name.replace("-", "_")]
    shown = default is not None and default != ""
    return click.option(f"--{name}", default=default, show_default=shown, help=help_text, **more)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("outdir", type=click.Path(path_type=Path))
@click.option(
    "--pair", nargs=2, multiple=True, metavar="RASTER MASK", help="A raster and its mask; may be repeated."
)
@option("images", "Folder of images, each one a whole.", metavar="DIR")
@option("masks", "Folder of their masks: NAME.* or NAME_mask.*.", metavar="DIR")
@click.option(
    "--classes",
    required=True,
    metavar="NAME,NAME",
    type=NAMES,
    help="Names of the mask's values 0, 1, ...; 255 is not known.",
)
@option("bands", "Band numbers, from 1.  [default: all but alpha]", metavar="N,N..", type=BANDS)
@option("resolution", "Metres per pixel to train at.  [default: the rasters' own]", type=float)
@option("depth", "Poolings of the U-Net, 1 to 6.", type=int)
@option("width", "Channels of its first block.", type=int)
@option("up", "How it grows back.", type=click.Choice(["transposed", "nearest", "bilinear"]))
@option("crop", "Side of a training crop, pixels.", type=int)
@option("batch", "Crops per step.", type=int)
@option("epochs", "Passes, each followed by validation.", type=int)
@option("crops-per-epoch", "Crops per pass.", type=int)
@option("lr", "Peak learning rate.", type=float)
@option("val", "Share of the data that chooses the best epoch.", type=float)
@option("test", "Share of the data kept unseen for the end.", type=float)
@option("seed", "Of everything random.", type=int)
@option("precision", "Mixed precision.", type=click.Choice(PRECISIONS))
@option("attribution", "Origin and licence of the data, kept in the model.", metavar="TEXT")
@option("device", "Where to compute.", type=click.Choice(["auto", "cpu", "cuda"]))
@option("threads", "CPU threads.  [default: as PyTorch chooses]", type=int)
@option("workers", "Processes that read crops.", type=int)
@config_option
@click.option("--overwrite", is_flag=True, help="Remove an earlier run in OUTDIR first.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def main(outdir: Path, overwrite: bool, quiet: bool, **told: Any) -> None:  # noqa: ANN401 - options, checked below
    """Train a U-Net on rasters with label masks; run again to carry on.

    Data is --pair RASTER MASK, cut by columns into training, validation and test parts, or --images and
    --masks, split by whole images. OUTDIR receives best/ and last/ (checkpoints), log.csv, curve.png,
    metrics.json and options.toml.
    """
    options = TrainOptions(**told)
    try:
        from train.run import train
    except ModuleNotFoundError as error:
        raise MissingError(f"training needs {error.name}; pip install 'gigatiler[train]'") from None
    train(options, outdir, overwrite=overwrite, progress=not quiet, say=_silent if quiet else click.echo)


def _silent(_: str) -> None:
    pass

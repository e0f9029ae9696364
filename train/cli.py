"""The command line of `train`; see `train.options` for the defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from train.options import PRECISIONS, TrainOptions, read_config

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = {f.name: f.default for f in fields(TrainOptions)}


def from_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Let a file give what the command line does not."""
    if path is not None:
        known = {f.name for f in fields(TrainOptions)} | {"overwrite", "quiet"}
        context.default_map = read_config(path, known)


def split_names(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """``a,b`` to a tuple."""
    return tuple(name.strip() for name in text.split(","))


def split_numbers(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """``1,2`` to a tuple."""
    if text is None:
        return None
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(f"band numbers are like 1,2,3, got {text!r}") from None


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
    callback=split_names,
    help="Names of the mask's values 0, 1, ...; 255 is not known.",
)
@option("bands", "Band numbers, from 1.  [default: all but alpha]", metavar="1,2,3", callback=split_numbers)
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
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    is_eager=True,
    expose_value=False,
    callback=from_config,
    help="Options from a file, such as an OUTDIR/options.toml.",
)
@click.option("--overwrite", is_flag=True, help="Remove an earlier run in OUTDIR first.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def main(outdir: Path, overwrite: bool, quiet: bool, **told: Any) -> None:  # noqa: ANN401 - options, checked below
    """Train a U-Net on rasters with label masks; run again to carry on.

    Data is --pair RASTER MASK, cut by columns into training, validation and test parts, or --images and
    --masks, split by whole images. OUTDIR receives best/ and last/ (checkpoints), log.csv, curve.png,
    metrics.json and options.toml.
    """
    options = TrainOptions(**told)
    from train.run import train

    train(options, outdir, overwrite=overwrite, progress=not quiet, say=_silent if quiet else click.echo)


def _silent(_: str) -> None:
    pass

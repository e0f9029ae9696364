"""The command line of `train`; the options are those of `train.options`."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from tiler.cli.main import INTERRUPTED
from tiler.cli.options import config_option
from tiler.errors import MissingError, OutOfMemoryError, UsageError
from train.flags import flags
from train.options import GROUPS, TrainOptions
from train.recipes import listing, with_recipe
from train.told import how_told

MOMENT: Final = 10.0
"""Seconds that the first process has to say what all refuse, before the others end."""


class TrainCommand(click.Command):
    """A command whose help has headings; of several processes that a launcher starts, the first speaks."""

    def main(self, *arguments: Any, **told: Any) -> Any:  # noqa: ANN401 - as click has it
        """What all processes refuse alike is said once; their exit codes are alike."""
        try:
            return super().main(*arguments, **told)
        except (click.UsageError, UsageError, MissingError) as error:
            if is_first() or isinstance(error, OutOfMemoryError):
                raise
            with suppress(KeyboardInterrupt):  # a launcher stops all as soon as one has ended
                time.sleep(MOMENT)
            return error.exit_code
        except click.Abort:
            if is_first():
                raise
            return INTERRUPTED

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section per group, in the order of the groups."""
        group_of = {f.name: how_told(f).group for f in fields(TrainOptions)}
        records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                records[group_of.get(parameter.name or "", GROUPS[-1])].append(record)
        for group, lines in records.items():
            with formatter.section(group):
                formatter.write_dl(lines)


def _list_presets(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print what can be named."""
    del param
    if value:
        click.echo(listing())
        ctx.exit()


@click.command(cls=TrainCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("outdir", type=click.Path(path_type=Path))
@flags([f.name for f in fields(TrainOptions)])
@click.option(
    "--list-presets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_presets,
    help="Names for --preset, and exit.",
)
@config_option
@click.option("--overwrite", is_flag=True, help="Remove an earlier run in OUTDIR first.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.pass_context
def main(ctx: click.Context, /, outdir: Path, overwrite: bool, quiet: bool, **told: Any) -> None:  # noqa: ANN401
    """Train a U-Net on your labels; run again to carry on.

    Data is --pair RASTER LABELS, cut by columns into training, validation and test parts, or whole images:
    --images and --masks, --data, --manifest; `tiler labels` shows it first. OUTDIR receives best/ and last/
    (checkpoints), log.csv, curve.png, report/, metrics.json and options.toml, which can be given as --config.
    Defaults are in brackets; --preset gives its own.

    Several GPUs: torchrun --standalone --nproc-per-node N -m train OUTDIR ..., or accelerate launch.
    """
    given = {name: value for name, value in told.items() if _is_given(ctx, name)}
    try:
        from train.run import train
    except ModuleNotFoundError as error:
        raise MissingError(f"training needs {error.name}; pip install 'gigatiler[train]'") from None
    say = _silent if quiet else click.echo
    options = with_recipe(given, say if is_first() else _silent)
    train(options, outdir, overwrite=overwrite, progress=not quiet, say=say)


def is_first() -> bool:
    """Whether this process is the only one, or the first of those that a launcher starts."""
    return os.environ.get("RANK", "0") == "0"


def _is_given(ctx: click.Context, name: str) -> bool:
    """Whether a person gave it, on the command line or in a file: only that overrides a recipe."""
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _silent(_: str) -> None:
    pass

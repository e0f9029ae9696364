"""The command line of `train`; the options are those of `train.options`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from tiler.cli.options import BANDS, NAMES, NUMBERS, config_option
from tiler.errors import MissingError
from train.options import GROUPS, TrainOptions
from train.recipes import listing, with_recipe
from train.told import how_told

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field

TYPES: Final = {
    "int": int,
    "float": float,
    "str": str,
    "tuple[int, ...]": BANDS,
    "tuple[float, ...]": NUMBERS,
    "tuple[str, ...]": NAMES,
}
"""How the text of an option is read, by the type of its field."""


class Grouped(click.Command):
    """A command whose help has headings."""

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


def every_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option per field of `TrainOptions`."""
    for field in reversed(fields(TrainOptions)):
        command = _option(field)(command)
    return command


def _option(field: Field[Any]) -> Callable[..., Any]:
    """Without a default, so that what was given can be told; the default is only shown."""
    shown = how_told(field)
    flag, kind = f"--{field.name.replace('_', '-')}", str(field.type).removesuffix(" | None")
    more: dict[str, Any] = {"help": shown.help + _default(field.default), "metavar": shown.metavar}
    if kind == "bool":
        return click.option(f"{flag}/--no-{flag[2:]}", default=None, **more)
    if kind.startswith("tuple[tuple["):
        return click.option(flag, nargs=2, multiple=True, **more)
    if shown.repeated:
        return click.option(flag, multiple=True, **more)
    return click.option(flag, type=click.Choice(shown.choices) if shown.choices else TYPES[kind], **more)


def _default(value: Any) -> str:  # noqa: ANN401 - of an option
    """A default as it is shown; nothing if there is nothing to show."""
    if value in (None, "", ()) or isinstance(value, bool):
        return ""
    values = value if isinstance(value, tuple) else (value,)
    return f"  [{','.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}]"


def _list_presets(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print what can be named."""
    del param
    if value:
        click.echo(listing())
        ctx.exit()


@click.command(cls=Grouped, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("outdir", type=click.Path(path_type=Path))
@every_option
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
    --images and --masks, --data, --manifest. OUTDIR receives best/ and last/ (checkpoints), log.csv,
    curve.png, metrics.json and options.toml. Defaults are in brackets; --preset gives its own.

    On several GPUs: torchrun --nproc-per-node N -m train OUTDIR ...
    """
    given = {name: value for name, value in told.items() if _is_given(ctx, name)}
    try:
        from train.run import train
    except ModuleNotFoundError as error:
        raise MissingError(f"training needs {error.name}; pip install 'gigatiler[train]'") from None
    options = with_recipe(given)
    train(options, outdir, overwrite=overwrite, progress=not quiet, say=_silent if quiet else click.echo)


def _is_given(ctx: click.Context, name: str) -> bool:
    """Whether a person gave it, on the command line or in a file: only that overrides a recipe."""
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _silent(_: str) -> None:
    pass

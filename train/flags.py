"""Options of the command line, made of the fields of `TrainOptions`, for all commands that have some."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import click

from tiler.cli.options import BANDS, NAMES, NUMBERS, Parsed
from train.options import TrainOptions
from train.told import how_told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from dataclasses import Field


class Several(Parsed):
    """Values of which there may be none: a configuration file says so by an empty list."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """As `Parsed` has it."""
        return () if value == [] else super().convert(value, param, ctx)


TYPES: Final = {
    "int": int,
    "float": float,
    "str": str,
    "tuple[int, ...]": BANDS,
    "tuple[float, ...]": Several(NUMBERS.name, NUMBERS.read),
    "tuple[str, ...]": NAMES,
}
"""How the text of an option is read, by the type of its field."""


def flags(names: Sequence[str]) -> Callable[..., Any]:
    """Give a command the options of these fields, in the order of the fields; what is not given is None."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(fields(TrainOptions)):
            command = _option(field)(command) if field.name in names else command
        return command

    return decorate


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
    if value in (None, "", ()) or value is False:
        return ""
    if value is True:
        return "  [on]"
    values = value if isinstance(value, tuple) else (value,)
    return f"  [{','.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}]"

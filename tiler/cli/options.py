"""The options of a run, declared once for every command that makes one."""

from __future__ import annotations

import difflib
import functools
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiler.errors import TilerError, UsageError
from tiler.options import (
    BLENDS,
    GRIDS,
    ON_ERRORS,
    OUTPUTS,
    TISSUES,
    TTAS,
    RunOptions,
    parse_bytes,
    parse_shard,
)
from tiler.reading import FILE
from tiler.vector.options import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable

    _ParamType = click.ParamType[Any]
else:
    # Older versions of click cannot be subscripted.
    _ParamType = click.ParamType


class Parsed(_ParamType):
    """A value that a function reads from text; its errors are usage errors."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self.read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read text; a configuration file gives numbers and lists as they are."""
        text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        try:
            return self.read(text)
        except (ValueError, ZeroDivisionError) as error:
            reason = str(error) if isinstance(error, TilerError) else f"{text!r} is not {self.name}"
            self.fail(reason, param, ctx)


def _number(text: str) -> float:
    return float(Fraction(text)) if "/" in text else float(text)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(","))


def _resolution(text: str) -> float | str:
    return text if text == "native" else _number(text)


def _nodata(text: str) -> float | str:
    return text if text == FILE else float(text)


NUMBER = Parsed("a number like 0.5", _number)
NUMBERS = Parsed("numbers like 1/255 or 0.5,0.4,0.3", _numbers)
BANDS = Parsed("band numbers like 4,3,2", lambda text: tuple(int(part) for part in text.split(",")))
NAMES = Parsed("names like water,land", lambda text: tuple(part.strip() for part in text.split(",")))
SIZE = Parsed("a size like 2GB", parse_bytes)
NODATA = Parsed("a number, or file", _nodata)
RESOLUTION = Parsed("metres per pixel, or native", _resolution)
SHARD = Parsed("a shard like 2/4", parse_shard)
EXISTING = click.Path(path_type=Path)


def _load_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Make the keys of a TOML file the defaults of this command's options."""
    del param
    if value is None:
        return
    from tiler.toml import read_toml

    values = read_toml(value)
    known = {p.name for p in ctx.command.params if isinstance(p, click.Option)} - {"config"}
    unknown = sorted(set(values) - known)
    if unknown:
        near = dict.fromkeys(name for key in unknown for name in difflib.get_close_matches(key, known, 2))
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"a key of the configuration {value} is an option, got {', '.join(unknown)}{hint}")
    options = {p.name: p for p in ctx.command.params if isinstance(p, click.Option)}
    for key, given in values.items():
        if not _fits(given, options[key]):
            raise UsageError(f"{key} in {value} is {_kind(options[key])}, got {given!r}")
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _fits(given: object, option: click.Option) -> bool:
    """Whether a value from TOML is of a kind that the option can be given on the command line."""
    if option.is_flag:
        return isinstance(given, bool)
    if option.multiple:
        return isinstance(given, list) and all(_is_one_of(item, option.nargs) for item in given)
    if isinstance(given, list):
        return isinstance(option.type, Parsed) and all(map(_is_plain, given))
    return _is_plain(given)


def _kind(option: click.Option) -> str:
    """What an option takes from TOML, in words."""
    if option.multiple:
        return 'a list like ["a", "b"]' if option.nargs == 1 else 'a list like [["a", "b"], ["c", "d"]]'
    if isinstance(option.type, Parsed):
        return "text, a number, or a list of these"
    return "true or false" if option.is_flag else "text or a number"


def _is_one_of(item: object, values: int) -> bool:
    """Whether it is what one use of an option gives."""
    if values == 1:
        return _is_plain(item)
    return isinstance(item, list) and len(item) == values and all(map(_is_plain, item))


def _is_plain(item: object) -> bool:
    return isinstance(item, (str, int, float)) and not isinstance(item, bool)


config_option = click.option(
    "--config",
    type=EXISTING,
    callback=_load_config,
    is_eager=True,
    expose_value=False,
    metavar="FILE",
    help="TOML file; every option is a key.",
)

_POLYGONS = (
    click.option(
        "--min-area", type=float, default=0, metavar="A", help="Leave out polygons under A m2 (slides: um2)."
    ),
    click.option(
        "--simplify", type=float, default=0, metavar="PX", help="Move boundaries by up to PX pixels."
    ),
    click.option("--background", is_flag=True, help="Polygons of class 0, too."),
)
_OPTIONS = (
    click.option(
        "--output", type=click.Choice(OUTPUTS), default="labels", show_default=True, help="What to write."
    ),
    click.option(
        "--blend",
        type=click.Choice(BLENDS),
        default="auto",
        show_default=True,
        help="auto: exact if the model allows it, else hann.",
    ),
    click.option("--tile", type=int, metavar="PX", help="Side of a tile, halo included."),
    click.option("--overlap", type=int, metavar="PX", help="Blended: overlap of tiles  [default: tile / 4]"),
    click.option("--halo", type=int, metavar="PX", help="Exact: what a core depends on, on each side."),
    click.option(
        "--tolerance",
        type=float,
        metavar="P",
        help="Exact but for errors of a probability up to P: measures a smaller halo.",
    ),
    click.option(
        "--tta",
        type=click.Choice(TTAS),
        default="none",
        show_default=True,
        help="Mean over views of each tile: flips (4), all (and quarter turns, 8).",
    ),
    click.option("--check-seams", is_flag=True, help="Compute tiles across seams again, and compare."),
    click.option("--stride", type=int, metavar="PX", help="The network's total down-sampling."),
    click.option("--batch", type=int, metavar="N", help="Tiles per call of the network."),
    click.option(
        "--memory", type=SIZE, metavar="SIZE", help="Budget, e.g. 2GB  [default: half of what is free]"
    ),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto, cpu, cuda[:N,M..] or openvino[:bf16].",
    ),
    click.option("--threads", type=int, metavar="N", help="Threads of the network  [default: one per core]"),
    click.option(
        "--resolution",
        type=RESOLUTION,
        metavar="M",
        help='Metres per pixel, or "native"  [default: the model\'s]',
    ),
    click.option("--mpp", type=NUMBER, metavar="UM", help="Of a slide: micrometres per pixel instead."),
    click.option("--level", type=int, metavar="N", help="Of a slide: a pyramid level, as it is."),
    click.option(
        "--assume-mpp", type=NUMBER, metavar="UM", help="Full-resolution mpp of a slide that does not say it."
    ),
    click.option(
        "--grid",
        type=click.Choice(GRIDS),
        default="auto",
        show_default=True,
        help="The output's pixel grid; auto: model, or source where whole pictures are resized.",
    ),
    click.option(
        "--bands",
        type=BANDS,
        metavar="N,N..",
        help="Band numbers in the model's order  [default: as it was trained]",
    ),
    click.option(
        "--nodata",
        type=NODATA,
        metavar="VALUE",
        help='Value of invalid pixels over what the file says, or "file"  [default: as it was trained]',
    ),
    click.option("--mask", metavar="FILE", help="Polygons or a raster; tiles outside are not computed."),
    click.option(
        "--tissue",
        type=click.Choice(TISSUES),
        default="auto",
        show_default=True,
        help="auto: the glass of slides is not computed.",
    ),
    click.option(
        "--tissue-threshold",
        type=float,
        metavar="V",
        help="Grey levels that tissue is darker than glass  [default: 12]",
    ),
    click.option(
        "--tissue-area", type=NUMBER, metavar="MM2", help="Of the smallest piece of tissue  [default: 0.0001]"
    ),
    click.option("--allow-vrt", is_flag=True, help="Open a VRT, which may name other local files."),
    click.option("--allow-remote", is_flag=True, help="Fetch SOURCE from an http(s) address; no sidecars."),
    click.option(
        "--on-error",
        type=click.Choice(ON_ERRORS),
        default="fail",
        show_default=True,
        help="Damaged blocks of the source: stop, or nodata and exit code 1.",
    ),
    click.option(
        "--scale", type=NUMBERS, metavar="X[,X..]", help="Raw pixels are multiplied by this, e.g. 1/255."
    ),
    click.option("--mean", type=NUMBERS, metavar="X[,X..]", help="Then this is subtracted."),
    click.option("--std", type=NUMBERS, metavar="X[,X..]", help="Then it is divided by this."),
    click.option(
        "--activation", metavar="NAME", help="The network returns logits, softmax, sigmoid or none."
    ),
    click.option("--classes", type=NAMES, metavar="A,B..", help="Name of each class."),
    click.option(
        "--threshold", type=float, metavar="P", help="Sigmoid probability of the class  [default: 0.5]"
    ),
    click.option("--vector", type=click.Choice(FORMATS), help="Polygons beside the output, in this format."),
    *_POLYGONS,
    click.option(
        "--shard", type=SHARD, metavar="I/N", help="Part I of N; the last to be done finishes the output."
    ),
    click.option(
        "--scheduler",
        metavar="WHERE",
        help="Compute on Dask workers: local:N, or a scheduler's tcp:// or tls:// address.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace an output, or a run of other options."),
    config_option,
)
_FIELDS = frozenset(f.name for f in fields(RunOptions))


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as one `RunOptions` argument named ``options``."""

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:  # noqa: ANN401
        given = {name: values.pop(name) for name in _FIELDS & set(values)}
        return command(options=RunOptions(**given), **values)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def polygon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add those of polygons but for their format."""
    for option in reversed(_POLYGONS):
        command = option(command)
    return command


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--log`` and ``--quiet``."""
    command = click.option("--quiet", is_flag=True, help="Print nothing but errors.")(command)
    return click.option(
        "--log",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        help="What goes to stderr.",
    )(command)

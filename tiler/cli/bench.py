"""``tiler bench``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiler.cli.options import run_options
from tiler.errors import MissingError, UsageError

if TYPE_CHECKING:
    from tiler.bench import KernelSpeed, Speed
    from tiler.options import RunOptions

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("source", required=False)
@click.argument("model", type=FILE, required=False)
@click.option(
    "--side", type=click.IntRange(64), default=4096, show_default=True, help="Pixels of the square."
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="The median counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--chart", type=FILE, metavar="FILE.png", help="Draw where the time goes.")
@run_options
def bench(
    source: str | None,
    model: Path | None,
    *,
    side: int,
    repeats: int,
    as_json: bool,
    chart: Path | None,
    options: RunOptions,
) -> None:
    """How fast segment is here, and where the time goes.

    The inner loops alone, against numpy and against the memory's bandwidth. With SOURCE and MODEL also whole
    runs on a square from the middle of SOURCE, in turn with a plain loop over tiles without overlap, the
    floor that ignores seams.
    """
    from tiler.bench import kernel_speeds, run_speed

    if (source is None) != (model is None) or (chart and source is None):
        raise UsageError("SOURCE and MODEL go together, and --chart needs them; see tiler bench --help")
    if chart and not chart.parent.is_dir():
        raise UsageError(f"--chart is a file in a folder that is there, got {chart}")
    speed = None
    if source is not None and model is not None:
        speed = run_speed(source, model, options, side, repeats, lambda line: click.echo(line, err=True))
    loops = list(kernel_speeds())
    if as_json:
        click.echo(json.dumps(_values(speed, loops)))
    else:
        _print(speed, loops)
    if chart and speed:
        _draw(speed, chart)


def _values(speed: Speed | None, loops: list[KernelSpeed]) -> dict[str, Any]:
    return {"run": None if speed is None else asdict(speed), "kernels": [asdict(loop) for loop in loops]}


def _print(speed: Speed | None, loops: list[KernelSpeed]) -> None:
    from tiler.cli.tables import print_pairs, print_table
    from tiler.memory import in_words

    if speed is not None:
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in speed.stages.items())
        print_pairs(
            [
                ("speed", f"{speed.megapixels:.3f} Mpx/s, {speed.startup:.1f} s to start not counted"),
                ("plain loop", f"{speed.floor:.3f} Mpx/s without overlap"),
                ("ratio", f"{speed.ratio:.3f}, for {speed.waste:.2f} times the pixels"),
                ("network", f"{speed.network:.1%} of the time"),
                ("busy", stages),
                ("bottleneck", speed.bottleneck),
                ("memory", in_words(speed.peak_memory)),
            ]
        )
        click.echo()
    print_table(
        ("kernel, one core", "Mpx/s", "x numpy", "of bandwidth"),
        [
            (loop.name, f"{loop.megapixels:.0f}", f"{loop.times_numpy:.1f}", f"{loop.bandwidth:.2f}")
            for loop in loops
        ],
    )


def _draw(speed: Speed, path: Path) -> None:
    """Bars of the stages, as a picture."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingError(f"--chart needs {error.name}; pip install 'gigatiler[train]'") from None
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(speed.stages), list(speed.stages.values()), color="#3b6ea5")
    axes.invert_yaxis()
    axes.set_xlabel("busy, seconds (stages overlap)")
    axes.set_title(f"{speed.megapixels:.2f} Mpx/s, {speed.ratio:.2f} of a plain loop without overlap")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write the picture {path}: {error}") from None

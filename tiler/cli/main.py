"""Commands by name, loaded when called, so that ``--help`` answers at once; every error in one line.

Exit codes: 0 done; 1 some inputs failed; 2 bad usage or bad input; 3 the environment lacks something that
was asked for; 4 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import click

from tiler import __version__
from tiler.errors import MissingError, TilerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

COMMANDS: Final = {
    "segment": ("tiler.cli.segment:segment", "Segment one raster."),
    "batch": ("tiler.cli.batch:batch", "Segment an archive: files, folders, globs, lists."),
    "plan": ("tiler.cli.segment:plan", "Say what segment would do: tiles, memory, time."),
    "inspect": ("tiler.cli.inspect:inspect", "What a model or a raster says about itself."),
    "polygons": ("tiler.cli.polygons:polygons", "A label raster as polygons, for GIS or QuPath."),
    "picture": ("train.report.picture_command:picture", "A map drawn on its image."),
    "compare": ("tiler.cli.compare:compare", "Agreement of two label rasters."),
    "evaluate": ("tiler.cli.compare:evaluate", "IoU, Dice... of a prediction against ground truth."),
    "bench": ("tiler.cli.bench:bench", "How fast it is here, and where the time goes."),
    "labels": ("train.data.command:labels", "What labels hold, before training on them."),
    "augment": ("train.data.copies_command:augment", "Write augmented copies of labelled images."),
    "train": ("train.cli:main", "Train a U-Net on your labels."),
    "export": ("export.cli:main", "Turn a trained checkpoint into ONNX."),
    "demo": ("tiler.cli.demo:demo", "The shipped scene and model, end to end."),
    "doctor": ("tiler.cli.doctor:doctor", "Versions, devices, what is missing and how to get it."),
}
"""Where each command lives, and its line in the help."""
INTERRUPTED: Final = 4
NO_MEMORY: Final = 3
STOPS: Final = (signal.SIGINT, signal.SIGTERM)


class Refusal(click.ClickException):
    """One of our errors on its way out through click: also `rio tiler` prints one line."""

    def __init__(self, error: TilerError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc] # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line on stderr."""
        del file
        _fail(self.message, self.exit_code)


class Commands(click.Group):
    """A group that imports a command when it is called."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run the command; our errors become click's."""
        try:
            return super().invoke(ctx)
        except TilerError as error:
            raise Refusal(error) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it, or None if there is no such command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise MissingError(
                f"`tiler {cmd_name}` needs {error.name}; pip install 'gigatiler[train]'"
            ) from None
        assert isinstance(command, click.Command)  # noqa: S101 - a typo in COMMANDS, not bad input
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tiler")
def tiler() -> None:
    """Segment images too large for memory.

    \b
    tiler demo                             see it work
    tiler plan SCENE MODEL                 what it would take
    tiler segment SCENE MODEL OUTPUT.tif   do it
    """  # noqa: D301 - click wants the character itself


def run_command(
    command: click.Command, arguments: Sequence[str] | None = None, name: str | None = None
) -> int:
    """Run a command and return its exit code; whatever goes wrong is said in one line on stderr."""
    try:
        # click returns the exit code that a command asked for, else what it returned: None.
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        hint = (
            f" ({error.ctx.command_path} --help lists them)"
            if isinstance(error, click.NoSuchOption) and error.ctx
            else ""
        )
        return _fail(error.format_message() + hint, 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code if isinstance(error, Refusal) else 2)
    except TilerError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted; run the same command again to carry on", INTERRUPTED)
    except MemoryError as error:
        return _fail(
            f"out of memory ({str(error) or 'no allocation'}); free some, or lower --memory", NO_MEMORY
        )
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    # File names may hold bytes that are no text.
    text = message.encode(errors="backslashreplace").decode()
    click.echo("error: " + " ".join(text.split()), err=True)
    return code


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Stop cleanly."""
    del number, frame
    for stop in STOPS:
        signal.signal(stop, _leave)
    raise KeyboardInterrupt


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Asked a second time: stop at once, which loses no stored block either."""
    del number, frame
    os.write(sys.stderr.fileno(), b"error: stopped at once; run the same command again to carry on\n")
    os._exit(INTERRUPTED)


def run_as_program(command: click.Command, name: str) -> NoReturn:
    """Run a command as all that this process does: it stops cleanly, and ends with its exit code."""
    for stop in STOPS:
        signal.signal(stop, _interrupt)
    # One line per error: GDAL's and rasterio's own remarks are not for users.
    os.environ.setdefault("CPL_LOG", os.devnull)
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    sys.exit(run_command(command, name=name))


def main() -> NoReturn:
    """The ``tiler`` command."""
    run_as_program(tiler, "tiler")

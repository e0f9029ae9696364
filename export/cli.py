"""The command line of `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import click

from tiler.cli.options import BANDS
from tiler.errors import MissingError, UsageError

if TYPE_CHECKING:
    from export.reduce import Evidence
    from tiler.options import RunOptions
    from tiler.ports import Raster
    from tiler.spec import ModelSpec

PRECISIONS: Final = ("fp32", "fp16", "int8")
PATH: Final = click.Path(path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--raster",
    type=PATH,
    required=True,
    help="Real pixels to compare OUT and SOURCE on, e.g. ones that were trained on.",
)
@click.option("--bands", type=BANDS, metavar="N,N..", help="Band numbers, from 1.  [default: all but alpha]")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="Largest difference of an fp32 file from its checkpoint, in standard deviations of the logits.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="int8 is for CPUs, fp16 for GPUs: a CPU computes it as fp32 and gains nothing.",
)
@click.option(
    "--calibrate",
    type=PATH,
    multiple=True,
    metavar="RASTER",
    help="int8: learn the range of values from tiles of this; repeatable.  [default: --raster]",
)
@click.option("--labels", type=PATH, metavar="MASK", help="fp16, int8: the true classes of --raster.")
@click.option(
    "--least-agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="fp16, int8: least share of labels that are as in fp32.  [default: 0.999]",
)
@click.option(
    "--most-loss",
    type=click.FloatRange(min=0),
    metavar="POINTS",
    help="With --labels, fewer may agree if mean IoU falls by at most this.  [default: 0.5]",
)
@click.option(
    "--head",
    metavar="N|average",
    help="Of a UNet++ trained with deep supervision: prune it to its N-th head, or average all.  "
    "[default: the last]",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def main(
    source: Path,
    out: Path,
    *,
    raster: Path,
    bands: tuple[int, ...] | None,
    tolerance: float,
    precision: str,
    calibrate: tuple[Path, ...],
    labels: Path | None,
    least_agreement: float | None,
    most_loss: float | None,
    head: str | None,
    quiet: bool,
) -> None:
    """Export SOURCE to the ONNX file OUT: a checkpoint folder such as RUN/best, or an fp32 ONNX file.

    OUT is written only if it computes what SOURCE does, on real pixels: in fp32 the same scores, also at
    sizes that it was not exported with; in fp16 and int8 the same labels, or with --labels as good ones, on
    tiles that it was not calibrated on.
    """
    if not out.parent.is_dir() or out.is_dir():
        raise UsageError(f"OUT is a file in a folder that is there, got {out}")
    _check_options(precision, calibrate, labels, least_agreement, most_loss)
    pixels = RealPixels(raster, bands, labels, calibrate or (raster,))
    network = Source(source, head, tolerance)
    try:
        if precision == "fp32":
            found = _export(network, out, pixels)
        else:
            found = _reduce(network, out, pixels, precision, (least_agreement, most_loss))
    except ModuleNotFoundError as error:
        raise MissingError(f"exporting needs {error.name}; pip install 'gigatiler[train]'") from None
    if not quiet:
        click.echo(f"{found}\nwrote {out}, {out.stat().st_size / 1e6:.2f} MB")


def _check_options(
    precision: str,
    calibrate: tuple[Path, ...],
    labels: Path | None,
    least_agreement: float | None,
    most_loss: float | None,
) -> None:
    """Refuse options that would be without effect."""
    if precision == "fp32" and (labels, least_agreement, most_loss) != (None, None, None):
        raise UsageError(
            "--labels, --least-agreement and --most-loss are for fp16 and int8, got --precision fp32"
        )
    if precision != "int8" and calibrate:
        raise UsageError(f"--calibrate is for --precision int8, got --precision {precision}")
    if most_loss is not None and labels is None:
        raise UsageError("--most-loss is a loss of IoU and needs the truth; pass --labels")


@dataclass(frozen=True, slots=True)
class RealPixels:
    """The files that SOURCE and OUT are compared on."""

    raster: Path
    bands: tuple[int, ...] | None
    labels: Path | None
    calibration: tuple[Path, ...]

    def open(self, spec: ModelSpec) -> Raster:
        """The raster to compare on."""
        from tiler.open import open_for_model

        return open_for_model(self.raster, spec, self._options)

    @property
    def _options(self) -> RunOptions:
        from tiler.options import RunOptions

        return RunOptions(bands=self.bands)

    def evidence(self, spec: ModelSpec) -> Evidence:
        """What a reduced network is calibrated on and judged by."""
        from export.reduce import Evidence
        from tiler.open import open_for_model, open_labels

        raster = self.open(spec)
        return Evidence(
            raster,
            None if self.labels is None else open_labels(self.labels, raster.info),
            tuple(open_for_model(path, spec, self._options) for path in self.calibration),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The network that is exported."""

    path: Path
    """A checkpoint's folder, or an ONNX file."""
    head: str | None
    """Of a checkpoint of UNet++; None: the last."""
    tolerance: float

    def __post_init__(self) -> None:
        if self.head is not None and self.path.is_file():
            raise UsageError(f"--head is of a checkpoint folder, got a file: {self.path}")


def _export(source: Source, out: Path, pixels: RealPixels) -> str:
    """Write a checkpoint as fp32; the table that proves it."""
    from export.onnx import export_onnx
    from export.parity import HEADER
    from train.checkpoint import load_checkpoint
    from train.models.nested import with_head

    if source.path.is_file():
        raise UsageError(f"SOURCE is a checkpoint folder for --precision fp32, got a file: {source.path}")
    net, spec = load_checkpoint(source.path)
    if source.head is not None:
        net = with_head(net, source.head)
    found = export_onnx(net, spec, pixels.open(spec), out, source.tolerance)
    return "\n".join([HEADER, *map(str, found)])


def _reduce(
    source: Source,
    out: Path,
    pixels: RealPixels,
    precision: str,
    limits: tuple[float | None, float | None],
) -> str:
    """Write fp16 or int8, of a checkpoint by way of fp32; the tables that prove it."""
    from export.gate import Limits
    from export.reduce import load_source, reduce_onnx

    with TemporaryDirectory(prefix="gigatiler-") as folder:
        path, tables = source.path, []
        if not path.is_file():
            path = Path(folder) / "fp32.onnx"
            tables.append(_export(source, path, pixels))
        elif out.exists() and out.samefile(path):
            raise UsageError(f"OUT is another file than SOURCE, got {out} for both")
        model = load_source(path)
        verdict = reduce_onnx(model, precision, pixels.evidence(model.spec), Limits.of(*limits), out)
        size = f"from {path.stat().st_size / 1e6:.2f} MB of fp32"
    return "\n".join([*tables, str(verdict), size])

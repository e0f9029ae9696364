"""``tiler inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tiler.backends.graph import Graph
    from tiler.spec import ModelSpec

ONNX_SUFFIX = ".onnx"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--allow-vrt", is_flag=True, help="Open a VRT, which may name other local files.")
def inspect(file: Path, allow_vrt: bool) -> None:
    """What a model (.onnx) or a raster says about itself, and what it leaves open."""
    if file.suffix.lower() == ONNX_SUFFIX:
        _inspect_model(file)
    else:
        _inspect_raster(file, allow_vrt)


def _inspect_model(path: Path) -> None:
    from tiler.backends.graph import bytes_per_pixel, read_graph
    from tiler.cli.tables import print_pairs

    graph, content = read_graph(path)
    print_pairs(
        [
            ("model", f"{path}, {len(content):,} bytes"),
            ("input", f"{graph.input_name}: {graph.dtype}, {_size(graph)} (batch, bands, rows, columns)"),
            ("memory", f"about {bytes_per_pixel(graph):.0f} bytes per pixel of a tile"),
            *(_told(graph.spec) if graph.spec else _untold(graph)),
        ]
    )


def _size(graph: Graph) -> str:
    free = "any" if graph.stride is None else f"{graph.stride}n"
    rows, columns = (free if n is None else n for n in graph.shape[1:])
    return f"{graph.shape[0] or 'any'} x {graph.channels} x {rows} x {columns}"


def _untold(graph: Graph) -> list[tuple[str, object]]:
    stride = (
        "not known: pass --stride" if graph.stride is None else f"{graph.stride} (from the input's shape)"
    )
    return [("stride", stride), ("says of itself", "nothing: pass --scale, --activation, --classes")]


def _told(spec: ModelSpec) -> list[tuple[str, object]]:
    return [
        ("bands", ", ".join(spec.bands)),
        ("classes", ", ".join(c.name for c in spec.classes)),
        ("returns", spec.activation),
        ("scale", _numbers(spec.scale)),
        ("mean", _numbers(spec.mean)),
        ("std", _numbers(spec.std)),
        ("stride", spec.stride or "not known"),
        ("halo", "not known" if spec.halo is None else f"{spec.halo} px"),
        ("shift-equivariant", "yes" if spec.exact else "not known to be"),
        ("trained at", "any resolution" if spec.resolution is None else f"{spec.resolution:g} m per pixel"),
        ("attribution", spec.attribution or "none"),
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values) or "none"


def _inspect_raster(path: Path, allow_vrt: bool) -> None:
    from tiler.cli.tables import print_pairs
    from tiler.open import open_raster

    info = open_raster(path, allow_vrt=allow_vrt).info
    ground = "not known" if info.ground is None else "{:.4g} x {:.4g} m per pixel".format(*info.ground)
    print_pairs(
        [
            ("raster", path),
            ("size", f"{info.width} x {info.height} px, {info.width * info.height / 1e6:.1f} Mpx"),
            ("bands", f"{info.bands} of {info.dtype} (alpha not counted)"),
            ("CRS", info.crs.to_string()[:60] if info.crs else "none"),
            ("on the ground", ground),
        ]
    )

"""tiler segment on whole slides: against its own network alone, and against tiatoolbox.

    python benchmarks/slides.py SLIDES [--side 30000] [--small 12000] [--repeats 3] [--markdown FILE]

SVS pyramids in JPEG are made of the pixels of ``SLIDES/CMU-1-Small-Region.svs``, which they repeat, and are
segmented with the demo's network at level 0: by us from file to verified file, by the network alone on the
same pixels, read and normalised off the clock, and, the smaller one, by tiatoolbox with the same weights,
once. Repeats are interleaved. Then the part of each real slide that is left out as glass. tiatoolbox gets an
environment of its own, made once and kept. Linux only.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import openslide
import tifffile
import torch
from contestants import BASE, GIGATILER, RUNTIME, TORCH, Case, Peer
from imagecodecs import jpeg8_encode
from machine import describe
from onnx import helper, numpy_helper
from peers import TILE, Bench, EnvironmentFailure, Network, RunError, save_program, tell

from tiler.demo import MODEL
from tiler.errors import InputError
from tiler.memory import in_words
from tiler.open import open_raster
from tiler.options import RunOptions
from tiler.spec import METADATA_KEY, ModelSpec
from tiler.tissue import open_tissue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SOURCE = "CMU-1-Small-Region.svs"
REPEATED = (2880, 2160)
"""Height and width of what is repeated: whole tiles, also where every fourth pixel is left."""
SIDE = 240
"""Of a tile, as scanners of Aperio write them."""
STEPS = (1, 4, 16)
"""Of the pyramid's levels."""
QUALITY = 70
ASSUMED = 0.5
"""Micrometres per pixel of pictures that do not say theirs."""
BARE = Peer("bare", "the network alone", "-", RUNTIME, "run_bare_network.py", "Nothing is read or written.")
TIATOOLBOX = Peer(
    "tiatoolbox",
    "tiatoolbox",
    "BSD-3-Clause",
    TORCH,
    "run_tiatoolbox.py",
    "SemanticSegmentor on patches of 512 px that overlap by a quarter; writes zarr.",
    (
        *BASE,
        "SimpleITK",
        "dask",
        "defusedxml",
        "fsspec",
        "glymur",
        "huggingface-hub",
        "imagecodecs",
        "joblib",
        "matplotlib",
        "numba",
        "opencv-python-headless>=4.11.0.86",
        "openslide-bin>=4.0.1",
        "openslide-python>=1.4.3",
        "pandas",
        "psutil",
        "pydicom",
        "pyyaml",
        "requests",
        "safetensors",
        "scikit-image",
        "scikit-learn",
        "shapely",
        "tqdm",
        "transformers",
        "umap-learn",
        "universal-pathlib",
        "wsidicom",
        "zarr>=3.1.6",
    ),
    ("tiatoolbox==2.1.3", "torchvision==0.28.0", "timm==1.0.27"),
    writes="zarr",
)
DEFAULT = {"tissue": "off", "memory": None}
"""All pixels; the budget is half of what is free."""
CASES = (
    Case("gigatiler, exact", GIGATILER, 0, "halo", {**DEFAULT, "blend": "exact"}),
    Case("the network alone", BARE, 0, "none"),
    Case("gigatiler, within 1e-3", GIGATILER, 0, "halo", {**DEFAULT, "tolerance": 1e-3}),
    Case("tiatoolbox", TIATOOLBOX, TILE // 4, "25 %", {"tissue": False}),
)


def make_slide(path: Path, source: Path, side: int) -> None:
    """A pyramid of ``side`` squared pixels; each distinct tile is compressed once."""
    height, width = REPEATED
    with openslide.OpenSlide(source) as slide:
        rgb_HWC = np.asarray(slide.read_region((0, 0), 0, (width, height)))[..., :3]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in STEPS:
            size = side // step
            count = -(-size // SIDE)
            file.write(
                repeated_tiles(shrunk(rgb_HWC, step), count),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(SIDE, SIDE),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                subfiletype=int(step > 1),
                description=f"Aperio Image Library v12\n{size}x{size} ({SIDE}x{SIDE})|MPP = 0.499",
                metadata=None,
                software="",
            )


def shrunk(rgb_HWC: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Means of squares."""
    height, width = rgb_HWC.shape[0] // step, rgb_HWC.shape[1] // step
    return np.rint(rgb_HWC.reshape(height, step, width, step, 3).mean(axis=(1, 3))).astype(np.uint8)


def repeated_tiles(rgb_HWC: NDArray[np.uint8], count: int) -> Iterator[bytes]:
    """Compressed tiles, row by row, of a picture that is repeated without end."""
    # So many tiles until their place in the picture is the same again.
    rows, columns = (math.lcm(n, SIDE) // SIDE for n in rgb_HWC.shape[:2])
    whole_HWC = np.tile(rgb_HWC, (rows * SIDE // rgb_HWC.shape[0], columns * SIDE // rgb_HWC.shape[1], 1))
    tiles = [
        [
            jpeg8_encode(
                np.ascontiguousarray(whole_HWC[y : y + SIDE, x : x + SIDE]), QUALITY, subsampling="420"
            )
            for x in range(0, columns * SIDE, SIDE)
        ]
        for y in range(0, rows * SIDE, SIDE)
    ]
    return (tiles[row % rows][column % columns] for row in range(count) for column in range(count))


class Demo(torch.nn.Module):
    """The demo's network in PyTorch: the nodes of its graph, one after the other."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        super().__init__()
        self.nodes = [
            (n, {a.name: helper.get_attribute_value(a) for a in n.attribute}) for n in proto.graph.node
        ]
        self.names = proto.graph.input[0].name, proto.graph.output[0].name
        for weight in proto.graph.initializer:
            self.register_buffer(slot(weight.name), torch.from_numpy(numpy_helper.to_array(weight).copy()))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores."""
        values = {self.names[0]: pixels}
        for node, how in self.nodes:
            given = [values[n] if n in values else getattr(self, slot(n)) for n in node.input]
            values[node.output[0]] = OPERATORS[node.op_type](given, how)
        return values[self.names[1]]


def slot(name: str) -> str:
    """A name that a module can have."""
    return "w_" + "".join(c if c.isalnum() else "_" for c in name)


OPERATORS = {
    "Conv": lambda x, how: torch.nn.functional.conv2d(*x, stride=how["strides"], padding=how["pads"][:2]),
    "ConvTranspose": lambda x, how: torch.nn.functional.conv_transpose2d(*x, stride=how["strides"]),
    "MaxPool": lambda x, how: torch.nn.functional.max_pool2d(*x, how["kernel_shape"], how["strides"]),
    "Relu": lambda x, _: torch.relu(*x),
    "Concat": lambda x, how: torch.cat(x, dim=how["axis"]),
}


def demo_network(folder: Path) -> Network:
    """The same weights in both forms, which are compared."""
    proto = onnx.load(MODEL)
    spec = ModelSpec.from_json(next(p.value for p in proto.metadata_props if p.key == METADATA_KEY))
    net, program = Demo(proto), folder / "demo.pt2"
    save_program(net, program, len(spec.bands), spec.stride or 1)
    pixels_NCHW = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    import onnxruntime as ort

    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {proto.graph.input[0].name: pixels_NCHW})
    with torch.inference_mode():
        found = net(torch.from_numpy(pixels_NCHW)).numpy()
    if np.abs(found - expected).max() > 1e-3:
        raise SystemExit("the demo's network is another one in PyTorch")
    return Network(MODEL, program, spec)


def measured(
    bench: Bench, network: Network, slide: Path, repeats: int, cases: tuple[Case, ...]
) -> list[dict[str, Any]]:
    """Each case with its runs, or with why it has none."""
    rows: list[dict[str, Any]] = [{"case": case, "runs": [], "failure": ""} for case in cases]
    for turn in range(repeats):
        for row in rows:
            case = row["case"]
            if row["failure"] or (turn and case.peer is TIATOOLBOX):
                continue
            try:
                row["runs"].append(bench.run(case, network, slide))
                tell(f"{case.title}: {row['runs'][-1]['seconds']:.1f} s")
            except (RunError, EnvironmentFailure) as error:
                row["failure"] = str(error)
                tell(f"{case.title}: FAILED, {error}")
    return rows


def speed_table(rows: list[dict[str, Any]], pixels: int) -> list[str]:
    """Megapixels of the slide per second."""
    bare = [run["seconds"] for row in rows if row["case"].peer is BARE for run in row["runs"]]
    lines = [
        "| | runtime | runs | Mpx/s, median (least to most) | of the network alone | peak memory |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        case, seconds = row["case"], [run["seconds"] for run in row["runs"]]
        start = f"| {case.title} | {case.peer.runtime} "
        if not seconds:
            lines.append(f"{start}| - | failed: {row['failure']} | - | - |")
            continue
        speeds = sorted(pixels / s / 1e6 for s in seconds)
        share = f"{median(bare) / median(seconds):.3f}" if bare else "-"
        peak = in_words(max(run["peak_memory"] for run in row["runs"]))
        lines.append(
            f"{start}| {len(seconds)} | **{median(speeds):.3f}** ({speeds[0]:.3f} to {speeds[-1]:.3f}) "
            f"| {share} | {peak} |"
        )
    return lines


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What is to be known of a row, with versions."""
    lines = []
    for row in rows:
        said = [row["case"].peer.note, *(row["runs"][0]["notes"] if row["runs"] else [])]
        versions = row["runs"][0]["versions"] if row["runs"] else {}
        named = ", ".join(f"{name} {number}" for name, number in versions.items())
        lines.append(f"- {row['case'].title}: {' '.join(said)} {named}")
    return lines


def glass_table(folder: Path) -> list[str]:
    """The part of each real slide that is not computed."""
    lines = ["| slide | px | um per px | left out as glass |", "|---|--:|--:|--:|"]
    for path in sorted(folder.iterdir()):
        try:
            told = None if open_raster(path).info.ground else ASSUMED
        except InputError:
            continue  # a text
        raster = open_raster(path, assume_mpp=told)
        tissue = open_tissue(raster, raster.info, RunOptions(assume_mpp=told))
        if tissue is not None and raster.info.ground is not None:
            size, mpp = f"{raster.info.width} x {raster.info.height}", raster.info.ground[0] * 1e6
            lines.append(f"| {path.name} | {size} | {mpp:.3g} | {1 - tissue.facts()['share']:.1%} |")
    return lines


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slides", type=Path, help="a folder of real slides")
    parser.add_argument("--side", type=int, default=30_000, help="of the slide that is made")
    parser.add_argument("--small", type=int, default=12_000, help="of the one for tiatoolbox too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=4 * 3600, help="seconds that one run may take")
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--environments", type=Path, default=caches / "gigatiler-peers")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    return parser.parse_args()


def main() -> None:
    """Measure, write and print."""
    options = parse()
    told = f"--side {options.side} --small {options.small} --repeats {options.repeats}"
    page = [
        "# Slides",
        "",
        f"`python benchmarks/slides.py SLIDES {told}`, {datetime.now(UTC).date()}. {describe()}.",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder, options.environments, options.threads, options.timeout)
        network = demo_network(folder)
        for side, cases in ((options.side, CASES[:-1]), (options.small, CASES)):
            slide = folder / "slide.svs"
            make_slide(slide, options.slides / SOURCE, side)
            rows = measured(bench, network, slide, options.repeats, cases)
            size = in_words(slide.stat().st_size)
            made = (
                f"An SVS of {side} x {side} px (JPEG, levels of 1, 4 and 16; {size}), the demo's network at "
                f"level 0, {options.threads} threads."
            )
            page += ["", made, "", *speed_table(rows, side**2)]
    page += [
        "",
        *notes(rows),
        "",
        f"Glass, of real slides; {ASSUMED} um per px is assumed of those that do not say theirs.",
        "",
        *glass_table(options.slides),
    ]
    text = "\n".join(page) + "\n"
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

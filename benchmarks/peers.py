"""tiler segment beside other tools: speed, memory and labels, each in its own environment, in one run.

    python benchmarks/peers.py SCENE RUN/best [--side 4096] [--repeats 5] [--markdown FILE] [--chart FILE.png]

A square is cut from the scene, and every tool segments it with the same weights, once as ONNX, once as a
program of torch.export; repeats are interleaved. Then a free network (one 1x1 convolution) on squares of
several sizes, which shows the engine alone and how its memory grows, and a network that returns a constant,
which shows what blending makes of it. Environments are made once and kept. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import rasterio
import torch
from affine import Affine
from contestants import (
    RUNNERS,
    WHOLE_IMAGE,
    Case,
    EnvironmentFailure,
    cases,
    python_of,
)
from machine import describe
from onnx import TensorProto, helper, numpy_helper
from peers_page import Measured, Page, chart, markdown
from rasterio.windows import Window
from scenes import make_scene
from torch.export import Dim

from tiler.options import RunOptions
from tiler.spec import METADATA_KEY, ModelSpec, default_classes
from train.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
TILE = 512
PLACES = ("--environments", "--json", "--markdown", "--chart")
"""Options that say where, not what."""
CORE = ("gigatiler", "floor", "monai")
BATCH = 4
"""For tools that take one."""
CONSTANT = (-1.7, 0.3)
"""What the constant network returns: no powers of two, which floats would blend without rounding."""
CONSTANT_SIDES = (1000, 1300)
"""Of the image it is given: no multiple of anything."""
WRITTEN = "labels.npy", "labels.tif", "scores.tif"


class RunError(Exception):
    """A tool ended without a result."""


@dataclass(frozen=True, slots=True)
class Network:
    """One set of weights, as every tool wants it."""

    graph: Path
    program: Path
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class Bench:
    """What is the same for all runs."""

    folder: Path
    """Where all that is made here lies."""
    environments: Path
    threads: int
    seconds: float
    """A run that takes longer is ended."""

    def run(self, case: Case, network: Network, scene: Path, task: str = "labels") -> dict[str, Any]:
        """One child process.

        Raises
        ------
        RunError, EnvironmentFailure
            with the reason in one line.
        """
        python = python_of(case.peer, self.environments)
        output = self.folder / "output"
        output.mkdir(exist_ok=True)
        for name in WRITTEN:
            (output / name).unlink(missing_ok=True)
        job = json.dumps(self.job(case, network, scene, task) | {"output": str(output)})
        command = [str(python), str(RUNNERS / case.peer.runner), job]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=self.seconds,
                check=False,
                cwd=self.folder,
                env=self.surroundings(case),
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"took more than {self.seconds:.0f} s") from None
        return result_of(done)

    def job(self, case: Case, network: Network, scene: Path, task: str) -> dict[str, Any]:
        """What the runner is told."""
        spec = network.spec
        bands = len(spec.bands)
        return {
            "task": task,
            "scene": str(scene),
            "network": str(network.program),
            "graph": str(network.graph),
            "classes": len(spec.classes),
            "scale": spec.scale or [1.0] * bands,
            "mean": spec.mean or [0.0] * bands,
            "std": spec.std or [1.0] * bands,
            "threads": self.threads,
            "tile": TILE,
            "overlap": case.overlap,
            "batch": BATCH,
            "expected": CONSTANT,
            "options": case.options,
        }

    def surroundings(self, case: Case) -> dict[str, str]:
        """Environment variables: this repository is on nobody's path but ours."""
        kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
        ours = {"PYTHONPATH": str(ROOT)} if case.peer.ours else {}
        return {**kept, **ours, "OMP_NUM_THREADS": str(self.threads)}


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The line of JSON that a runner prints last; tools may print before it."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    if done.returncode < 0:
        raise RunError(f"ended by signal {-done.returncode}")
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no word"]
    raise RunError(f"exit code {done.returncode}: {said[-1][:300]}")


def cut_scene(raster: Path, path: Path, side: int, corner: tuple[int, int], bands: int) -> Path:
    """A square of the raster as a tiled GeoTIFF without compression, so that nobody waits for a decoder."""
    left, top = corner
    with rasterio.open(raster) as source:
        if left + side > source.width or top + side > source.height:
            raise SystemExit(f"{raster} is {source.width} x {source.height} px: no {side} px at {corner}")
        window = Window(left, top, side, side)
        raw_CHW = source.read(list(range(1, bands + 1)), window=window)
        transform = source.window_transform(window)
        profile = {"crs": source.crs, "transform": transform, "count": bands, "dtype": raw_CHW.dtype}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, height=side, width=side, **profile) as target:
        target.write(raw_CHW)
    return path


def noise(path: Path) -> Path:
    """An image for the constant network; no two tiles of it are alike, and none is empty."""
    height, width = CONSTANT_SIDES
    raw_CHW = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    size = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:3857", "transform": Affine(0.5, 0, 0, 0, -0.5, 0)}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **size, **place) as target:
        target.write(raw_CHW)
    return path


def trained(checkpoint: Path, scene: Path, folder: Path) -> Network:
    """The checkpoint as ONNX, by our own export and its proof, and as a program of torch.export."""
    net, spec = load_checkpoint(checkpoint)
    graph, program = folder / "trained.onnx", folder / "trained.pt2"
    command = [sys.executable, "-m", "export", str(checkpoint), str(graph), "--raster", str(scene), "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    save_program(net, program, len(spec.bands), net.stride)
    return Network(graph, program, spec)


def save_program(net: torch.nn.Module, path: Path, bands: int, stride: int) -> None:
    """A file that plain PyTorch loads: no class of ours, which one environment could not even import."""
    sides = {2: stride * Dim("h"), 3: stride * Dim("w")} if stride > 1 else {2: Dim("h"), 3: Dim("w")}
    example_NCHW = torch.zeros(2, bands, 3 * stride, 3 * stride)  # a batch of one would become a constant
    shapes = ({0: Dim("batch"), **sides},)
    torch.export.save(torch.export.export(net.eval(), (example_NCHW,), dynamic_shapes=shapes), path)


def pointwise(
    folder: Path, name: str, weights_KC: NDArray[np.float32], bias_K: NDArray[np.float32]
) -> Network:
    """One 1x1 convolution of three bands, in both forms."""
    channels = len(weights_KC)
    spec = ModelSpec(
        ("r", "g", "b"),
        default_classes(tuple(f"class {n}" for n in range(channels))),
        scale=(1 / 255,) * 3,
        stride=1,
        halo=0,
        exact=True,
    )
    weights_KCHW = weights_KC[:, :, None, None]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [numpy_helper.from_array(weights_KCHW, "w"), numpy_helper.from_array(bias_K, "b")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})
    onnx.save(proto, folder / f"{name}.onnx")
    net = torch.nn.Conv2d(3, channels, 1)
    net.load_state_dict({"weight": torch.from_numpy(weights_KCHW), "bias": torch.from_numpy(bias_K)})
    save_program(net, folder / f"{name}.pt2", 3, 1)
    return Network(folder / f"{name}.onnx", folder / f"{name}.pt2", spec)


def read_labels(path: Path, side: int) -> NDArray[np.uint8]:
    """The top left square of what a tool found."""
    if path.suffix == ".npy":
        return np.load(path)[:side, :side]
    with rasterio.open(path) as dataset:
        return dataset.read(1, window=Window(0, 0, side, side))


class Reference:
    """Labels of whole-image inference, of the scene's corner.

    The halo along the corner's inner edges is left out: there the network saw the edge instead of what lies
    behind it. The rest is what it would find if the whole scene were put through it at once.
    """

    def __init__(self, bench: Bench, network: Network, scene: Path, side: int, whole: bool) -> None:
        case = Case("whole image", WHOLE_IMAGE, 0, "none", {"side": side})
        self.side = side if whole else side - (network.spec.halo or 0)
        found = bench.run(case, network, scene)
        self._labels = read_labels(Path(found["labels"]), self.side)

    def differing(self, labels: Path) -> float:
        """Percent of the pixels with another label."""
        return float((read_labels(labels, self.side) != self._labels).mean() * 100)


def tell(text: str) -> None:
    """Progress, for people."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


class Results:
    """What was measured so far, by case; a case that failed once is not run again."""

    def __init__(self, bench: Bench, chosen: list[Case]) -> None:
        self._bench = bench
        self.measured = {case.title: Measured(case) for case in chosen}

    def run(self, case: Case, network: Network, scene: Path, task: str = "labels") -> dict[str, Any] | None:
        """One run, or None and the reason noted."""
        try:
            found = self._bench.run(case, network, scene, task)
        except (RunError, EnvironmentFailure) as error:
            self.measured[case.title].failures.append(f"{task} of {scene.stem}: {error}")
            tell(f"{case.title}: FAILED, {error}")
            return None
        seconds = f"{found['seconds']:.2f} s" if "seconds" in found else f"{found['constant_error']:.1e}"
        tell(f"{case.title}, {scene.stem}, {task}: {seconds}")
        return found

    def repeat(self, network: Network, int8: Network | None, scene: Path, repeats: int, others: int) -> None:
        """Speed on real pixels: all tools in turn, then all again; those not in `CORE` fewer times."""
        for i in range(repeats):
            for entry in self.measured.values():
                if entry.failures or (i >= others and entry.case.peer.key not in CORE):
                    continue
                found = self.run(entry.case, int8 if entry.case.int8 and int8 else network, scene)
                if found is not None:
                    entry.runs.append(self.kept(entry, found))

    def kept(self, entry: Measured, found: dict[str, Any]) -> dict[str, Any]:
        """Keep the labels of the first run: the next tool writes to the same place."""
        if not entry.runs:
            path = Path(found["labels"])
            entry.labels = path.rename(path.with_stem(entry.case.title))
        return found

    def constants(self, network: Network, scene: Path) -> None:
        """What blending makes of a constant."""
        for entry in self.measured.values():
            if entry.failures or not entry.case.scored:
                continue
            found = self.run(entry.case, network, scene, "scores")
            entry.constant_error = found["constant_error"] if found else None

    def sizes(self, network: Network, folder: Path, sides: list[int]) -> None:
        """Speed and memory of a free network, by size."""
        for side in sides:
            scene = folder / f"{side} px.tif"
            make_scene(scene, side)
            for entry in self.measured.values():
                if entry.failures or entry.case.int8:
                    continue
                found = self.run(entry.case, network, scene)
                if found is not None:
                    entry.free[side] = found
            scene.unlink()


def measure(options: argparse.Namespace, folder: Path) -> Page:
    """Everything, in order."""
    bench = Bench(folder, options.environments, options.threads, options.timeout)
    spec = load_checkpoint(options.checkpoint)[1]
    scene = cut_scene(options.scene, folder / "scene.tif", options.side, options.corner, len(spec.bands))
    network = trained(options.checkpoint, scene, folder)
    int8 = Network(options.int8, network.program, spec) if options.int8 else None
    results = Results(bench, chosen_cases(options))
    results.repeat(network, int8, scene, options.repeats, options.others or options.repeats)
    side = min(options.check_side, options.side)
    reference = Reference(bench, network, scene, side, side == options.side)
    for entry in results.measured.values():
        if entry.labels is not None and entry.case.peer.comparable:
            entry.differing = reference.differing(entry.labels)
    constant = pointwise(folder, "constant", np.zeros((2, 3), np.float32), np.array(CONSTANT, np.float32))
    results.constants(constant, noise(folder / "noise.tif"))
    weights_KC = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    results.sizes(pointwise(folder, "free", weights_KC, np.zeros(2, np.float32)), folder, options.sizes)
    return Page(
        machine=describe(),
        date=str(datetime.now(UTC).date()),
        command=shlex.join(["python", "benchmarks/peers.py", *shown(sys.argv[1:])]),
        side=options.side,
        checked=reference.side,
        repeats=options.repeats,
        threads=options.threads,
        tile=TILE,
        batch=BATCH,
        measured=list(results.measured.values()),
    )


def shown(arguments: list[str]) -> list[str]:
    """What of the command line decides the figures, without the folders that mean nothing elsewhere.

    >>> shown(["/home/me/scene.tif", "/home/me/run/best", "--json", "x.json", "--side", "512"])
    ['scene.tif', 'run/best', '--side', '512']
    """
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in PLACES:
            skip = argument in PLACES and not skip
            continue
        path = Path(argument)
        kept.append("/".join(path.parts[-2:]) if path.is_absolute() and not path.suffix else path.name)
    return kept


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    """As ``--only`` says."""
    told = "tolerance" in {f.name for f in fields(RunOptions)}
    found = cases(TILE, options.tolerance if told else None, options.int8 is not None)
    known = {case.peer.key for case in found}
    if unknown := set(options.only or ()) - known:
        raise SystemExit(f"--only is of {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    if options.row:
        return [case for case in found if case.title in options.row]
    return [case for case in found if not options.only or case.peer.key in options.only]


def numbers(text: str) -> list[int]:
    """Sizes as the command line has them."""
    return [int(part) for part in text.split(",") if part]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scene", type=Path, help="a uint8 raster with the network's bands first")
    parser.add_argument("checkpoint", type=Path, help="a folder like RUN/best")
    parser.add_argument("--side", type=int, default=4096, help="of the square that is cut from it")
    parser.add_argument("--corner", type=int, nargs=2, default=(0, 0), metavar=("LEFT", "TOP"))
    parser.add_argument("--check-side", type=int, default=2048, help="of whole-image inference")
    parser.add_argument("--int8", type=Path, help="a second model, quantised from the first")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="if tiler segment has that option")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--others", type=int, help=f"repeats of all but {', '.join(CORE)}")
    parser.add_argument("--sizes", type=numbers, default=[1024, 4096, 8192], metavar="N,N..")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,NAME..")
    parser.add_argument("--row", action="append", metavar="TITLE", help="only this row; repeatable")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds that one run may take")
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--environments", type=Path, default=caches / "gigatiler-peers")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--chart", type=Path, help="draw speed and memory here")
    return parser.parse_args()


def main() -> None:
    """Measure, write and print."""
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        page = measure(options, Path(name))
    if options.json:
        options.json.write_text(json.dumps(page.to_dict(), indent=1) + "\n")
    if options.chart:
        chart(page, options.chart)
    text = markdown(page, options.chart.name if options.chart else None)
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()

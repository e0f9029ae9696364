"""The CUDA path, tested, checked and timed in one call on a machine with an NVIDIA card; prints tables.

    python benchmarks/cuda.py [--markdown FILE] [--side 8192]

The tests that need a card; on the shipped scene at its own pixels, tiles against whole-image inference on the
GPU, the GPU against the CPU, and whether the batch changes a byte; on a mosaic of that scene, megapixels per
second of `tiler segment`, of its session alone and, if it is installed beside a torch with CUDA, of MONAI.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from exactness import crops, markdown, measure

from export.half import halve
from tiler.backends.cuda import CudaSession, card_names
from tiler.backends.onnx import OnnxBackend, load_model
from tiler.demo import MODEL, SCENE
from tiler.errors import MissingError
from tiler.flow import prefetch
from tiler.options import RunOptions
from tiler.pixels import normalise
from tiler.run import segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tiler.model import Model

TESTS = Path(__file__).parents[1] / "tests" / "test_backends.py"
CASES = [(512, 1, None), (512, 4, None), (1024, 1, None), (1024, 4, None), (None, 1, None), (512, 1, 32)]
RUNS = [(1024, 1), (1024, 3), (1024, 8), (512, 1), (512, 4), (512, 16)]
REPEATS = 3
TILE, TILES = 1024, 64
MONAI_TILE, MONAI_OVERLAP, MONAI_BATCHES = 512, 0.25, (4, 16)
WIDTH = 8
"""Of the shipped network's first block."""


def run(device: str, folder: Path, **options: object) -> tuple[float, str, np.ndarray]:
    """Segment the scene: best Mpx/s of some runs, the file's SHA-256, its labels."""
    given = RunOptions(device=device, resolution="native", overwrite=True, **options)  # type: ignore[arg-type]
    model = load_model(MODEL, given)
    speeds = [segment(SCENE, model, folder / "out.tif", given).megapixels_per_second for _ in range(REPEATS)]
    with rasterio.open(folder / "out.tif") as dataset:
        labels_HW = dataset.read(1)
    return max(speeds), hashlib.sha256((folder / "out.tif").read_bytes()).hexdigest(), labels_HW


def tests() -> str:
    """What pytest says of the tests that need a card."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "cuda", str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, flush=True)
    last = done.stdout.strip().rpartition("\n")[2] or "nothing"
    return f"`pytest -m cuda`: {last} (exit code {done.returncode})."


def same_bytes(folder: Path) -> Iterator[str]:
    """Rows: the demo's scene by device, tile and batch."""
    yield "| device | tile | batch | Mpx/s in all | labels unlike the CPU's | file as the device's first |"
    yield "|---|--:|--:|--:|--:|---|"
    _, _, cpu_HW = run("cpu", folder, tile=1024)
    digests: dict[str, str] = {}
    for device, tile, batch in [("cpu", 1024, 1), *(("cuda", *case) for case in RUNS)]:
        speed, digest, labels_HW = run(device, folder, tile=tile, batch=batch)
        different = int((labels_HW != cpu_HW).sum())
        same = "yes" if digest == digests.setdefault(device, digest) else "NO"
        yield f"| {device} | {tile} | {batch} | {speed:.2f} | {different} | {same} |"


def speeds(folder: Path, side: int) -> Iterator[str]:
    """Rows: who, in which precision, how fast."""
    yield f"| {side} x {side} px | precision | Mpx/s |"
    yield "|---|---|--:|"
    scene, half = mosaic(folder, side), folder / "half.onnx"
    halve(MODEL, half)
    for precision, network in (("fp32", MODEL), ("fp16", half)):
        model = load_model(network, RunOptions(device="cuda"))
        for what, megapixels in (
            ("the session alone, unbound", unbound(model)),
            ("the session alone, bound, one batch at a time", bare(one_lane(model))),
            ("the session alone, bound, two batches at a time", bare(model)),
            ("`tiler segment`, one batch at a time", whole_run(scene, one_lane(model), folder)),
            ("`tiler segment`", whole_run(scene, model, folder)),
        ):
            yield f"| {what} | {precision} | {megapixels:.1f} |"
        model.backend.release()
    yield from monai_rows(scene, model)


def mosaic(folder: Path, side: int) -> Path:
    """The scene beside itself, as a tiled GeoTIFF in the page cache."""
    with rasterio.open(SCENE) as dataset:
        raw_CHW = dataset.read()
        profile = {**dataset.profile, "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
    copies = (1, *(-(-side // extent) for extent in raw_CHW.shape[1:]))
    profile.update(width=side, height=side, compress=None, photometric=None, interleave="pixel", nodata=None)
    with rasterio.open(folder / "mosaic.tif", "w", **profile) as dataset:
        dataset.write(np.tile(raw_CHW, copies)[:, :side, :side])
    return folder / "mosaic.tif"


def one_lane(model: Model) -> Model:
    """The model with one batch under way at a time."""
    backend = model.backend
    assert isinstance(backend, OnnxBackend)  # noqa: S101 - what load_model returns
    assert isinstance(backend.session, CudaSession)  # noqa: S101
    return replace(model, backend=replace(backend, session=CudaSession(backend.session.lanes[:1])))


def bare(model: Model) -> float:
    """Mpx/s of the network from and to host memory, all workers busy."""
    workers = model.backend.workers
    return timed(lambda tiles: list(prefetch(model.backend.predict, tiles, workers, workers)), model)


def unbound(model: Model) -> float:
    """The same by ONNX Runtime's plain call."""
    session = model.backend.session.lanes[0].session  # type: ignore[attr-defined]
    name = session.get_inputs()[0].name
    return timed(lambda tiles: [session.run(None, {name: tile}) for tile in tiles], model)


def timed(call: Callable[[list[NDArray[np.float32]]], object], model: Model) -> float:
    """Best Mpx/s of some passes over tiles; the first, which warms up, is not counted."""
    tile_NCHW = np.random.default_rng(0).random((1, 3, TILE, TILE), np.float32).astype(model.dtype)
    call([tile_NCHW] * 4)
    return best(lambda: call([tile_NCHW] * TILES), TILES * TILE * TILE)


def best(call: Callable[[], object], pixels: int) -> float:
    """Mpx/s of the fastest of some calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return pixels / min(seconds) / 1e6


def whole_run(scene: Path, model: Model, folder: Path) -> float:
    """Mpx/s of a run, files read and written."""
    options = RunOptions(device="cuda", resolution="native", overwrite=True)
    reports = [segment(scene, model, folder / "out.tif", options) for _ in range(REPEATS)]
    return max(report.megapixels_per_second for report in reports)


def monai_rows(scene: Path, model: Model) -> Iterator[str]:
    """MONAI on a network of the same shape with random weights, from pixels in memory to labels in memory."""
    try:
        import monai
        import torch
    except ImportError as error:
        yield f"| MONAI: not measured, {error} | | |"
        return
    if not torch.cuda.is_available():
        yield "| MONAI: not measured, torch has no CUDA here | | |"
        return
    with rasterio.open(scene) as dataset:
        raw_CHW = dataset.read()
    given = torch.from_numpy(normalise(raw_CHW, model.spec))[None]
    # Torch computes convolutions in TF32 unless it is told otherwise; we never do.
    for precision in ("fp32 by TF32", "fp16"):
        speed = max(monai_speed(given, batch, precision == "fp16") for batch in MONAI_BATCHES)
        yield f"| MONAI {monai.__version__}, 512 px, 25 % overlap, gaussian | {precision} | {speed:.1f} |"


def monai_speed(given: object, batch: int, half: bool) -> float:
    """Mpx/s of its sliding window; the image lies on the GPU, which is its fastest way."""
    import torch
    from monai.inferers import sliding_window_inference

    from train.models.options import UNetOptions
    from train.models.unet import UNet

    network = UNet(UNetOptions(3, 2, width=WIDTH)).eval().cuda().to(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=half):
            found = sliding_window_inference(
                given.cuda(),  # type: ignore[attr-defined]
                (MONAI_TILE, MONAI_TILE),
                batch,
                network,
                overlap=MONAI_OVERLAP,
                mode="gaussian",
            )
            return found.argmax(dim=1).to(torch.uint8).cpu()

    call()
    return best(call, given.shape[2] * given.shape[3])  # type: ignore[attr-defined]


def main() -> None:
    """Test, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--side", type=int, default=8192, help="of the mosaic that is timed, pixels")
    options = parser.parse_args()
    try:
        model = load_model(MODEL, RunOptions(device="cuda"))
    except MissingError as error:
        raise SystemExit(f"error: {error}") from None
    square, odd = crops(SCENE, 2048)
    outcomes = measure(square, model, CASES) + measure(odd, model, CASES[1:2])
    where = f"`python benchmarks/cuda.py` on {', '.join(card_names())}, {model.device}"
    lines = [markdown(outcomes, "# The CUDA path", where), tests(), ""]
    model.backend.release()
    with tempfile.TemporaryDirectory() as name:
        for rows in (same_bytes(Path(name)), speeds(Path(name), options.side)):
            for row in rows:
                print(row, flush=True)
                lines.append(row)
            lines.append("")
    table = "\n".join(lines)
    if options.markdown:
        options.markdown.write_text(table)
    print(table)


if __name__ == "__main__":
    main()

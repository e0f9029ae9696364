"""How fast, against what the machine allows: the kernels alone, and whole runs against a plain loop."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio

from tiler import kernels, twins
from tiler.errors import InputError
from tiler.geometry import Window
from tiler.job import prepare
from tiler.report import Report
from tiler.tiles import network_input, read_mirrored
from tiler.toml import to_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tiler.job import Job
    from tiler.options import RunOptions
SIDE: Final = 2048
"""Of the arrays that kernels are timed on: far larger than any cache."""
CALLS: Final = 7
FLOOR_TILE: Final = 512
CHANNELS: Final = (2, 5)


@dataclass(frozen=True, slots=True)
class KernelSpeed:
    """One kernel on one core."""

    name: str
    megapixels: float
    """Per second."""
    times_numpy: float
    """Against its twin in numpy."""
    bandwidth: float
    """Bytes that it reads and writes per second, as a share of what a copy of a large array moves."""


@dataclass(frozen=True, slots=True)
class Speed:
    """A whole run against the plain loop; medians of the repeats."""

    megapixels: float
    """Per second, from the first read to the verified file."""
    floor: float
    """Of a plain loop over tiles of 512 px without overlap, which ignores seams and writes nothing."""
    ratio: float
    """Of the two, in the same repeat."""
    network: float
    """Share of the run's time in which the network ran."""
    waste: float
    """Pixels computed per pixel of the raster."""
    startup: float
    """Seconds before the first read."""
    stages: dict[str, float]
    """Seconds of each, of the repeat with the median speed."""
    bottleneck: str
    peak_memory: int


def bandwidth() -> float:
    """Bytes per second that one core reads and writes when it copies a large array."""
    source = np.ones(SIDE * SIDE * 4, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: np.copyto(target, source))


def kernel_speeds() -> Iterator[KernelSpeed]:
    """Every kernel that touches each pixel of a run."""
    limit = bandwidth()
    for name, size, call in _kernel_calls():
        fast, slow = _fastest(lambda: call(kernels)), _fastest(lambda: call(twins))  # noqa: B023 - called here
        yield KernelSpeed(name, SIDE * SIDE / fast / 1e6, slow / fast, size * SIDE * SIDE / fast / limit)


def _kernel_calls() -> Iterator[tuple[str, int, Callable[[Any], None]]]:
    """Name, bytes moved per pixel, and the call on the module of kernels or of their twins."""
    rng = np.random.default_rng(0)
    valid_HW = np.ones((SIDE, SIDE), np.bool_)
    raw_CHW = rng.integers(0, 255, (3, SIDE, SIDE), np.uint8)
    fed_CHW, fill_C = np.empty(raw_CHW.shape, np.float32), np.zeros(3, np.uint8)
    scaled = np.full((2, 3), 0.5, np.float32)
    yield "feed, 3 bands", 3 * 5 + 1, lambda m: m.feed(raw_CHW, valid_HW, fill_C, scaled, fed_CHW)
    weights = rng.random(SIDE, np.float32)
    for k in CHANNELS:
        scores_KHW = rng.normal(size=(k, SIDE, SIDE)).astype(np.float32)
        yield from _score_calls(k, scores_KHW, valid_HW, weights)


def _score_calls(
    k: int, scores_KHW: NDArray[np.float32], valid_HW: NDArray[np.bool_], weights: NDArray[np.float32]
) -> Iterator[tuple[str, int, Callable[[Any], None]]]:
    out_KHW, band_KHW, at = np.empty(scores_KHW.shape, np.uint8), np.zeros_like(scores_KHW), (0, 0)
    yield f"argmax, {k} classes", 4 * k + 2, lambda m: m.argmax(scores_KHW, at, valid_HW, out_KHW[0])
    yield (
        f"accumulate, {k} classes",
        12 * k,
        lambda m: m.accumulate(band_KHW, at, scores_KHW, at, weights, weights),
    )
    yield f"softmax, {k} classes", 5 * k + 1, lambda m: m.softmax_bytes(scores_KHW, at, valid_HW, out_KHW)


def _fastest(call: Callable[[], object]) -> float:
    """Seconds of the fastest call, after one that compiles and touches the memory."""
    call()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def run_speed(
    source: str | Path, model: Path, options: RunOptions, side: int, repeats: int, tell: Callable[[str], None]
) -> Speed:
    """Segment the middle of a raster again and again, in turn with the plain loop.

    Raises
    ------
    TilerError
        as `tiler.segment`.
    """
    with tempfile.TemporaryDirectory(prefix="tiler-bench-") as name:
        scene = Path(name) / "scene.tif"
        job = prepare(source, model, replace(options, overwrite=True))
        _cut(job, side, scene)
        fed = replace(
            options,
            overwrite=True,
            # The scene holds what was read, and nothing else.
            bands=tuple(range(1, job.raster.info.bands + 1)),
            resolution="native",
            mpp=None,
            level=None,
            assume_mpp=None,
            tissue="off",
            tissue_threshold=None,
            tissue_area=None,
            mask=None,
            shard=None,
            check_seams=False,
        )
        rounds: list[tuple[float, Report]] = []
        for i in range(repeats):
            # Its views, if any, are in this model already.
            floor = plain_loop(prepare(scene, job.model, replace(fed, tta="none")))
            job.model.backend.release()
            report = _segmented(scene, model, Path(name), fed)
            rounds.append((floor, report))
            tell(f"{i + 1} of {repeats}: {_rate(report):.3f} Mpx/s, plain loop {floor:.3f}")
    return _summary(rounds)


def _segmented(scene: Path, model: Path, folder: Path, options: RunOptions) -> Report:
    """Run the command in a process of its own: what this one holds would count as memory of the plan."""
    config, output = folder / "options.toml", folder / "out.tif"
    config.write_text(to_toml(asdict(options)))
    command = [sys.executable, "-m", "tiler", "segment", str(scene), str(model), str(output), "--quiet"]
    done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(done.stderr.strip().removeprefix("error: "))
    return Report.from_json(output.with_suffix(".report.json").read_text())


def _cut(job: Job, side: int, path: Path) -> None:
    """The middle of what the network is fed, as a tiled GeoTIFF."""
    info = job.raster.info
    # Whole tiles of the plain loop, or it would compute more than it returns.
    height, width = (
        extent // FLOOR_TILE * FLOOR_TILE or extent
        for extent in (min(side, info.height), min(side, info.width))
    )
    top, left = (info.height - height) // 2, (info.width - width) // 2
    pixels = job.raster.read(Window(top, left, top + height, left + width))
    # Else a fourth band of bytes would be taken for alpha.
    profile: dict[str, Any] = {
        "photometric": "MINISBLACK",
        "alpha": "NO",
        "tiled": True,
        "blockxsize": FLOOR_TILE,
        "blockysize": FLOOR_TILE,
    }
    if info.transform is not None:
        profile["transform"] = info.transform @ type(info.transform).translation(left, top)
    shape = {"height": height, "width": width, "count": info.bands, "dtype": info.dtype, "crs": info.crs}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as dataset:
        dataset.write(pixels.raw_CHW)


def plain_loop(job: Job) -> float:
    """Mpx/s of the loop that one would write: read, normalise, run, argmax, one after the other.

    Its parts are ours, so that it is as fast as such a loop can be. It leaves seams and keeps its result in
    memory.
    """
    info, shape = job.raster.info, job.model.shape
    labels_HW = np.zeros((info.height, info.width), np.uint8)
    start = time.perf_counter()
    for top in range(0, info.height, shape[1] or FLOOR_TILE):
        for left in range(0, info.width, shape[2] or FLOOR_TILE):
            window = Window(top, left, top + (shape[1] or FLOOR_TILE), left + (shape[2] or FLOOR_TILE))
            pixels = read_mirrored(job.raster, window)
            input_CHW = network_input(pixels, job.model.spec, job.model.dtype)
            scores_KHW = np.ascontiguousarray(job.model.backend.predict(input_CHW[None])[0])
            inside = labels_HW[window.slices]
            labels_QHW = job.finisher(scores_KHW, np.ascontiguousarray(pixels.valid_HW))
            inside[:] = labels_QHW[0, : inside.shape[0], : inside.shape[1]]
    return info.height * info.width / (time.perf_counter() - start) / 1e6


def _seconds(report: Report) -> float:
    """From the first read to the verified file."""
    return report.seconds - report.startup_seconds


def _rate(report: Report) -> float:
    return report.pixels / _seconds(report) / 1e6


def _summary(rounds: list[tuple[float, Report]]) -> Speed:
    reports = sorted((report for _, report in rounds), key=_rate)
    middle = reports[len(reports) // 2]
    return Speed(
        megapixels=statistics.median(map(_rate, reports)),
        floor=statistics.median(floor for floor, _ in rounds),
        ratio=statistics.median(_rate(report) / floor for floor, report in rounds),
        network=statistics.median(r.stage_seconds["network"] / _seconds(r) for r in reports),
        waste=middle.plan["waste"],
        startup=statistics.median(r.startup_seconds for r in reports),
        stages=middle.stage_seconds,
        bottleneck=middle.bottleneck,
        peak_memory=middle.peak_memory,
    )

"""What every runner shares: the job, the clock, the memory, and the line that it prints.

A runner is one small file that calls one tool's public interface. It is executed by the Python of that
tool's own environment, so nothing here or there imports this project (but for `run_gigatiler.py`). Heavy
libraries are imported inside ``load``, so that the start is timed too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

STARTED = time.perf_counter()

import numpy as np  # noqa: E402 - after the clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

COMMON = ("numpy", "rasterio", "torch", "onnxruntime", "onnxruntime-gpu", "openvino")
"""Distributions whose versions are told with a result, if they were used."""


@dataclass(frozen=True)
class Job:
    """What a runner is to do; it comes as JSON, the one argument."""

    task: str
    """``labels``: segment the scene; ``scores``: return what blending makes of the network's scores."""
    scene: str
    """Tiled GeoTIFF of uint8."""
    network: str
    """The network as a program of torch.export."""
    graph: str
    """The same network as ONNX."""
    classes: int
    scale: list[float]
    """Per band; the network is fed ``(raw * scale - mean) / std``."""
    mean: list[float]
    std: list[float]
    threads: int
    tile: int
    overlap: int
    batch: int
    output: str
    """Folder for what is written."""
    expected: list[float]
    """Task scores: what a constant network returns, per class."""
    options: dict[str, Any]
    """What only this runner knows."""

    def normalise(self, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw pixels, bands third from last, as the network is fed them."""
        # The same arithmetic as in our engine, in place: no peer is to pay for this helper.
        std = np.array(self.std)[:, None, None]
        values = raw.astype(np.float32)
        values *= (np.array(self.scale)[:, None, None] / std).astype(np.float32)
        values -= (np.array(self.mean)[:, None, None] / std).astype(np.float32)
        return values


def read_scene(job: Job) -> NDArray[np.uint8]:
    """All pixels (C, H, W)."""
    import rasterio

    with rasterio.open(job.scene) as dataset:
        return dataset.read()


def load_network(job: Job) -> Any:  # noqa: ANN401 - torch is imported here
    """The network as a module that tools can call, move and put into evaluation mode."""
    import torch

    torch.set_num_threads(job.threads)
    layout = getattr(torch, job.options.get("memory_format", "channels_last"))
    program = torch.export.load(job.network).module().to(memory_format=layout)

    class Network(torch.nn.Module):
        """Holds the program out of torch's sight: it is in evaluation mode, and refuses to be told so."""

        def __init__(self) -> None:
            super().__init__()
            self.held = (program,)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.held[0](pixels.contiguous(memory_format=layout))

    return Network()


def windows(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    """Corners of tiles without overlap; the last ones are shifted back inside."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield min(top, height - side), min(left, width - side)


def plain_loop(job: Job, predict: Callable[[NDArray[np.float32]], NDArray[Any]]) -> NDArray[np.uint8]:
    """The loop that everyone writes first: read a tile, run the network, keep its labels. It has seams."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(job.scene) as dataset:
        labels = np.empty((dataset.height, dataset.width), np.uint8)
        for top, left in windows(dataset.height, dataset.width, job.tile):
            raw = dataset.read(window=Window(left, top, job.tile, job.tile))
            found = predict(job.normalise(raw)[None])[0]
            labels[top : top + job.tile, left : left + job.tile] = found
    return labels


def status(key: str) -> int:
    """A figure of this process in bytes: VmHWM, its peak, or VmRSS."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition(f"{key}:")[2].split()[0]) * 1024


def pin(threads: int) -> None:
    """Use as many cores as threads: a tool that takes no number of threads is held to the same."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def imported(distribution: str) -> bool:
    """Whether it is in use, and not only installed."""
    return distribution.removesuffix("-gpu") in sys.modules


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Of the distributions that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def timed_labels(
    job: Job, state: object, labels: Callable[[Job, Any], Any], facts: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Segment: seconds, peak memory, where the labels are, and what the tool says of itself.

    A runner with a clock of its own returns seconds, and has no labels.
    """
    begun = time.perf_counter()
    found = labels(job, state)
    seconds = time.perf_counter() - begun
    peak = status("VmHWM")
    if isinstance(found, float):
        return {"seconds": found, "peak_memory": peak, "labels": ""}
    if not isinstance(found, (str, Path)):
        path = Path(job.output) / "labels.npy"
        np.save(path, np.asarray(found, np.uint8))
        found = path
    return {"seconds": seconds, "peak_memory": peak, "labels": str(found), **facts(Path(found))}


def constant_error(job: Job, scores: NDArray[Any]) -> dict[str, Any]:
    """How far blending moves the scores of a constant network."""
    expected = np.array(job.expected)[:, None, None]
    return {"constant_error": float(np.abs(np.asarray(scores, np.float64) - expected).max())}


def main(
    load: Callable[[Job], Any],
    labels: Callable[[Job, Any], Any],
    scores: Callable[[Job, Any], NDArray[Any]] | None = None,
    *,
    packages: tuple[str, ...] = (),
    notes: Sequence[str] = (),
    facts: Callable[[Path], dict[str, Any]] = lambda _: {},
) -> None:
    """Do the job of the command line and print one line of JSON."""
    job = Job(**json.loads(sys.argv[1]))
    pin(job.threads)
    import rasterio  # noqa: F401 - everyone reads with it, and nobody's clock is to run while it loads

    state = load(job)
    result = {
        "start_up_seconds": time.perf_counter() - STARTED,
        "baseline_memory": status("VmRSS"),
        "versions": versions((*packages, *filter(imported, COMMON))),
        "notes": list(notes),
    }
    if job.task == "labels":
        result |= timed_labels(job, state, labels, facts)
    elif scores is not None:
        result |= constant_error(job, scores(job, state))
    else:
        raise ValueError("this tool returns no scores")
    print(json.dumps(result))

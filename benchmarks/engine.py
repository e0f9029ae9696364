"""The engine alone: a network that costs nothing on a large scene, exact and blended.

    python benchmarks/engine.py [--side 16384] [--repeats 5] [--markdown FILE]

Two classes, uint8 RGB in uncompressed tiles, labels out; each run is a command of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from machine import describe
from scenes import free_network, make_scene

MODES = ("exact", "hann")


@dataclass(frozen=True, slots=True)
class Timing:
    """One command, in megapixels of the scene per second."""

    stored: float
    """From the first read to the last stored block."""
    verified: float
    """From the start of the command to the verified file."""
    startup: float
    """Seconds from the start of the command to the first read."""
    finish: float
    """Seconds from the last stored block to the verified file."""


def run(scene: Path, model: Path, output: Path, mode: str) -> Timing:
    """Segment the scene once."""
    options = ["--blend", mode, "--memory", "4GB", "--overwrite", "--quiet"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tiler", "segment", scene, model, output, *options], check=True)
    whole = time.perf_counter() - start
    report = json.loads(output.with_suffix(".report.json").read_text())
    finish = report["stage_seconds"]["finish"]
    computing = report["seconds"] - report["startup_seconds"] - finish
    pixels = report["pixels"] / 1e6
    return Timing(pixels / computing, pixels / whole, whole - computing - finish, finish)


def measure(folder: Path, side: int, repeats: int) -> list[str]:
    """The lines of the table: medians."""
    scene, model, output = folder / "scene.tif", folder / "free.onnx", folder / "out.tif"
    make_scene(scene, side)
    free_network(model, 2)
    timings: dict[str, list[Timing]] = {mode: [] for mode in MODES}
    for _ in range(repeats):
        for mode in MODES:
            timings[mode].append(run(scene, model, output, mode))
            print(mode, timings[mode][-1], flush=True)
    lines = [
        "| mode | Mpx/s to the last block | Mpx/s from command to verified COG | start, s | finish, s |",
        "|---|--:|--:|--:|--:|",
    ]
    for mode in MODES:
        stored, verified, startup, finish = (
            statistics.median(getattr(t, name) for t in timings[mode]) for name in Timing.__slots__
        )
        lines.append(f"| {mode} | {stored:.1f} | {verified:.1f} | {startup:.2f} | {finish:.2f} |")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), options.side, options.repeats)
    command = f"python benchmarks/engine.py --side {options.side} --repeats {options.repeats}"
    how = f"`{command}`, {datetime.now(UTC).date()}, {describe()}. Medians."
    page = "\n".join(["# The engine alone", "", how, "", *lines]) + "\n"
    print(page)
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()

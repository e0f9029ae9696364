"""Peak memory by size of scene, under a budget, with a network that costs nothing.

    python benchmarks/memory.py [--memory 1GB] [--markdown FILE]

Five classes, labels, exact and blended: 268 Mpx, 1 Gpx, and 10 Gpx of declared nodata with 20 Mpx of data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from machine import describe
from scenes import free_network, make_scene, make_sparse_scene

from tiler.memory import in_words
from tiler.options import parse_bytes

SIDES = (16384, 32768)
SPARSE = 100_000
VALID = 20_000_000
MODES = ("exact", "hann")


def run(scene: Path, model: Path, output: Path, mode: str, memory: str) -> dict[str, float]:
    """One command, and its report."""
    options = ["--blend", mode, "--memory", memory, "--overwrite", "--quiet"]
    subprocess.run([sys.executable, "-m", "tiler", "segment", scene, model, output, *options], check=True)
    return json.loads(output.with_suffix(".report.json").read_text())


def row(name: str, mode: str, report: dict[str, float], first: float) -> str:
    """A line of the table; the last column is against the smallest scene in the same mode."""
    peak = report["peak_memory"]
    return (
        f"| {name} | {mode} | {in_words(peak)} | {in_words(report['plan']['peak'])} | "
        f"{(peak - first) / 1e6:+.0f} MB, {peak / first - 1:+.1%} |"
    )


def measure(folder: Path, memory: str) -> list[str]:
    """The lines of the table."""
    model, scene, output = folder / "free.onnx", folder / "scene.tif", folder / "out.tif"
    free_network(model, 5)
    first: dict[str, float] = {}
    lines = ["| scene | mode | peak | planned | against the smallest |", "|---|---|--:|--:|--:|"]
    for side in (*SIDES, SPARSE):
        scene.unlink(missing_ok=True)
        if side == SPARSE:
            make_sparse_scene(scene, side, VALID)
        else:
            make_scene(scene, side)
        name = f"{side} x {side} px" + (", 20 Mpx valid" if side == SPARSE else "")
        for mode in MODES:
            report = run(scene, model, output, mode, memory)
            peak = report["peak_memory"]
            if peak > min(parse_bytes(memory), report["plan"]["peak"]):
                print(f"over: {in_words(peak)}", file=sys.stderr)
            lines.append(row(name, mode, report, first.setdefault(mode, peak)))
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), options.memory)
    how = (
        f"`python benchmarks/memory.py --memory {options.memory}`, {datetime.now(UTC).date()}, {describe()}."
    )
    page = "\n".join(["# Peak memory", "", how, "", *lines]) + "\n"
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()

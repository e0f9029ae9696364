"""How long the finish of a run takes (blocks to verified files), and how much memory, by size of scene.

    python benchmarks/finish.py [--side 16384] [--markdown FILE]

First a whole run with the demo's network on a square scene: the share of finish. Then runs with a free
network (one 1x1 convolution), stopped when all blocks are stored and finished by a process of its own, whose
peak memory is that of finishing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from kills import clear
from scenes import free_network, make_scene

import tiler
from tiler.demo import MODEL
from tiler.events import Finishing
from tiler.memory import in_words

SIDES = (4096, 8192, 16384, 24576)


class StoredError(Exception):
    """All blocks are there."""


def stop_at_finish(event: object) -> None:
    """Observer of a run that is to end before it is finished."""
    if isinstance(event, Finishing):
        raise StoredError


def child(scene: str, model: str, output: str, stop: bool) -> None:
    """One process: store all blocks, or finish; prints the report."""
    options = tiler.RunOptions(resolution="native", output="both" if "free" in model else "labels")
    try:
        report = tiler.segment(scene, model, output, options, *([stop_at_finish] if stop else []))
    except StoredError:
        return
    assert report is not None  # noqa: S101 - only shards leave work to others
    print(report.to_json())


def process(scene: Path, model: Path, output: Path, stop: bool = False) -> dict[str, float]:
    """Run `child` in a process of its own."""
    command = [sys.executable, __file__, "--child", scene, model, output, *(["--stop"] if stop else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout) if done.stdout else {}


def measure(folder: Path, side: int) -> list[str]:
    """The lines of the page."""
    scene, output = folder / "scene.tif", folder / "out.tif"
    make_scene(scene, side)
    whole = process(scene, MODEL, output)
    seconds, finish = whole["seconds"], whole["stage_seconds"]["finish"]
    share = f"{seconds:.0f} s in all, of which finish {finish:.1f} s: **{finish / seconds:.1%}**."
    lines = [
        f"{MODEL.name} on {side} x {side} px, labels: {share}",
        "",
        "| scene | output | finish, s | s per Gpx | peak memory of the process that finished |",
        "|--:|---|--:|--:|--:|",
    ]
    print(lines[0], flush=True)
    free = folder / "free.onnx"
    free_network(free, 3)
    for size in SIDES:
        clear(folder, "out.*")
        make_scene(scene, size)
        process(scene, free, output, stop=True)
        made = process(scene, free, output)
        took = made["stage_seconds"]["finish"]
        lines.append(
            f"| {size} x {size} px | labels, 3 probabilities | {took:.1f} | {took / size**2 * 1e9:.0f} "
            f"| {in_words(made['peak_memory'])} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--stop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.stop)
        return
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), options.side)
    how = f"`python benchmarks/finish.py --side {options.side}`, {datetime.now(UTC).date()}."
    page = "\n".join(["# Finishing: blocks to verified files", "", how, "", *lines]) + "\n"
    if options.markdown:
        options.markdown.write_text(page)


if __name__ == "__main__":
    main()

"""The CUDA path, checked and timed in one call on a machine with an NVIDIA GPU; prints tables.

    python benchmarks/cuda.py [--markdown FILE]

On the shipped scene at its own pixels: tiles against whole-image inference on the GPU, the GPU against the
CPU, whether the batch changes a byte, and megapixels per second.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from exactness import crops, markdown, measure

from tiler.backends.onnx import load_model
from tiler.demo import MODEL, SCENE
from tiler.options import RunOptions
from tiler.run import segment

if TYPE_CHECKING:
    import numpy as np

CASES = [(512, 1, None), (512, 4, None), (1024, 1, None), (1024, 4, None), (None, 1, None), (512, 1, 32)]
REPEATS = 3


def run(device: str, folder: Path, **options: object) -> tuple[float, str, np.ndarray]:
    """Segment the scene: best Mpx/s of some runs, the file's SHA-256, its labels."""
    given = RunOptions(device=device, resolution="native", overwrite=True, **options)  # type: ignore[arg-type]
    model = load_model(MODEL, given)
    speeds = [segment(SCENE, model, folder / "out.tif", given).megapixels_per_second for _ in range(REPEATS)]
    with rasterio.open(folder / "out.tif") as dataset:
        labels_HW = dataset.read(1)
    return max(speeds), hashlib.sha256((folder / "out.tif").read_bytes()).hexdigest(), labels_HW


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    options = parser.parse_args()
    model = load_model(MODEL, RunOptions(device="cuda"))
    square, odd = crops(SCENE, 2048)
    outcomes = measure(square, model, CASES) + measure(odd, model, CASES[1:2])
    lines = [markdown(outcomes, "# The CUDA path", f"`python benchmarks/cuda.py`, {model.device}"), ""]
    lines += [
        "| device | tile | batch | Mpx/s in all | labels unlike the CPU's | file as the device's first |",
        "|---|--:|--:|--:|--:|---|",
    ]
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        _, _, cpu_HW = run("cpu", Path(name), tile=1024)
        for device, tile, batch in (
            ("cpu", 1024, 1),
            ("cuda", 1024, 1),
            ("cuda", 1024, 3),
            ("cuda", 1024, 8),
            ("cuda", 512, 1),
            ("cuda", 512, 4),
            ("cuda", 512, 16),
        ):
            speed, digest, labels_HW = run(device, Path(name), tile=tile, batch=batch)
            different = int((labels_HW != cpu_HW).sum())
            same = "yes" if digest == digests.setdefault(device, digest) else "NO"
            lines.append(f"| {device} | {tile} | {batch} | {speed:.2f} | {different} | {same} |")
    table = "\n".join(lines) + "\n"
    if options.markdown:
        options.markdown.write_text(table)
    print(table)


if __name__ == "__main__":
    main()

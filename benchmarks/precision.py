"""What int8 and fp16 lose: exported by the command, judged on a labelled scene not calibrated on.

    python benchmarks/precision.py SCENE RUN/best [--markdown FILE]

SCENE is the one that the demo's scene is the right quarter of; its left half calibrates, the demo judges.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import rasterio
from machine import describe
from rasterio.windows import Window

from tiler.demo import LABELS, SCENE


def left_half(scene: Path, path: Path) -> Path:
    """Pixels far from those that are judged by."""
    with rasterio.open(scene) as source:
        window = Window(0, 0, source.width // 2, source.height)
        profile = {"crs": source.crs, "transform": source.window_transform(window), "tiled": True}
        size = {"height": source.height, "width": source.width // 2, "count": source.count}
        with rasterio.open(path, "w", driver="GTiff", dtype="uint8", **size, **profile) as target:
            target.write(source.read(window=window))
    return path


def export(checkpoint: Path, out: Path, *options: str | Path) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "export", checkpoint, out, "--raster", SCENE, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).replace(str(out.parent) + "/", "").strip()


def main() -> None:
    """Export and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    how = f"`python benchmarks/precision.py {options.scene.name} RUN/best`"
    lines = ["# Reduced precision", "", f"{how}, {datetime.now(UTC).date()}, {describe()}.", ""]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibrate = left_half(options.scene, folder / "left.tif")
        for precision in ("int8", "fp16"):
            more = ["--calibrate", calibrate] if precision == "int8" else []
            text = export(
                options.checkpoint,
                folder / f"{precision}.onnx",
                "--precision",
                precision,
                "--labels",
                LABELS,
                *more,
            )
            lines += [f"## {precision}", "", *(f"    {line}" for line in text.splitlines()), ""]
            print(text, flush=True)
    if options.markdown:
        options.markdown.write_text("\n".join(lines))


if __name__ == "__main__":
    main()

"""The shipped scene, labels and model; README.md beside this file says how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
SCENE: Final = FOLDER / "scene.tif"
LABELS: Final = FOLDER / "labels.tif"
MODEL: Final = FOLDER / "buildings.onnx"

"""Who is compared in `peers.py`: what each tool needs, how it is run, and what is fair about it.

Each peer gets a virtual environment of its own, made once and kept: their dependencies exclude each other,
and one of them has the import name of this project.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RUNNERS = Path(__file__).parent / "peers"
PIP_SECONDS = 1800

BASE = ("torch==2.13.*", "numpy==2.4.6", "rasterio==1.4.4")
"""The same for all, and pinned: another torch would come with gigabytes of CUDA."""
TORCH = "PyTorch"
RUNTIME = "ONNX Runtime"


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool: one environment, one runner."""

    key: str
    """What ``--only`` calls it."""
    title: str
    licence: str
    runtime: str
    """What runs the network: nobody's engine is to take credit for it."""
    runner: str
    note: str
    """What it does otherwise than we do."""
    packages: tuple[str, ...] = ()
    """With their dependencies. None: it runs in this Python."""
    alone: tuple[str, ...] = ()
    """Without theirs: those that it does not need here are left out."""
    comparable: bool = True
    """Whether its labels can be compared: it feeds the network what the others do."""
    writes: str = "array"
    """What the time ends with."""

    @property
    def ours(self) -> bool:
        """Whether it is this project."""
        return self.key == "gigatiler"

    @property
    def installs(self) -> tuple[tuple[str, ...], ...]:
        """Arguments of pip install, call by call."""
        calls = [self.packages, ("--no-deps", *self.alone) if self.alone else ()]
        return tuple(call for call in calls if call)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a tool and its settings."""

    title: str
    peer: Peer
    overlap: int
    """Pixels, of tiles of `peers.TILE`."""
    overlap_words: str
    options: dict[str, Any] = field(default_factory=dict)
    int8: bool = False
    """Whether it is given the second model."""
    scored: bool = True
    """Whether it blends and its blended scores can be had, so that a constant can be put through it."""


GIGATILER = Peer(
    "gigatiler",
    "gigatiler",
    "MIT",
    RUNTIME,
    "run_gigatiler.py",
    "Reads windows, stores every block durably, builds a COG with overviews, reads it back and compares it: "
    "all of that is in the time. Exact: no blending, tiles with the network's own halo.",
    writes="COG, verified",
)
OPENVINO = replace(
    GIGATILER,
    title="gigatiler, OpenVINO",
    runtime="OpenVINO",
    note="The same with `--device openvino`; in bfloat16 its labels are not those of the network in fp32.",
)
ONNX_LOOP = Peer(
    "floor",
    "plain ONNX Runtime loop",
    "-",
    RUNTIME,
    "run_onnx_loop.py",
    "No overlap, so seams; one tile at a time; labels stay in memory. What an engine costs is what it takes "
    "longer than this.",
)
TORCH_LOOP = Peer(
    "floor",
    "plain PyTorch loop",
    "-",
    TORCH,
    "run_torch_loop.py",
    "The same in PyTorch. What PyTorch takes longer than ONNX Runtime is the runtime's doing, not ours.",
)
MONAI = Peer(
    "monai",
    "MONAI",
    "Apache-2.0",
    TORCH,
    "run_monai.py",
    "Image, scores and weights of the whole image are in memory as float32; nothing is written.",
    (*BASE, "monai==1.6.1"),
)
PATCHLY = Peer(
    "patchly",
    "patchly",
    "Apache-2.0",
    TORCH,
    "run_patchly.py",
    "The whole image is in memory as float32, scores in chunks of 2048 px; nothing is "
    "written. It is given numpy arrays: with torch ones it returns the output untouched, silently.",
    (*BASE, "patchly==0.0.19"),
)
HABITAT_MAPPER = Peer(
    "habitat-mapper",
    "habitat-mapper",
    "MIT",
    RUNTIME,
    "run_habitat_mapper.py",
    "Streams, as we do. Its overlap is fixed at 50 %: compare it with ours at 50 %. Batch 1, its default. It "
    "takes no number of threads, so it is held to as many cores. It returns class numbers, so a constant's "
    "error cannot be measured. Installed with the CPU build of ONNX Runtime in place of the GPU one that it "
    "asks for. Its median filter is off.",
    (
        "numpy==2.4.6",
        "rasterio==1.4.4",
        "onnxruntime==1.31.1",
        "cyclopts>=3.22.2",
        "defusedxml>=0.7.1",
        "deprecation>=2.1.0",
        "humanize>=4.12.3",
        "loguru>=0.7.3",
        "numba>=0.62",
        "opencv-python-headless>=4.11.0.86",
        "platformdirs>=4.3.8",
        "pydantic>=2.11.7",
        "requests>=2.32.4",
        "rich>=13",
        "rioxarray>=0.19",
        "xarray>=2025.6.1",
        "xarray-spatial>=0.5.3",
    ),
    ("habitat-mapper==0.16.2",),
    writes="GeoTIFF",
)
OMNICLOUDMASK = Peer(
    "omnicloudmask",
    "OmniCloudMask",
    "MIT",
    TORCH,
    "run_omnicloudmask.py",
    "Brings every patch to mean 0 and deviation 1 by itself, so the network sees other numbers: compare "
    "speed and memory, not labels. Image as bytes and scores as float32 of the whole image are in memory; "
    "nothing is written.",
    (
        *BASE,
        "classcounter==0.2.1",
        "gdown==6.5.1",
        "huggingface-hub==2.4.0",
        "pillow",
        "platformdirs",
        "pyyaml",
        "safetensors",
        "tqdm",
    ),
    (
        "omnicloudmask==1.8.1",
        "segmentation-models-pytorch==0.6.0",
        "timm==1.0.31",
        "torchvision==0.28.0",
    ),
    comparable=False,
)
GEOAI = Peer(
    "geoai",
    "geoai",
    "MIT",
    TORCH,
    "run_geoai.py",
    "Reads windows, but sums scores of the whole image as float64. Preprocessing and argmax are given to it "
    "as functions. Installed without those of its dependencies that tiled inference does not need; leafmap, "
    "which it imports all the same, is most of what it holds before the start.",
    (
        *BASE,
        "geopandas==1.2.0",
        "leafmap==0.63.1",
        "matplotlib>=3.8",
        "requests>=2.32.4",
        "rioxarray==0.19.0",
        "tqdm",
    ),
    ("geoai-py==0.40.1",),
    writes="GeoTIFF",
)
PYPI_TILER = Peer(
    "tiler",
    "tiler (of PyPI)",
    "MIT",
    TORCH,
    "run_pypi_tiler.py",
    "An unrelated package of our import name. Padded as its manual says (half a step on each side, so it "
    "computes more tiles); image as bytes, scores and weights of the whole image as float32 in memory; "
    "nothing is written.",
    (*BASE, "tqdm", "tiler==0.6.0"),
)
WHOLE_IMAGE = Peer("whole", "whole image", "-", RUNTIME, "run_whole_image.py", "The reference for labels.")


def cases(tile: int, tolerance: float | None, int8: bool) -> list[Case]:
    """All rows; ``tolerance`` if our exact mode can be told one."""
    quarter, half = tile // 4, tile // 2
    blend = {"blend": "hann", "tile": tile}
    found = [
        Case("gigatiler, exact", GIGATILER, 0, "halo", {"blend": "exact"}, scored=False),
        Case("gigatiler, hann 25 %", GIGATILER, quarter, "25 %", {**blend, "overlap": quarter}),
        Case("gigatiler, hann 50 %", GIGATILER, half, "50 %", {**blend, "overlap": half}),
        Case(ONNX_LOOP.title, ONNX_LOOP, 0, "none", scored=False),
        *(
            Case(f"{TORCH_LOOP.title}, {words}", TORCH_LOOP, 0, "none", {"memory_format": form}, scored=False)
            for words, form in (("channels last", "channels_last"), ("default", "contiguous_format"))
        ),
        *(
            Case(peer.title, peer, quarter, "25 %")
            for peer in (MONAI, PATCHLY, OMNICLOUDMASK, GEOAI, PYPI_TILER)
        ),
        Case(HABITAT_MAPPER.title, HABITAT_MAPPER, half, "50 %", scored=False),
    ]
    if find_spec("openvino"):
        found += [
            Case(f"gigatiler, exact, {device}", OPENVINO, 0, "halo", {"device": device}, scored=False)
            for device in ("openvino", "openvino:bf16")
        ]
    if tolerance is not None:
        options = {"tolerance": tolerance}
        title = f"gigatiler, tolerance {tolerance:g}"
        found.insert(1, Case(title, GIGATILER, 0, "halo", options, scored=False))
    if int8:
        found += [
            Case("gigatiler, exact, int8", GIGATILER, 0, "halo", {"blend": "exact"}, int8=True, scored=False),
            Case(f"{ONNX_LOOP.title}, int8", ONNX_LOOP, 0, "none", int8=True, scored=False),
        ]
    return found


class EnvironmentFailure(Exception):  # noqa: N818 - a finding about a peer, not an error of ours
    """A peer could not be installed."""


def python_of(peer: Peer, folder: Path) -> Path:
    """The peer's own Python, its environment made if it is not there or asks for something else now.

    Raises
    ------
    EnvironmentFailure
        with what pip said last.
    """
    if not peer.installs:
        return Path(sys.executable)
    place = folder / peer.key
    python, mark = place / "bin" / "python", place / "installed.json"
    wanted = json.dumps([sys.version_info[:2], peer.installs])
    if mark.exists() and mark.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(place)])
    for arguments in peer.installs:
        _call([str(python), "-m", "pip", "install", "--quiet", *arguments])
    mark.write_text(wanted)
    return python


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailure(f"{' '.join(command[1:5])} took more than {PIP_SECONDS} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no word"]
        raise EnvironmentFailure(said[-1])

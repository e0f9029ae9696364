"""What a result depends on, to the byte: a run is only carried on by one that would make the same.

Files are told apart by size, time of change and a hash of samples; what changes no byte (batch, threads,
memory, shards) is not in it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numba
import onnxruntime as ort
import rasterio

from tiler import __version__
from tiler.errors import DamageError, InputError
from tiler.readers.address import is_remote
from tiler.readers.remote import remote_version

if TYPE_CHECKING:
    from tiler.job import Job
    from tiler.ports import RasterInfo

Fingerprint = dict[str, Any]
"""Plain JSON values by name."""

LONGEST_DETAIL: Final = 100
SAMPLED_FILES: Final = 100
SAMPLES: Final = 64
SAMPLE: Final = 65536
"""Bytes of each sample of a file."""
INSTRUCTIONS: Final = frozenset(
    ["avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "sve"]
)
"""Those that decide which kernels ONNX Runtime takes, and so how its sums are rounded."""
WORDS: Final = {
    "version": "version of gigatiler, ONNX Runtime, GDAL, OpenSlide or numba",
    "model": "model, or its description",
    "source": "input file",
    "mask": "mask",
    "georeferencing": "CRS, transform, nodata, mask or alpha of the input",
    "options": "set of options",
    "device": "device or kind of processor",
    "polygons": "set of polygon options",
}


def fingerprint(job: Job) -> Fingerprint:
    """Of a run that is opened."""
    return {
        "version": {**versions(), "reader": job.native.info.reader},
        "model": {"sha256": job.model.sha256, "spec": json.loads(job.model.spec.to_json())},
        "source": source_version(job.native.info.files),
        "mask": None if job.options.mask is None else file_version(job.options.mask),
        "georeferencing": _georeferencing(job.native.info),
        "options": json.loads(json.dumps({**job.settings, "output": job.options.output})),
        "device": _device(job.model.device.partition(",")[0]),
    }


def versions() -> dict[str, str]:
    """Of what computes the result."""
    return {
        "gigatiler": __version__,
        "onnxruntime": ort.__version__,
        "gdal": rasterio.__gdal_version__,
        "numba": numba.__version__,
    }


def _georeferencing(info: RasterInfo) -> dict[str, Any]:
    return {
        "crs": info.crs.to_wkt() if info.crs else None,
        "transform": None if info.transform is None else list(info.transform[:6]),
        "validity": info.validity,
    }


def differences(old: Fingerprint, new: Fingerprint) -> str:
    """What differs, with the values of the first entry that does; empty if nothing.

    >>> differences({"options": {"mode": "hann"}}, {"options": {"mode": "exact"}})
    'set of options (mode: "hann" then, "exact" now)'
    """
    parts = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{WORDS.get(name, name)}{_detail(old.get(name), new.get(name))}" for name in parts)


def _detail(old: object, new: object) -> str:
    """The first value that differs, if it is short enough to be read."""
    path = []
    while isinstance(old, dict) and isinstance(new, dict):
        name = next(name for name in [*old, *new] if old.get(name) != new.get(name))
        path.append(name)
        old, new = old.get(name), new.get(name)
    then, now = json.dumps(old), json.dumps(new)
    if not path or len(then) + len(now) > LONGEST_DETAIL:
        return ""
    return f" ({'.'.join(path)}: {then} then, {now} now)"


def source_version(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The version of every file of a source; a VRT may have thousands, which are not all sampled.

    Raises
    ------
    InputError
        if one cannot be read.
    """
    return [file_version(name, sampled=i < SAMPLED_FILES) for i, name in enumerate(names)]


def file_version(name: str, sampled: bool = True) -> dict[str, Any]:
    """What tells a file from a changed one without reading all of it.

    Raises
    ------
    InputError
        if it cannot be read.
    """
    if is_remote(name):
        return {"remote": remote_version(name)}
    try:
        status = Path(name).stat()
        return {
            "name": Path(name).name,
            "size": status.st_size,
            "changed": status.st_mtime_ns,
            "samples": _samples(Path(name), status.st_size) if sampled else "",
        }
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None


def stamps(names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """What changes when a file is replaced or written to, cheap enough to look at for every block."""
    return {name: _stamp(name) for name in names[:SAMPLED_FILES] if not is_remote(name)}


def check_unchanged(before: dict[str, tuple[int, ...]]) -> None:
    """Stop if a file is not what it was; nothing that was read from it since is to be stored.

    Raises
    ------
    DamageError
        naming it.
    """
    for name, stamp in before.items():
        if _stamp(name) != stamp:
            raise DamageError(f"{name} changed while it was read; start anew with --overwrite, or restore it")


def _stamp(name: str) -> tuple[int, ...]:
    try:
        status = os.stat(name)  # noqa: PTH116 - names, not paths
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _samples(path: Path, size: int) -> str:
    """Hash of the first, the last and evenly spread pieces of a file, or of all of a small one."""
    digest = hashlib.sha256()
    step = max(SAMPLE, (size - SAMPLE) // SAMPLES)
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(SAMPLE))
        file.seek(max(0, size - SAMPLE))
        digest.update(file.read())
    return digest.hexdigest()


def _device(provider: str) -> dict[str, str]:
    """What the network runs on, as far as it decides how sums are rounded."""
    return {"provider": provider, "processor": processor(), "gpu": gpus() if "CUDA" in provider else ""}


def gpus() -> str:
    """The models of the NVIDIA cards here, where the driver says so (Linux)."""
    texts = (path.read_text() for path in Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return ", ".join(sorted({text.partition("Model:")[2].partition("\n")[0].strip() for text in texts}))


@functools.cache
def processor() -> str:
    """The kind of processor: the same kind rounds the same way."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, "").split())
    return " ".join([platform.machine(), *sorted(INSTRUCTIONS & flags)])

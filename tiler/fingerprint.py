"""What a result depends on, to the byte: a run is only carried on by one that would make the same.

Files are told apart by size, time of change and a hash of samples; what changes no byte (batch, threads,
memory, shards) is not in it.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnxruntime as ort

from tiler import __version__
from tiler.errors import InputError
from tiler.readers.remote import is_remote, remote_version

if TYPE_CHECKING:
    from tiler.job import Job
    from tiler.ports import RasterInfo

Fingerprint = dict[str, Any]
"""Plain JSON values by name."""

LONGEST_DETAIL: Final = 100
SAMPLES: Final = 64
SAMPLE: Final = 65536
"""Bytes of each sample of a file."""
INSTRUCTIONS: Final = frozenset(
    ["avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "sve"]
)
"""Those that decide which kernels ONNX Runtime takes, and so how its sums are rounded."""
WORDS: Final = {
    "version": "version of gigatiler or ONNX Runtime",
    "model": "model, or its description",
    "source": "input file",
    "georeferencing": "CRS, transform or nodata value of the input",
    "options": "options that change the result",
    "device": "device or kind of processor",
}


def fingerprint(job: Job) -> Fingerprint:
    """Of a run that is opened."""
    return {
        "version": {"gigatiler": __version__, "onnxruntime": ort.__version__},
        "model": {"sha256": job.model.sha256, "spec": json.loads(job.model.spec.to_json())},
        "source": [file_version(name) for name in job.native.info.files],
        "georeferencing": _georeferencing(job.native.info),
        "options": json.loads(json.dumps({**job.settings, "output": job.options.output})),
        "device": {"provider": job.model.device.partition(",")[0], "processor": processor()},
    }


def _georeferencing(info: RasterInfo) -> dict[str, Any]:
    return {
        "crs": info.crs.to_wkt() if info.crs else None,
        "transform": None if info.transform is None else list(info.transform[:6]),
        # As text, because NaN is not equal to itself.
        "nodata": [str(value) for value in info.nodata],
    }


def differences(old: Fingerprint, new: Fingerprint) -> str:
    """What differs, with the values of the first entry that does; empty if nothing.

    >>> differences({"options": {"mode": "hann"}}, {"options": {"mode": "exact"}})
    'options that change the result (mode: "hann" then, "exact" now)'
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


def file_version(name: str) -> dict[str, Any]:
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
            "samples": _samples(Path(name), status.st_size),
        }
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None


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


def processor() -> str:
    """The kind of processor: the same kind rounds the same way."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, "").split())
    return " ".join([platform.machine(), *sorted(INSTRUCTIONS & flags)])

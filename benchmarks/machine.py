"""The machine that figures were measured on, in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from tiler.memory import in_words


def processor() -> str:
    """Its name, as Linux gives it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def describe() -> str:
    """Processor, cores, memory, system and Python."""
    memory = in_words(psutil.virtual_memory().total)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{processor()}, {os.cpu_count()} cores, {memory} of memory, {system}"

"""How much memory there is, and how much this process has taken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator


CGROUPS: Final = Path("/sys/fs/cgroup")


def available() -> int:
    """Bytes that could be taken now without swapping, or being killed for a container's limit."""
    return min([int(psutil.virtual_memory().available), *cgroup_rooms(CGROUPS, _cgroup())])


def _cgroup() -> Path:
    """The group of this process, version 2, below the root of all groups (Linux)."""
    table = Path("/proc/self/cgroup")
    lines = table.read_text().splitlines() if table.exists() else []
    names = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return Path(names[0]) if names else Path()


def cgroup_rooms(root: Path, group: Path) -> Iterator[int]:
    """Bytes left in a group of processes and in each that it is part of, where they have a limit."""
    for folder in (root / group, *(root / group).parents):
        if not folder.is_relative_to(root):
            return
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit.isdecimal():
            # Cached pages of files give way.
            yield max(0, int(limit) - used + int(stat.get("inactive_file", 0)))


def resident() -> int:
    """Bytes that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most bytes that this process has held so far."""
    if sys.platform == "linux":
        # getrusage would count what the parent process held when it started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_words(size: float) -> str:
    """A size for people.

    >>> in_words(1_870_000_000), in_words(512_000), in_words(90)
    ('1.87 GB', '512 kB', '90 B')
    """
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:.3g} {letter}B"
    return f"{size:.0f} B"

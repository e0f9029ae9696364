"""Memory that is freed stays with the process: a step asks for what the last one gave back."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

TRIM_THRESHOLD: Final = -1
MMAP_THRESHOLD: Final = -3
"""Parameters of glibc's `mallopt` (`man 3 mallopt`)."""
NEVER: Final = 2**31 - 1
LARGE: Final = 2**30, 2**25
"""Bytes from which memory is mapped from the kernel; the second is the most that older glibc takes."""


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, from now on and for the whole process; whether it does.

    The activations of a step are hundreds of megabytes, in pieces that glibc maps and unmaps one by one; the
    kernel clears their pages anew in every step. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is None:
        return False
    return bool(mallopt(TRIM_THRESHOLD, NEVER)) and any(mallopt(MMAP_THRESHOLD, size) for size in LARGE)

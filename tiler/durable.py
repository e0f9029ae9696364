"""Files that are there as a whole or not at all, also after a power cut: written aside, synced, renamed."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

PARTIAL: Final = ".partial"
"""Suffix of what is being written; a killed process leaves some behind."""


def write_whole(path: Path, content: Buffer, *, sync: bool = True) -> None:
    """Put content at ``path``, over what is there; without ``sync`` it may be empty after a power cut.

    Raises
    ------
    OSError
        if that fails; what was at ``path`` is still there.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Wait until a file that another library wrote is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":
        return  # Windows cannot open folders, and keeps their names by its journal
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

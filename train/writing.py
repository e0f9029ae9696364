"""Files that are there as a whole or not at all, and one line when a disk does not take them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from tiler.durable import sync_file, sync_folder
from tiler.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file; a kill or a power cut leaves the old one or the new one.

    What a kill leaves beside it has one name, and is written over by whoever comes next.
    """
    partial = path.with_name(f"{path.name}.partial")
    with writing(path):
        partial.write_bytes(content)
        sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what libraries raise when they cannot write into an `OutputError`.

    PyTorch reports a full disk as a RuntimeError, so put nothing but writing inside.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OutputError(f"cannot write {path}: {reason}; make room, and run again to carry on") from None

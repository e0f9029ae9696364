"""A file that is there as a whole or not at all."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiler.errors import OutputError, TilerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``out`` in the end, or is removed if anything is raised.

    Raises
    ------
    OutputError
        if it cannot be written.
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        yield partial
        partial.replace(out)
    except TilerError:
        # Some of ours are OSErrors too: a raster that is damaged is not an output that cannot be written.
        raise
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)

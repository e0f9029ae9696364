"""Where a run works: ``OUT.tif.run/`` beside the output.

Results are renamed out of it once they are verified. Whatever ends a run early, the folder goes and
nothing unfinished is left under a final name.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tiler.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = {".tif", ".tiff"}
LONGEST_NAME = 200
"""Bytes; file systems allow 255, and our suffixes need some."""


@dataclass(slots=True, eq=False)
class RunFolder:
    """The working folder of one output, as a context manager."""

    output: Path
    overwrite: bool = False
    path: Path = field(init=False)
    _ready: list[tuple[Path, Path]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.output.with_name(self.output.name + ".run")

    def __enter__(self) -> Self:
        """Make the folder, or say in one line why the output cannot be written.

        Raises
        ------
        UsageError
            if the place is taken or cannot be written to.
        """
        try:
            if self.path.is_dir() and self.overwrite:
                shutil.rmtree(self.path)
            self.path.mkdir()
        except FileExistsError:
            raise UsageError(
                f"{self.path} is there: another run is writing this output, or one was killed; "
                "wait for it, or pass --overwrite"
            ) from None
        except OSError as error:
            raise UsageError(f"cannot write to {self.output.parent}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def place(self, final: Path) -> Path:
        """A working name for a file that `publish` will rename to ``final``."""
        working = self.path / ("finished-" + final.name)
        self._ready.append((working, final))
        return working

    def write(self, final: Path, text: str) -> None:
        """Put text where `publish` will find it."""
        try:
            self.place(final).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {final}: {error.strerror}; is the disk full?") from None

    def publish(self) -> None:
        """Rename the finished files to their final names, the output itself last."""
        final = self.output
        try:
            # An old output must not lie beside a new report if the machine stops in between.
            self.output.unlink(missing_ok=True)
            for working, final in sorted(self._ready, key=lambda pair: pair[1] == self.output):
                working.replace(final)
        except OSError as error:
            raise OutputError(f"cannot write {final}: {error.strerror}") from None


def check_output(output: Path, source: Path, others: tuple[Path, ...], overwrite: bool) -> None:
    """Refuse an output path that cannot or should not be written.

    Raises
    ------
    UsageError
        with the reason and the fix.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the output is a GeoTIFF and ends in .tif, got {output}")
    if not output.parent.is_dir():
        raise UsageError(f"the output's folder does not exist: {output.parent}; create it first")
    if not os.fspath(output).isprintable():
        raise UsageError(f"the output's name is printable text, got {output!r}")
    if len(os.fsencode(output.name)) > LONGEST_NAME:
        raise UsageError(f"the output's name has at most {LONGEST_NAME} bytes, got {output.name[:40]}...")
    for path in (output, *others):
        if path.is_dir():
            raise UsageError(f"the output is a file, got a directory: {path}")
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"the output would replace the input {source}; choose another name")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists; pass --overwrite to replace it")

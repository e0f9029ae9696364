"""The folder of a run: whose it is, and what in it is the run's."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from tiler.durable import sync_folder
from tiler.errors import UsageError
from tiler.toml import read_toml
from train.writing import write_whole, writing

if TYPE_CHECKING:
    from pathlib import Path

    from train.options import TrainOptions

FIRST: Final = "options.toml"
"""Written before anything else, removed last: it tells that a folder is a run's."""
OURS: Final = (
    "best",
    "last",
    "epoch-*",
    "log.csv",
    "log.jsonl",
    "curve.png",
    "report",
    "tensorboard",
    "metrics.json",
    FIRST,
)
"""What a run writes, and what ``overwrite`` removes, in this order."""


def check_outdir(outdir: Path, options: TrainOptions, *, overwrite: bool) -> None:
    """Find a folder that is free, or holds this very run, or, to ``overwrite``, any run.

    Raises
    ------
    UsageError
        if it holds something else.
    """
    if outdir.exists() and not outdir.is_dir():
        raise UsageError(f"OUTDIR is a folder, got the file {outdir}")
    if (outdir / FIRST).exists():
        if not overwrite:
            options.check_same(read_toml(outdir / FIRST))
    elif outdir.exists() and {p.name for p in outdir.iterdir()} - {f"{FIRST}.partial"}:
        raise UsageError(f"OUTDIR is new, empty or an earlier run's, got {outdir}; name another")


def claim(outdir: Path, options: TrainOptions, *, overwrite: bool) -> None:
    """Write down whose folder it is; to ``overwrite``, after the earlier run is removed."""
    with writing(outdir):
        if overwrite:
            _remove_run(outdir)
        outdir.mkdir(parents=True, exist_ok=True)
        sync_folder(outdir.parent)
    if not (outdir / FIRST).exists():
        write_whole(outdir / FIRST, options.to_toml().encode())


def _remove_run(outdir: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    if not (outdir / FIRST).is_file():
        return
    for name in OURS:
        for path in (p for suffix in ("", ".partial", ".old") for p in outdir.glob(name + suffix)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

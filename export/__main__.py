"""``python -m export``."""

from __future__ import annotations

from export.cli import main
from tiler.cli.main import run_as_program

if __name__ == "__main__":
    run_as_program(main, "python -m export")

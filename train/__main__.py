"""``python -m train``."""

from __future__ import annotations

from tiler.cli.main import run_as_program
from train.cli import main

if __name__ == "__main__":
    run_as_program(main, "python -m train")

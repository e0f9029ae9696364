"""``python -m train``."""

from __future__ import annotations

import sys

from tiler.cli.main import run_command
from train.cli import main

if __name__ == "__main__":
    sys.exit(run_command(main, name="python -m train"))

"""``python -m export``."""

from __future__ import annotations

import sys

from export.cli import main
from tiler.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command(main, name="python -m export"))

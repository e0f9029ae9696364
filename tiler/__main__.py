"""``python -m tiler``."""

from tiler.cli.main import main

main()

"""The command line, run in this process."""

from __future__ import annotations

import sys
from pathlib import Path

from impon_hpo.cli.app import main


def run(*arguments: str | Path) -> int:
    """Run the command line in this process and return its exit code."""
    before = sys.argv
    sys.argv = ["impon-hpo", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0

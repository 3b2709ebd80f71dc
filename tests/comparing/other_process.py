"""A second process for a test: it takes its share of a grid, or is at a run until it is killed.

It imports no more than it needs, since that takes longer than the test itself.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from impon_hpo.comparing import cell as module
from impon_hpo.comparing import grid
from impon_hpo.comparing.cell import Cell
from impon_hpo.comparing.grid import run_grid

CELLS = Path("cells")
ROOT = Path(__file__).parent.parent.parent


def fake(cell: Cell, folder: Path) -> dict[str, Any]:
    """Stand in for a training, and take a little time."""
    time.sleep(0.03)
    return {"arm": cell.arm, "epochs": [{"val_accuracy": 0.5}], "ended": "", "by": os.getpid()}


class OtherProcess:
    """The process, as the test sees it; started when it is first asked, or asked after its end."""

    def __init__(self) -> None:
        self._process: Popen[str] | None = None

    def ask(self, task: str, cells: list[Cell]) -> None:
        """Let it do one of `TASKS` with these runs, in the working directory of the test."""
        Path("cells.pickle").write_bytes(pickle.dumps(cells))
        if self._process is None:
            command = [sys.executable, "-m", "tests.comparing.other_process"]
            self._process = Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{task} in {Path.cwd()}\n")
        self._process.stdin.flush()

    def line(self) -> str:
        """Wait for a line that it says."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        return line.rstrip("\n")

    def kill(self) -> None:
        """End it as the kernel ends a process, without a chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


def _for_ever(cell: Cell, folder: Path) -> dict[str, Any]:
    print("training", flush=True)
    time.sleep(600)
    return {}


def _slowly(cell: Cell, folder: Path) -> dict[str, Any]:
    print("training", flush=True)
    time.sleep(0.3)
    return fake(cell, folder)


TASKS = {"share": fake, "train slowly": _slowly, "train for ever": _for_ever}


def _main() -> None:
    grid.POLL_SECONDS = 0.05
    for line in sys.stdin:
        task, folder = line.strip().split(" in ", 1)
        os.chdir(folder)
        wanted: list[Cell] = pickle.loads(Path("cells.pickle").read_bytes())
        module._train = TASKS[task]
        run_grid(wanted, CELLS, n_workers=1, say=lambda said: print(said, flush=True))
        print("done", flush=True)


if __name__ == "__main__":
    _main()

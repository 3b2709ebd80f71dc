"""Tests of a side in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from impon_hpo.benchmarks.side_process import SideProcess
from impon_hpo.errors import ImponHpoError
from impon_hpo.tuning.lease import _began


def build_counter(*, start: int) -> Callable[[], tuple[int, int]]:
    if start < 0:
        raise ValueError("below zero")
    count = start

    def run() -> tuple[int, int]:
        nonlocal count
        count += 1
        if count > 2:
            os._exit(3)
        return os.getpid(), count

    return run


def test_it_is_built_once_and_runs_elsewhere_whenever_called() -> None:
    with SideProcess(build_counter, {"start": 0}) as side:
        (there, first), (again, second) = side(), side()
        assert there == again != os.getpid()
        assert (first, second) == (1, 2)
        with pytest.raises(ImponHpoError, match="its process ended with code 3"):
            side()


def test_a_side_that_cannot_be_built_says_why() -> None:
    with pytest.raises(ImponHpoError, match="ValueError: below zero"):
        SideProcess(build_counter, {"start": -1})


def build_sleeper(*, told: Path) -> Callable[[], None]:
    def run() -> None:
        told.write_text(str(os.getpid()))
        time.sleep(60)

    return run


def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    start = (
        "from pathlib import Path\n"
        "from impon_hpo.benchmarks.side_process import SideProcess\n"
        f"from {__name__} import build_sleeper\n"
        f"SideProcess(build_sleeper, {{'told': Path({str(told)!r})}})()"
    )
    root = Path(__file__).parent.parent.parent
    parent = subprocess.Popen([sys.executable, "-c", start], cwd=root)
    limit = time.monotonic() + 60
    while not told.exists() or not told.read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while _began(int(told.read_text())) is not None:
        assert time.monotonic() < limit
        time.sleep(0.05)

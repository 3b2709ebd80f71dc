"""Tests of a side in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from impon_hpo.benchmarks.side_process import SideProcess
from impon_hpo.errors import ImponHpoError


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

"""Tests of the measurement: order of the sides, spreads and ratios."""

from __future__ import annotations

import time

import pytest

from impon_hpo.benchmarks.measure import alternate, ratios, spread, surroundings
from impon_hpo.errors import ConfigError


def test_sides_take_turns_and_the_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    ran: list[str] = []
    seconds = alternate({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3)
    assert ran == ["a", "b"] * 4
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_no_round_is_refused() -> None:
    with pytest.raises(ConfigError, match="rounds must be at least 1, but got 0"):
        alternate({}, 0)


def test_spread_is_median_and_quartiles() -> None:
    found = spread([1, 2, 3, 4, 100])
    assert (found.low, found.median, found.high) == (2, 3, 4)
    assert found.scaled(10).columns("ms") == {"ms": 30.0, "ms_q1": 20.0, "ms_q3": 40.0}


def test_ratios_are_paired_by_round() -> None:
    # Twice as slow in each round; the ratio of the medians would be another.
    assert ratios([2, 20, 6], [1, 10, 3]).median == 2


def test_figures_have_four_digits() -> None:
    assert spread([1234.567]).columns("n")["n"] == 1235.0
    assert spread([0.00123456]).columns("n")["n"] == 0.001235


def test_surroundings_have_versions_hardware_and_load() -> None:
    found = surroundings("cpu")
    assert found["versions"]["torch"]
    assert found["threads"] == 1
    assert found["load"] >= 0

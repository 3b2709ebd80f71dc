"""A measurement: sides timed in turn in one run, and what is printed of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from impon_hpo.environment import environment
from impon_hpo.errors import ConfigError


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated figures."""

    low: float
    median: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """Return the spread of the figures times a positive factor."""
        return Spread(self.low * factor, self.median * factor, self.high * factor)

    def columns(self, name: str) -> dict[str, float]:
        """Return the median under `name` and the quartiles beside it, four digits each."""
        return {
            name: _rounded(self.median),
            f"{name}_q1": _rounded(self.low),
            f"{name}_q3": _rounded(self.high),
        }


@dataclass(frozen=True)
class Measurement:
    """What a benchmark found.

    Args:
        benchmark: Its name.
        settings: What was measured: sizes and repeats.
        environment: Versions, hardware, threads, and the machine's load when it began.
        rows: One mapping a side, the same keys in all; times are in the unit that the key says.
    """

    benchmark: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]


def spread(figures: Sequence[float]) -> Spread:
    """Return median and quartiles of one or more figures."""
    low, median, high = np.quantile(np.asarray(figures, dtype=np.float64), [0.25, 0.5, 0.75])
    return Spread(float(low), float(median), float(high))


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` takes by the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def check_rounds(rounds: int) -> None:
    """Raise `ConfigError` unless there is a round."""
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1, but got {rounds}.")


def alternate(
    sides: Mapping[str, Callable[[], Any]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time every side once a round, in turn, so that whatever else the machine does meets all.

    Args:
        sides: What to time, by name.
        rounds: Times that each side counts, at least 1.
        warm_up: Rounds before, which do not count.

    Returns:
        The seconds (rounds,) of each side, paired by round.

    Raises:
        ConfigError: There is no round.
    """
    check_rounds(rounds)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for at in range(-warm_up, rounds):
        for name, work in sides.items():
            taken = seconds_of(work)
            if at >= 0:
                seconds[name].append(taken)
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the spread of the ratios of two sides, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def surroundings(device: str) -> dict[str, Any]:
    """Return versions, hardware, threads, and how many processes wanted the CPU in the last minute.

    A load near 0 says that nothing else ran; else only ratios are to be relied on.
    """
    return environment(device) | {"load": round(os.getloadavg()[0], 2)}


def _rounded(figure: float) -> float:
    return float(f"{figure:.4g}")

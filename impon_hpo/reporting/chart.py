"""A chart as plain numbers, which pages and PNG files draw alike, and the colours of the arms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Okabe & Ito (2008): colour-blind people can tell them apart. Grey, not black, so that it also
# shows on dark pages.
CONTROL = "#7A7A7A"
KNOWN = {
    "uniform": CONTROL,
    "uniform-fraction": "#56B4E9",
    "uniform-short": "#E69F00",
    "placebo": "#CC79A7",
}
OTHERS = ("#D55E00", "#0072B2", "#009E73", "#A6761D", "#F0E442")
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Series:
    """One line, one set of points or one set of bars.

    Args:
        name: Its entry in the legend.
        x: Numbers, or the names of bars.
        y: Numbers; NaN breaks a line, so that one series can hold many lines.
        low: Lower ends of a band (lines) or of error bars (points), if there is one.
        high: Upper ends.
        kind: "line", "steps" (each value holds until the next one), "points" or "bars" (stacked).
        colour: As #RRGGBB.
        dash: One of `DASHES`.
        main: Whether a PNG file draws it, and a page at first.
        views: Names of the views of a page that draw it; none: all views.
        labels: A label for each point.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    kind: str = "line"
    colour: str = CONTROL
    dash: str = "solid"
    main: bool = True
    views: Sequence[str] = ()
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Chart:
    """Series over two axes.

    Args:
        key: Name of its file, without the ending.
        title: What it shows, in words.
        x: Title of the x axis with its unit.
        y: Title of the y axis with its unit.
        series: What is drawn.
        x_log: Whether the x axis is logarithmic.
        limits: (axis "x" or "y", value, label) of lines drawn across.
        note: How to read it.
    """

    key: str
    title: str
    x: str
    y: str
    series: Sequence[Series]
    x_log: bool = False
    limits: Sequence[tuple[str, float, str]] = field(default_factory=tuple)
    note: str = ""


def log_ticks(chart: Chart) -> list[float]:
    """Return the ticks of a logarithmic x axis: 1, 2, 5, 10 … over what the chart shows."""
    numbers = [float(x) for series in chart.series for x in series.x if float(x) > 0]
    if not numbers:
        return []
    low, high = min(numbers), max(numbers)
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    return [tick for tick in ticks if low / 2 <= tick <= high * 2]


class Palette:
    """Gives each arm the same colour in every chart, and each share of an epoch the same dash.

    Args:
        arms: The arms of the study in the order of its file, so that dashboard and reports agree.
    """

    def __init__(self, arms: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self._dashes: dict[str, str] = {"1": DASHES[0]}
        for arm in arms:
            self.colour(arm)

    def line(self, arm: str) -> tuple[str, str]:
        """Return the colour of an arm, and a dash that differs where arms share that colour.

        An arm keeps its colour whatever its share of an epoch and policy.
        """
        base = arm.partition(" (")[0].partition("@")[0]
        base = "placebo" if base.startswith("placebo-of-") else base
        if base in KNOWN:
            return KNOWN[base], DASHES[0]
        number = self._numbers.setdefault(base, len(self._numbers))
        return OTHERS[number % len(OTHERS)], DASHES[number // len(OTHERS) % len(DASHES)]

    def colour(self, arm: str) -> str:
        """Return the colour of an arm."""
        return self.line(arm)[0]

    def dash(self, fraction: str) -> str:
        """Return the dash of a share of an epoch."""
        if fraction not in self._dashes:
            self._dashes[fraction] = DASHES[len(self._dashes) % len(DASHES)]
        return self._dashes[fraction]

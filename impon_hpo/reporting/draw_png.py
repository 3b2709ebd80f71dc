"""Charts drawn as PNG files, by Matplotlib: what README files and print can show."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from impon_hpo.errors import StorageError
from impon_hpo.reporting.chart import Chart, log_ticks

DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_png(path: Path, chart: Chart) -> None:
    """Draw the main series of a chart.

    Raises:
        StorageError: The file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    drawn = Figure(figsize=(7, 4.2), layout="constrained")
    axes = drawn.subplots()
    bottom: dict[str, float] = {}
    for series in chart.series:
        if not series.main:
            continue
        if series.kind == "bars":
            names = [str(name) for name in series.x]
            below = [bottom.get(name, 0.0) for name in names]
            axes.bar(names, series.y, bottom=below, label=series.name, color=series.colour)
            for name, height in zip(names, series.y, strict=True):
                bottom[name] = bottom.get(name, 0.0) + height
        elif series.kind == "points":
            error = None
            if series.low is not None and series.high is not None:
                error = [
                    [y - low for y, low in zip(series.y, series.low, strict=True)],
                    [high - y for y, high in zip(series.y, series.high, strict=True)],
                ]
            axes.errorbar(
                series.x, series.y, yerr=error, fmt="o", label=series.name, color=series.colour
            )
        else:
            style = DASHES[series.dash]
            axes.plot(
                series.x,
                series.y,
                style,
                drawstyle="steps-post" if series.kind == "steps" else "default",
                marker="o",
                ms=3,
                label=series.name,
                color=series.colour,
            )
            if series.low is not None and series.high is not None:
                axes.fill_between(
                    series.x, series.low, series.high, color=series.colour, alpha=0.15, lw=0
                )
    for axis, value, label in chart.limits:
        (axes.axhline if axis == "y" else axes.axvline)(value, color="#808080", ls="--", lw=1)
        if axis == "y":
            across = ("axes fraction", "data")
            axes.annotate(label, (0.99, value), xycoords=across, ha="right", va="bottom", size=8)
    if chart.x_log:
        axes.set_xscale("log")
        axes.set_xticks(log_ticks(chart), minor=False)
        axes.set_xticklabels([f"{tick:g}" for tick in log_ticks(chart)])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(textwrap.fill(chart.title, 70), fontsize=11)
    axes.set(xlabel=textwrap.fill(chart.x, 80), ylabel=textwrap.fill(chart.y, 45))
    axes.tick_params(axis="x", labelrotation=30 if bottom else 0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(drawn, path)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error


def _save(drawn: Figure, path: Path) -> None:
    """Write a drawing with 256 colours, a third of the size on the disk."""
    from PIL import Image

    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110)
    with Image.open(buffer) as image:
        # Median cut, the default, gives two arms one colour where one of them has a short line.
        octree = Image.Quantize.FASTOCTREE
        few = image.convert("RGB").quantize(256, octree, dither=Image.Dither.NONE)
        few.save(path, format="PNG", optimize=True)

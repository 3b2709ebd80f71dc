"""Rendering of charts: with Plotly for pages and the dashboard, with Matplotlib as PNG files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from impon_hpo.reporting.chart import Chart, Series, log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = "#808080"  # readable on white and on black
GRID = "rgba(128,128,128,0.25)"
LETTERS = 40
"""Letters of a line of text beside an axis that a phone has room for."""
LINE = 20
"""Height in pixels of a line of a title or of a legend."""
CARD = 480
"""Width in pixels that a legend has at least in the dashboard on a screen."""
PNG_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def figure(chart: Chart) -> Any:
    """Return the Plotly figure of a chart with its title, as the dashboard shows it.

    Title and legend both stand above the axes. Plotly draws one over the other unless the margin
    has room for all their lines.
    """
    title = _folded(chart.title)
    height = LINE * (title.count("<br>") + 1 + _legend_lines(chart))
    return _figure(chart).update_layout(
        title={
            "text": title,
            "font": {"size": 15},
            "x": 0.02,
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 10},
        },
        margin={"t": height + 24},
    )


def fragments(charts: Sequence[Chart]) -> list[str]:
    """Return the charts as HTML fragments without titles, since the page has these; the first
    fragment holds the whole of Plotly."""
    return [
        _figure(chart).to_html(
            full_html=False,
            include_plotlyjs=number == 0,
            div_id=chart.key,
            default_height="460px",
            config={"responsive": True, "displaylogo": False},
        )
        for number, chart in enumerate(charts)
    ]


def png(chart: Chart) -> bytes:
    """Return the main series of a chart as a PNG file with 256 colours, which is a third of the
    size. Texts are drawn as they stand, dollars too; a letter that the font lacks is a box."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from PIL import Image

    buffer = io.BytesIO()
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        drawing = Figure(figsize=(7, 4.2), layout="constrained")
        axes = drawing.subplots()
        _draw(axes, chart)
        drawing.savefig(buffer, format="png", dpi=110)
    small = io.BytesIO()
    with Image.open(buffer) as image:
        # Median cut, the default, gives two arms one colour where one of them has a short line.
        octree = Image.Quantize.FASTOCTREE
        quantized = image.convert("RGB").quantize(256, octree, dither=Image.Dither.NONE)
        quantized.save(small, format="PNG", optimize=True)
    return small.getvalue()


def _legend_lines(chart: Chart) -> int:
    """Estimate the lines of a legend: an entry takes its letters and a piece of the line."""
    lines, room = 1, CARD
    for series in chart.series:
        width = 50 + 6 * len(series.name)
        if width > room:
            lines, room = lines + 1, CARD
        room -= width
    return lines


def _figure(chart: Chart) -> Any:
    """Return the Plotly figure of a chart without its title."""
    import plotly.graph_objects as go

    drawing = go.Figure()
    for series in chart.series:
        if series.kind == "bars":
            drawing.add_bar(x=series.x, y=series.y, name=series.name, marker_color=series.colour)
            continue
        visible: Any = True if series.main else False if series.views else "legendonly"
        meta = {"views": list(series.views)} if series.views else None
        if series.kind == "line" and series.low is not None and series.high is not None:
            drawing.add_scatter(
                x=[*series.x, *reversed(series.x)],
                y=[*series.high, *reversed(series.low)],
                mode="lines",
                fill="toself",
                fillcolor=_faint(series.colour),
                line_width=0,
                hoverinfo="skip",
                showlegend=False,
                legendgroup=series.name,
                visible=visible,
                meta=meta,
            )
        drawing.add_scatter(
            x=series.x,
            y=series.y,
            name=series.name,
            legendgroup=series.name,
            mode="markers" if series.kind == "points" else "lines+markers",
            line={
                "color": series.colour,
                "dash": series.dash,
                "width": 2,
                "shape": "hv" if series.kind == "steps" else "linear",
            },
            marker={"color": series.colour, "size": 9 if series.kind == "points" else 6},
            error_y=_plotly_errors(series),
            text=series.labels,
            visible=visible,
            meta=meta,
        )
    for axis, value, label in chart.limits:
        add = drawing.add_hline if axis == "y" else drawing.add_vline
        add(value, line={"color": TEXT, "dash": "dash", "width": 1}, annotation={"text": label})
    drawing.update_layout(
        xaxis={"title": {"text": _folded(chart.x), "font": {"size": 13}}},
        yaxis={"title": {"text": _folded(chart.y), "font": {"size": 13}}},
        barmode="stack",
        showlegend=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "system-ui, sans-serif"},
        # Above the axes, where it has room however many lines it takes.
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        margin={"l": 20, "r": 20, "t": 30, "b": 20},
        hovermode="closest",
    )
    drawing.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    drawing.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    if chart.x_log:
        ticks = log_ticks(chart)
        drawing.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return drawing


def _folded(text: str) -> str:
    return "<br>".join(textwrap.wrap(text, LETTERS, break_on_hyphens=False))


def _plotly_errors(series: Series) -> dict[str, Any] | None:
    errors = _errors(series)
    if series.kind != "points" or errors is None:
        return None
    below, above = errors
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def _errors(series: Series) -> tuple[list[float], list[float]] | None:
    """Return how far the lower and the upper ends are from the values."""
    if series.low is None or series.high is None:
        return None
    below = [y - low for y, low in zip(series.y, series.low, strict=True)]
    above = [high - y for y, high in zip(series.y, series.high, strict=True)]
    return below, above


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _draw(axes: Axes, chart: Chart) -> None:
    """Draw the main series of a chart on axes of Matplotlib's."""
    from matplotlib.ticker import NullLocator

    heights: dict[str, float] = {}  # of the bars that are stacked so far
    for series in chart.series:
        if not series.main:
            continue
        if series.kind == "bars":
            names = [str(name) for name in series.x]
            bottom = [heights.get(name, 0.0) for name in names]
            axes.bar(names, series.y, bottom=bottom, label=series.name, color=series.colour)
            for name, height in zip(names, series.y, strict=True):
                heights[name] = heights.get(name, 0.0) + height
        elif series.kind == "points":
            axes.errorbar(
                series.x,
                series.y,
                yerr=_errors(series),
                fmt="o",
                label=series.name,
                color=series.colour,
            )
        else:
            axes.plot(
                series.x,
                series.y,
                PNG_DASHES[series.dash],
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
        (axes.axhline if axis == "y" else axes.axvline)(value, color=TEXT, ls="--", lw=1)
        if axis == "y":
            right = ("axes fraction", "data")
            axes.annotate(label, (0.99, value), xycoords=right, ha="right", va="bottom", size=8)
    if chart.x_log:
        ticks = log_ticks(chart)
        axes.set_xscale("log")
        axes.set_xticks(ticks, minor=False)
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(textwrap.fill(chart.title, 70), fontsize=11)
    axes.set(xlabel=textwrap.fill(chart.x, 80), ylabel=textwrap.fill(chart.y, 45))
    axes.tick_params(axis="x", labelrotation=30 if heights else 0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2)

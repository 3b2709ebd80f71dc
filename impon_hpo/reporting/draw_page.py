"""Charts drawn for a page: Plotly figures that work without network, in light and dark."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from impon_hpo.reporting.chart import Chart, Series, log_ticks

TEXT = "#808080"  # reads on white and on black
LINES = "rgba(128,128,128,0.25)"
LETTERS = 40
"""Letters of a line of text beside an axis that a phone has room for."""
LINE = 20
"""Height in pixels of a line of a title or of a legend."""
CARD = 480
"""Width in pixels that a legend has in the dashboard, at least on a screen."""


def figure(chart: Chart) -> Any:
    """Return the Plotly figure of a chart with its title, as the dashboard shows it.

    Title and legend both stand above the axes, and Plotly lays one over the other unless the
    margin has room for their lines.
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

    made = go.Figure()
    for series in chart.series:
        if series.kind == "bars":
            made.add_bar(x=series.x, y=series.y, name=series.name, marker_color=series.colour)
            continue
        shown: Any = True if series.main else False if series.views else "legendonly"
        meta = {"views": list(series.views)} if series.views else None
        if series.kind == "line" and series.low is not None and series.high is not None:
            made.add_scatter(
                x=[*series.x, *reversed(series.x)],
                y=[*series.high, *reversed(series.low)],
                mode="lines",
                fill="toself",
                fillcolor=_faint(series.colour),
                line_width=0,
                hoverinfo="skip",
                showlegend=False,
                legendgroup=series.name,
                visible=shown,
                meta=meta,
            )
        made.add_scatter(
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
            error_y=_error(series),
            text=series.labels,
            visible=shown,
            meta=meta,
        )
    for axis, value, label in chart.limits:
        add = made.add_hline if axis == "y" else made.add_vline
        add(value, line={"color": TEXT, "dash": "dash", "width": 1}, annotation={"text": label})
    made.update_layout(
        xaxis={"title": {"text": _folded(chart.x), "font": {"size": 13}}},
        yaxis={"title": {"text": _folded(chart.y), "font": {"size": 13}}},
        barmode="stack",
        showlegend=True,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": TEXT, "family": "system-ui, sans-serif"},
        # Above, where it pushes nothing aside and meets no axis, however many lines it has.
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        margin={"l": 20, "r": 20, "t": 30, "b": 20},
        hovermode="closest",
    )
    made.update_xaxes(gridcolor=LINES, zerolinecolor=LINES, automargin=True)
    made.update_yaxes(gridcolor=LINES, zerolinecolor=LINES, automargin=True)
    if chart.x_log:
        ticks = log_ticks(chart)
        made.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return made


def _folded(text: str) -> str:
    return "<br>".join(textwrap.wrap(text, LETTERS, break_on_hyphens=False))


def _error(series: Series) -> dict[str, Any] | None:
    if series.kind != "points" or series.low is None or series.high is None:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": _distances(series.y, series.high),
        "arrayminus": _distances(series.low, series.y),
    }


def _distances(low: Sequence[float], high: Sequence[float]) -> list[float]:
    return [above - below for below, above in zip(low, high, strict=True)]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def fragments(charts: Sequence[Chart]) -> list[str]:
    """Return the charts as HTML fragments without their titles, which the page has; the first one
    has the whole of Plotly in it."""
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

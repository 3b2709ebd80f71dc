"""Tests of drawn charts: each line in its colour, in small files, the same on pages."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from impon_hpo.reporting.chart import KNOWN, OTHERS, Chart, Palette, Series, log_ticks
from impon_hpo.reporting.render import figure, png


def short_lines(*, main: bool = True) -> Chart:
    """Return a chart with a long line, and a few points in every other colour we have."""
    long = np.linspace(1.0, 300.0, 200)
    colours = [*KNOWN.values(), *OTHERS]
    series = [Series("long", long.tolist(), np.sqrt(long).tolist(), [0.0] * 200, long.tolist())]
    series += [
        Series(f"arm {at}", [1.0, 2.0], [10.0 * at, 10.0 * at], colour=colour, main=main)
        for at, colour in enumerate(colours)
    ]
    return Chart("lines", "Lines", "cost", "accuracy", series, x_log=True)


def colours_of(content: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Image.open(io.BytesIO(content)) as image:
        return np.unique(np.asarray(image.convert("RGB"), np.int64).reshape(-1, 3), axis=0)


def distance(content: bytes, colour: str) -> int:
    """Return how far the nearest colour of a picture is, of 255 in its worst channel."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int(np.abs(colours_of(content) - wanted).max(axis=1).min())


def test_every_line_keeps_its_colour_in_a_small_file() -> None:
    chart = short_lines()
    content = png(chart)
    assert len(content) < 60_000
    assert {series.name: distance(content, series.colour) for series in chart.series} == {
        series.name: pytest.approx(0, abs=6) for series in chart.series
    }


@pytest.mark.parametrize("text", ["Is $x_{ worth $100?", "$\\nonsense$", "猫", "two\nlines"])
def test_any_text_is_drawn_without_a_warning(text: str) -> None:
    bars = Series(text, [text, "b"], [1.0, 2.0], kind="bars")
    chart = Chart("bars", text, text, text, [bars], limits=[("y", 1.0, text)])
    with Image.open(io.BytesIO(png(chart))) as image:
        assert image.width > 500


def test_what_is_not_main_is_not_drawn() -> None:
    assert distance(png(short_lines(main=False)), OTHERS[0]) > 40


def test_a_logarithmic_axis_has_numbers_that_a_person_reads() -> None:
    assert log_ticks(short_lines()) == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    assert log_ticks(Chart("none", "", "", "", [], x_log=True)) == []


def test_a_page_has_the_same_lines_in_the_same_colours() -> None:
    chart = short_lines()
    traces = [trace for trace in figure(chart).data if trace.name]
    assert [(trace.name, trace.line.color, list(trace.x), list(trace.y)) for trace in traces] == [
        (series.name, series.colour, list(series.x), list(series.y)) for series in chart.series
    ]


def test_points_have_their_error_bars_and_bars_are_stacked() -> None:
    points = Series("points", [1.0], [3.0], [2.0], [5.0], kind="points")
    error = figure(Chart("points", "", "", "", [points])).data[0].error_y
    assert (list(error.array), list(error.arrayminus)) == ([2.0], [1.0])
    bars = [Series(name, ["a"], [1.0], kind="bars", colour=OTHERS[0]) for name in ("low", "high")]
    stacked = Chart("bars", "", "", "", bars)
    assert figure(stacked).layout.barmode == "stack"
    assert distance(png(stacked), OTHERS[0]) < 6


def test_arms_keep_their_colours_and_none_look_alike() -> None:
    palette = Palette(["uniform", *(f"arm {number}" for number in range(12))])
    assert palette.line("uniform@1/3 (cosine)") == (KNOWN["uniform"], "solid")
    assert palette.colour("arm 3@1/2") == palette.colour("arm 3 (constant, last)")
    assert len({palette.line(f"arm {number}") for number in range(12)}) == 12

"""Tests of the pictures of charts: each line in its colour, and small enough for a repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impon_hpo.errors import StorageError
from impon_hpo.reporting.chart import KNOWN, OTHERS, Chart, Series, log_ticks
from impon_hpo.reporting.draw_png import write_png


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


def colours_of(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Image.open(path) as image:
        return np.unique(np.asarray(image.convert("RGB"), np.int64).reshape(-1, 3), axis=0)


def distance(path: Path, colour: str) -> int:
    """Return how far the nearest colour of a picture is, of 255 in its worst channel."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int(np.abs(colours_of(path) - wanted).max(axis=1).min())


def test_every_line_keeps_its_colour_in_a_small_file() -> None:
    chart = short_lines()
    path = Path("pictures/lines.png")
    write_png(path, chart)
    assert path.stat().st_size < 60_000
    assert {series.name: distance(path, series.colour) for series in chart.series} == {
        series.name: pytest.approx(0, abs=6) for series in chart.series
    }


def test_what_is_not_main_is_not_drawn() -> None:
    path = Path("lines.png")
    write_png(path, short_lines(main=False))
    assert distance(path, OTHERS[0]) > 40


def test_a_logarithmic_axis_has_numbers_that_a_person_reads() -> None:
    assert log_ticks(short_lines()) == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    assert log_ticks(Chart("none", "", "", "", [], x_log=True)) == []


def test_a_file_that_cannot_be_written_is_told() -> None:
    Path("lines.png").mkdir()
    with pytest.raises(StorageError, match=r"'lines\.png' cannot be written"):
        write_png(Path("lines.png"), short_lines())

"""Tests of the live table: what it shows is what the storage holds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from impon_hpo.live_table import clock, live_table, seconds_left, sparkline
from impon_hpo.storage.trials import StudyRecord, read_study
from tests.reporting.running import add_epochs, begun_study, finish


def drawn(record: StudyRecord, n_trials: int, budget: str = "") -> str:
    said = io.StringIO()
    Console(file=said, width=120).print(live_table("small, arm impon", [record], n_trials, budget))
    return said.getvalue()


def test_running_trials_have_curve_epoch_pace_and_time_left() -> None:
    study = begun_study()
    first, second = study.ask(), study.ask()
    add_epochs(first, 0.1, 0.5, 0.8)
    line = next(line for line in drawn(read_study(study), 4).splitlines() if "▁" in line)
    # 6 of 9 epochs are left, of 2 seconds each.
    assert line.split() == ["0", "▁▅█", "0.8000", "3/9", "500", "0:12"]
    assert f"{second.number}" in drawn(read_study(study), 4).splitlines()[4]
    assert "0/9" in drawn(read_study(study), 4)


def test_head_says_what_the_study_has_come_to() -> None:
    study = begun_study()
    first = study.ask()
    add_epochs(first, *(at / 10 for at in range(1, 10)))
    text = drawn(finish(study, first, 0.9), 4, "3 epochs")
    assert "small, arm impon: finished 1/4" in text
    assert "pruned 0" in text
    assert "best 0.9000 (trial 0)" in text
    assert "budget left 3 epochs" in text
    assert "no trial is running" in text
    assert "best -" in drawn(read_study(begun_study()), 4)
    assert "budget" not in drawn(read_study(begun_study()), 4)


def test_time_left_is_shared_by_the_workers() -> None:
    study = begun_study()
    first = study.ask()
    add_epochs(first, *[0.5] * 3)
    record = finish(study, first, 0.5)
    assert seconds_left([record], 3) == pytest.approx(2 * 3 * 2)  # two trials of three epochs
    running = [study.ask(), study.ask()]
    add_epochs(running[0], 0.5)
    assert seconds_left([read_study(study)], 3) == pytest.approx((2 * 3 - 1) * 2 / 2)
    assert seconds_left([record], 1) == 0
    assert seconds_left([read_study(begun_study())], 3) == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], ""), ([0.0, 1.0], "▁█"), ([0.5, 0.5], "▅▅"), ([-9.0, 9.0], "▁█")],
)
def test_sparkline_keeps_its_scale(values: list[float], expected: str) -> None:
    assert sparkline(values, 0.0, 1.0) == expected
    assert set(sparkline(values, 0.5, 0.5)) <= {"▁"}
    assert len(sparkline([0.0] * 1000, 0, 1)) == 24


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 61, 3600)] == ["0:00", "1:01", "1:00:00"]

"""Tests of the live table and of `watch`: they show what the storage holds, and end with it."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from impon_hpo.storage.trials import IDENTITY, UNTIL, WANTED, StudyRecord, read_study
from impon_hpo.tuning.lease import put_back
from impon_hpo.tuning.live_table import clock, live_table, seconds_left, sparkline, watch
from tests.reporting.records import BALANCED, IDENTITY_OF_IT
from tests.reporting.running import add_epochs, begun_study, finish

LINES = [
    "impon  trial 0 running  epoch 0/9",
    "impon  trial 0 running  epoch 1/9  val accuracy 0.1000",
    "impon  trial 0 running  epoch 2/9  val accuracy 0.4000",
    "impon  trial 0 complete  epoch 2/9  val accuracy 0.4000",
]


def drawn(record: StudyRecord, n_trials: int, budget: str = "") -> str:
    printed = io.StringIO()
    table = live_table("small, arm impon", [record], n_trials, budget)
    Console(file=printed, width=120).print(table)
    return printed.getvalue()


def test_running_trials_have_curve_epoch_pace_and_time_left() -> None:
    study = begun_study()
    first, second = study.ask(), study.ask()
    add_epochs(first, 0.1, 0.5, 0.8)
    line = next(line for line in drawn(read_study(study), 4).splitlines() if "▁" in line)
    # 6 of 9 epochs are left, of 2 seconds each.
    assert line.split() == ["0", "▁▅█", "0.8000", "3/9", "500", "0:12"]
    assert f"{second.number}" in drawn(read_study(study), 4).splitlines()[4]
    assert "0/9" in drawn(read_study(study), 4)


def test_table_says_which_accuracy_it_is() -> None:
    study = begun_study()
    add_epochs(study.ask(), 0.1)
    assert "accuracy by epoch  val accuracy" in drawn(read_study(study), 4)
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT | BALANCED)
    head = drawn(read_study(study), 4).splitlines()
    (first,) = (number for number, line in enumerate(head) if "val balanced" in line)
    assert head[first].split() == ["balanced", "val", "balanced"]
    assert head[first + 1].split()[:6] == ["trial", "accuracy", "by", "epoch", "accuracy", "epoch"]


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


def test_trials_that_wait_at_a_rung_are_shown_with_their_place() -> None:
    study = begun_study()
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT | {"pruner": {"name": "promote"}})
    waiting = {0: (1, [0.2]), 1: (3, [0.3, 0.4, 0.6]), 2: (1, [0.1]), 3: (1, [0.25])}
    trials = [study.ask() for _ in range(5)]
    add_epochs(trials[4], 0.5)
    for number, (until, accuracies) in waiting.items():
        add_epochs(trials[number], *accuracies)
        trials[number].set_user_attr(UNTIL, until)
        put_back(study, trials[number]._trial_id)
    text = drawn(read_study(study), 9)
    assert "waiting 4" in text
    waits = [line.split() for line in text.splitlines() if "waits" in line]
    assert [(line[0], line[2], line[3]) for line in waits] == [
        ("1", "0.6000", "3/9"),
        ("3", "0.2500", "1/9"),
        ("0", "0.2000", "1/9"),
        ("2", "0.1000", "1/9"),
    ]
    # Five have come to epoch 1, the running one and trial 1 among them.
    assert [" ".join(line[-5:]) for line in waits] == [
        "waits, place 1 of 1",
        "waits, place 3 of 5",
        "waits, place 4 of 5",
        "waits, place 5 of 5",
    ]
    # 9 trials are 9 + 3 * 2 + 6 epochs, of which 7 are done, at 2 seconds each.
    assert seconds_left([read_study(study)], 9) == pytest.approx(2.0 * (21 - 7))


def test_studies_of_a_comparison_share_a_table_with_a_column_for_the_arm() -> None:
    studies = [begun_study(), begun_study()]
    add_epochs(studies[1].ask(), 0.25)
    records = [read_study(study) for study in studies]
    printed = io.StringIO()
    Console(file=printed, width=120).print(live_table("small", records, 6))
    head, names, row, *_ = [line for line in printed.getvalue().splitlines() if line.strip()]
    assert head.startswith("small: finished 0/6  time left")
    assert names.split()[:2] == ["arm", "trial"]
    assert row.split()[:2] == ["impon", "0"]


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


def watched(console: Console) -> int:
    """Watch a study whose trial moves on between looks; return the looks it took."""
    study = begun_study()
    trial = study.ask()
    looks = 0

    def read() -> tuple[list[StudyRecord], list[StudyRecord]]:
        nonlocal looks
        looks += 1
        if looks == 2:
            add_epochs(trial, 0.1)
        elif looks == 4:
            add_epochs(trial, 0.1, 0.4)
        elif looks == 5:
            finish(study, trial, 0.4)
        return [read_study(study)], []

    (record,), _ = watch(read, wanted=lambda arm: 1, console=console, interval=0.01)
    assert record.n_finished == 1
    return looks


def test_every_change_is_a_line_where_there_is_no_terminal() -> None:
    printed = io.StringIO()
    assert watched(Console(file=printed, width=120)) == 5
    assert printed.getvalue().splitlines() == LINES


def test_terminal_gets_the_table() -> None:
    printed = io.StringIO()
    watched(Console(file=printed, width=120, force_terminal=True))
    assert "finished 0/1" in printed.getvalue()
    assert "▁█" in printed.getvalue()
    assert "finished 1/1" in printed.getvalue()


def watched_with_comparison(console: Console) -> int:
    """Watch an arm that is finished, and a comparison of two studies that go on between looks."""
    arm, *studies = [begun_study() for _ in range(3)]  # all for the arm of the same name
    finish(arm, arm.ask(), 0.5)
    for study in studies:
        study.set_user_attr(IDENTITY, IDENTITY_OF_IT | {"study": "small compare"})
        study.set_user_attr(WANTED, 1)
    trials = [study.ask() for study in studies]
    looks = 0

    def read() -> tuple[list[StudyRecord], list[StudyRecord]]:
        nonlocal looks
        looks += 1
        if looks == 2:
            add_epochs(trials[1], 0.1, 0.4)
        elif looks in (3, 4):
            finish(studies[looks - 3], trials[looks - 3], 0.4)
        return [read_study(arm)], [read_study(study) for study in studies]

    arms, comparison = watch(read, wanted=lambda arm: 1, console=console, interval=0.01)
    assert [len(arms), len(comparison)] == [1, 2]
    return looks


def test_comparison_is_shown_below_the_arms_until_it_has_all_its_runs() -> None:
    printed = io.StringIO()
    assert watched_with_comparison(Console(file=printed, width=120, force_terminal=True)) == 4
    text = printed.getvalue()
    assert text.index("small, arm impon: finished 1/1") < text.index("small compare: finished 0/2")
    assert "▁█" in text
    assert "small compare: finished 2/2" in text


def test_runs_of_a_comparison_are_lines_of_their_own_where_there_is_no_terminal() -> None:
    printed = io.StringIO()
    assert watched_with_comparison(Console(file=printed, width=120)) == 4
    assert printed.getvalue().splitlines() == [
        "impon  trial 0 complete  epoch 0/9",
        *["comparison  impon  trial 0 running  epoch 0/9"] * 2,
        "comparison  impon  trial 0 running  epoch 2/9  val accuracy 0.4000",
        "comparison  impon  trial 0 complete  epoch 0/9",
        "comparison  impon  trial 0 complete  epoch 2/9  val accuracy 0.4000",
    ]


def test_notebook_gets_the_lines_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    front = SimpleNamespace(display=lambda drawn: shown.append(drawn.text.strip()))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=front))
    monkeypatch.setitem(sys.modules, "IPython.display", front)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # it is not there
    watched(Console(width=120, force_jupyter=True))
    assert shown == LINES

"""The budget: what a study has spent, and that it spends no more than it may."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from impon_hpo.cli.app import main
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import StudyRecord, TrialRecord, read_studies
from impon_hpo.tuning.budget import Budget, BudgetSpentError, Spent, spent
from tests.studies import SMALL, write_study

UNPRUNED = SMALL.replace(
    'name = "SuccessiveHalvingPruner"\nreduction_factor = 3', 'name = "NopPruner"'
)


def epoch(cost: float) -> dict[str, Any]:
    return {
        "cost": cost,
        "seconds_drawing": 1.0,
        "seconds_stepping": 2.0,
        "seconds_validating": 0.5,
    }


def trial(number: int, *costs: float, **wasted: float) -> TrialRecord:
    epochs = [epoch(cost) for cost in costs]
    return TrialRecord(
        number,
        "RUNNING",
        {},
        None,
        epochs,
        sum(costs),
        9,
        "",
        "",
        None,
        **wasted,  # type: ignore[arg-type]
    )


def record(*trials: TrialRecord, reference: float = 0.0) -> StudyRecord:
    references = {"key": {"cost": reference}}
    return StudyRecord(None, {}, "", {}, [], references, list(trials))  # type: ignore[arg-type]


def test_everything_counts_once() -> None:
    wasted = {"wasted_epochs": 2, "wasted_cost": 7.0, "wasted_seconds": 1.5}
    one = record(trial(0, 10.0, 20.0), trial(1, 5.0, **wasted), reference=100.0)
    assert spent([one]) == Spent(epochs=5, cost=142.0, seconds=3 * 3.5 + 1.5)
    assert spent([one, one]) == Spent(epochs=10, cost=284.0, seconds=2 * (3 * 3.5 + 1.5))
    assert spent([]) == Spent(0, 0, 0)


@pytest.mark.parametrize(
    ("budget", "complaint"),
    [
        (Budget(), None),
        (Budget(max_epochs=6), None),
        (Budget(max_epochs=5), "5 of 5 epochs are spent"),
        (Budget(max_cost=1000.0), "1,200 of 1,000 forward-equivalents are spent"),
        (Budget(max_cost=2000.0, max_seconds=30.0), "30 of 30 seconds of training are spent"),
    ],
)
def test_what_is_reached(budget: Budget, complaint: str | None) -> None:
    total = Spent(epochs=5, cost=1200.0, seconds=30.0)
    if complaint is None:
        budget.check(total)
    else:
        with pytest.raises(BudgetSpentError, match=complaint):
            budget.check(total)
    assert budget.given == (budget != Budget())


def test_what_is_left_is_told_in_words() -> None:
    total = Spent(epochs=2, cost=20, seconds=6.0)
    budget = Budget(max_epochs=9, max_cost=1e4, max_seconds=67)
    assert budget.left(total) == "7 epochs, 9,980 forward-equivalents, 1:01 of training"
    assert Budget(max_epochs=1).left(total) == "0 epochs"
    assert Budget().left(total) == ""


def tune(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["impon-hpo", "tune", "small", "--arm", "uniform", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def found() -> StudyRecord:
    (record,) = read_studies(open_storage("sqlite:///runs/small/study.db", create=False), "small")
    return record


def test_study_stops_within_a_trial_and_goes_on_with_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(UNPRUNED)
    assert tune(monkeypatch, "--max-epochs", "4") == 0
    assert "The budget is spent: 4 of 4 epochs are spent." in capsys.readouterr().err
    assert [len(t.epochs) for t in found().trials] == [3, 1]
    assert [t.state for t in found().trials] == ["COMPLETE", "WAITING"]

    assert tune(monkeypatch, "--max-epochs", "4") == 0  # nothing more
    assert spent([found()]).epochs == 4

    one = found().trials[0].epochs[0]["cost"]
    limit = spent([found()]).cost + one
    assert tune(monkeypatch, "--max-cost", str(limit)) == 0
    assert limit <= spent([found()]).cost < limit + 2 * one
    assert spent([found()]).epochs == sum(len(t.epochs) for t in found().trials)  # none done twice

    assert tune(monkeypatch) == 0
    assert [len(t.epochs) for t in found().trials] == [3, 3, 3]
    assert found().n_finished == 3


@pytest.mark.slow
def test_seconds_are_those_of_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(UNPRUNED.replace("epochs = 3", "epochs = 200"))
    assert tune(monkeypatch, "--max-seconds", "1") == 0
    assert "seconds of training are spent" in capsys.readouterr().err
    total = spent([found()])
    last = found().trials[-1].epochs[-1]
    assert total.seconds >= 1
    assert total.seconds - sum(last[key] for key in last if key.startswith("seconds")) < 1
    assert found().trials[-1].state == "WAITING"

"""Tests of what is reported of an arm: summary, commands, tables and note."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from impon_hpo.errors import StorageError
from impon_hpo.record import (
    COMMAND,
    COST,
    ENVIRONMENTS,
    EPOCHS,
    IDENTITY,
    QUESTION,
    REASON,
    StudyRecord,
    read_study,
)
from impon_hpo.reporting.csv_files import write_csv_files
from impon_hpo.reporting.dashboard import note
from impon_hpo.reporting.summary import summarise, summary_rows

LR = optuna.distributions.FloatDistribution(1e-3, 1.0)
OPTIMIZER = optuna.distributions.CategoricalDistribution(["sgd", "it's adam"])
IDENTITY_OF_IT: dict[str, Any] = {
    "study": "small",
    "arm": "impon",
    "seed": 1,
    "pruner": {"name": "MedianPruner", "n_startup_trials": 3},
    "study_sampler": {"name": "TPESampler"},
    "run": {
        "dataset": "digits",
        "model": "resnet18",
        "width": 4,
        "epochs": 9,
        "sampler": "impon",
        "sampler_options": {"bank_size": 100},
    },
    "space": {"lr": "float 0.001 … 1"},
}


def _epochs(count: int, cost: int = 10) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "val_accuracy": epoch / 10,
            "cost": cost,
            "diagnostics": {"class_balance": 0.9},
        }
        for epoch in range(1, count + 1)
    ]


def _record(*, storage: str | None = None) -> StudyRecord:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    study.set_user_attr(QUESTION, "Which one?")
    study.set_user_attr(
        COMMAND, {"study": "studies/small", "settings": ["epochs=9"], "storage": storage}
    )
    environment = {"versions": {"torch": "2.15.0"}, "cpu": "a CPU", "platform": "Linux"}
    study.set_user_attr(ENVIRONMENTS, [environment])

    def add(state: TrialState, value: float | None, n_epochs: int, reason: str = "") -> None:
        attrs = {EPOCHS: _epochs(n_epochs), COST: 10 * n_epochs} | (
            {REASON: reason} if reason else {}
        )
        params = {"lr": 0.1 + len(study.trials) / 100, "optimizer": "it's adam"}
        distributions = {"lr": LR, "optimizer": OPTIMIZER}
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=params,
                distributions=distributions,
                user_attrs=attrs,
            )
        )

    add(TrialState.COMPLETE, 0.8, 9)
    add(TrialState.PRUNED, 0.95, 2, "pruned after epoch 2")  # better, but never judged at the end
    add(TrialState.COMPLETE, 0.9, 9)
    add(TrialState.FAIL, None, 1, "RuntimeError: no")
    return read_study(study)


def test_a_summary_adds_up() -> None:
    facts = summarise(_record())
    assert facts["trials"] == {"complete": 2, "pruned": 1, "fail": 1, "running": 0, "waiting": 0}
    assert facts["finished"] == 4
    assert facts["epochs"] == 9 + 2 + 9 + 1
    assert facts["epochs_without_pruning"] == 9 + 9 + 9 + 1
    assert facts["cost"] == 210
    assert facts["cost_without_pruning"] == 280
    assert facts["cost_ratio"] == 0.75
    assert (facts["best"]["trial"], facts["best"]["val_accuracy"]) == (2, 0.9)


def test_the_retrain_command_is_one_that_a_shell_takes_apart_again() -> None:
    words = shlex.split(summarise(_record(storage="sqlite:///x.db"))["best"]["retrain"])
    assert words == [
        *("impon-hpo", "train", "studies/small", "--arm", "impon"),
        *("--set", "epochs=9", "--set", f"lr={0.1 + 2 / 100!r}", "--set", "optimizer=it's adam"),
    ]


def test_commands_name_the_storage_only_where_it_was_given() -> None:
    given = summarise(_record(storage="sqlite:///x.db"))
    assert given["dashboard"] == "impon-hpo dashboard studies/small --storage sqlite:///x.db"
    assert "--storage sqlite:///x.db" in given["continue"]
    assert summarise(_record())["dashboard"] == "impon-hpo dashboard studies/small"


def test_rows_for_people_say_what_was_spent_against_no_pruning() -> None:
    rows = dict(summary_rows(summarise(_record())))
    assert rows["trials"] == "2 complete, 1 pruned, 1 failed"
    assert rows["best lr"] == "0.12"
    assert rows["epochs spent"] == "21 of 28 without pruning"
    assert rows["cost spent"] == "210 of 280 forward-equivalents without pruning (75%)"


def test_a_study_without_a_complete_trial_has_no_best() -> None:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    facts = summarise(read_study(study))
    assert facts["best"] is None
    assert facts["cost_ratio"] is None
    assert dict(summary_rows(facts))["best"] == "no trial is complete yet"


def test_tables_hold_every_epoch_and_every_trial() -> None:
    write_csv_files(Path("runs/small"), [_record()])
    with Path("runs/small/epochs.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    with Path("runs/small/trials.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    assert len(epochs) == 21
    assert epochs[0] == {
        "arm": "impon",
        "trial": "0",
        "epoch": "1",
        "val_accuracy": "0.1",
        "cost": "10",
        "class_balance": "0.9",
    }
    assert [trial["state"] for trial in trials] == ["COMPLETE", "PRUNED", "COMPLETE", "FAIL"]
    assert trials[1]["reason"] == "pruned after epoch 2"
    assert sum(float(trial["cost"]) for trial in trials) == 210
    assert sorted(path.name for path in Path("runs/small").iterdir()) == [
        "epochs.csv",
        "trials.csv",
    ]


def test_tables_that_cannot_be_written_say_so() -> None:
    Path("runs").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        write_csv_files(Path("runs/small"), [_record()])


def test_the_note_says_what_was_run_and_how_and_what_came_of_it() -> None:
    text = note(_record())
    for expected in (
        "# small: arm `impon`",
        "Which one?",
        "`impon` (bank_size = 100)",
        "`MedianPruner(n_startup_trials=3)`",
        "2 trials complete, 1 pruned, 1 failed",
        "21 epochs of 28",
        "trial 2 with validation accuracy 0.9000",
        "impon-hpo train studies/small",
        "impon-hpo tune studies/small --arm impon --set epochs=9",
        "| width | `4` |",
        "torch 2.15.0 on a CPU",
    ):
        assert expected in text

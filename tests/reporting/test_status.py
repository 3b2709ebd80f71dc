"""Tests of what a study has come to: facts and commands of each arm, tables, and the disk."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial

from impon_hpo.errors import NothingYetError
from impon_hpo.reporting.note import note
from impon_hpo.reporting.status import (
    disk_line,
    disk_use,
    summarise,
    summary_commands,
    summary_rows,
    write_csv_files,
)
from impon_hpo.storage.trials import FROM, IDENTITY, read_studies, read_study
from impon_hpo.tuning.live_table import changes
from tests.reporting.records import BALANCED, IDENTITY_OF_IT, LOSS, small_record


def test_a_summary_adds_up() -> None:
    facts = summarise(small_record())
    assert facts["trials"] == {"complete": 2, "pruned": 1, "fail": 1, "running": 0, "waiting": 0}
    assert facts["finished"] == 4
    assert facts["epochs"] == 9 + 2 + 9 + 1
    assert facts["epochs_without_pruning"] == 9 + 9 + 9 + 1
    assert facts["cost"] == 210
    assert facts["cost_without_pruning"] == 280
    assert facts["cost_ratio"] == 0.75
    assert (facts["best"]["trial"], facts["best"]["val_accuracy"]) == (2, 0.9)


def test_the_retrain_command_is_one_that_a_shell_takes_apart_again() -> None:
    words = shlex.split(summarise(small_record(storage="sqlite:///x.db"))["best"]["retrain"])
    assert words == [
        *("impon-hpo", "train", "studies/small", "--arm", "impon"),
        *("--set", "epochs=9", "--set", f"lr={0.1 + 2 / 100!r}", "--set", "optimizer=it's adam"),
    ]


def test_commands_name_the_storage_only_where_it_was_given() -> None:
    given = summarise(small_record(storage="sqlite:///x.db"))
    assert given["dashboard"] == "impon-hpo dashboard studies/small --storage sqlite:///x.db"
    assert "--storage sqlite:///x.db" in given["continue"]
    assert summarise(small_record())["dashboard"] == "impon-hpo dashboard studies/small"


def test_only_commands_that_are_printed_begin_as_the_reader_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    record = small_record()
    facts = summarise(record)
    export, _, dashboard = summary_commands(facts)
    assert export.startswith("export the best: uv run impon-hpo export studies/small --arm impon")
    assert dashboard == "open the dashboard: uv run impon-hpo dashboard studies/small"
    assert facts["dashboard"] == "impon-hpo dashboard studies/small"
    assert "uv run" not in note(record, [record])
    with pytest.raises(NothingYetError, match="run `uv run impon-hpo tune` first"):
        read_studies(record.optuna_study._storage, "other")


def test_rows_for_people_say_what_was_spent_against_no_pruning() -> None:
    rows = dict(summary_rows(summarise(small_record())))
    assert rows["trials"] == "2 complete, 1 pruned, 1 failed"
    assert rows["best lr"] == "0.12"
    assert rows["epochs spent"] == "21 of 28 without pruning"
    assert rows["cost spent"] == "210 of 280 forward-equivalents without pruning (75%)"


def test_rows_and_note_say_which_accuracy_it_is() -> None:
    record = small_record(identity=BALANCED)
    facts = summarise(record)
    assert facts["metric"] == "balanced-accuracy"
    assert dict(summary_rows(facts))["best validation balanced accuracy"] == "0.9000"
    assert "trial 2, with validation balanced accuracy 0.9000" in note(record, [record])
    assert "best validation balanced accuracy |" in note(record, [record])
    assert summarise(small_record())["metric"] == "accuracy"


def test_the_best_of_a_study_over_the_loss_is_the_nearest_to_zero() -> None:
    record = small_record(identity=LOSS)
    trials = [
        dataclasses.replace(trial, value=-trial.value)
        for trial in record.trials
        if trial.value and trial.state == "COMPLETE"
    ]
    record = dataclasses.replace(record, trials=trials)
    best = record.best
    assert best is not None
    assert best.value == max(trial.value for trial in trials if trial.value is not None) < 0
    facts = summarise(record)
    assert facts["metric"] == "loss"
    assert dict(summary_rows(facts))["best validation minus loss"] == f"{best.value:.4f}"
    assert f"with validation minus loss {best.value:.4f}" in note(record, [record])


def test_a_study_without_a_complete_trial_has_no_best() -> None:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    facts = summarise(read_study(study))
    assert facts["best"] is None
    assert facts["cost_ratio"] is None
    assert dict(summary_rows(facts))["best"] == "no trial is complete yet"


def test_tables_hold_every_epoch_and_every_trial() -> None:
    write_csv_files(Path("runs/small"), [small_record()])
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


def test_a_table_that_cannot_be_written_says_so_and_does_not_cost_the_other(
    said: list[str],
) -> None:
    Path("runs/small/epochs.csv").mkdir(parents=True)
    write_csv_files(Path("runs/small"), [small_record()])
    (line,) = said
    assert line.startswith("The table of epochs could not be made: 'runs/small/epochs.csv' cannot")
    assert line.endswith("All that was run is in the storage.")
    assert len(Path("runs/small/trials.csv").read_text().splitlines()) == 5


def test_bytes_are_added_up_by_what_they_are() -> None:
    runs = Path("runs/some")
    (runs / "checkpoints" / "deep").mkdir(parents=True)
    (runs / "checkpoints" / "one.pt").write_bytes(b"x" * 1500)
    (runs / "checkpoints" / "deep" / "two.pt").write_bytes(b"x" * 500)
    (runs / "study.db").write_bytes(b"x" * 10)
    (runs / "link").symlink_to("/etc/passwd")
    assert disk_use(runs) == {"checkpoints": 2000, "study.db": 10, "link": 0}
    assert disk_line(runs) == (
        "on disk in runs/some: 2.01 kB (checkpoints 2 kB, study.db 10 B, link 0 B)"
    )


def test_study_without_a_folder_uses_none() -> None:
    assert disk_use(Path("runs/none")) == {}
    assert disk_line(Path("runs/none")) == "on disk in runs/none: 0 B"


def test_trials_of_an_earlier_study_are_told_wherever_trials_are() -> None:
    record = small_record()
    earlier = {FROM: {"study": "digits <old>", "trial": 7}}
    record.optuna_study.add_trial(create_trial(value=0.95, user_attrs=earlier))
    record = read_study(record.optuna_study)
    facts = summarise(record)
    number = len(record.trials) - 1
    assert facts["from"] == [{"trial": number, "from": "digits <old> trial 7"}]
    assert facts["best"]["from"] == "digits <old> trial 7"
    rows = dict(summary_rows(facts))
    assert rows["best trial"] == f"{number} (from digits <old> trial 7)"
    assert rows["trials of earlier studies"] == f"{number} from digits <old> trial 7"
    told = note(record, [record])
    assert f"Enqueued from earlier studies: trial {number} from digits &lt;old&gt; trial 7." in told
    (line,) = [line for line in changes([record], {}) if f" trial {number} " in line]
    assert f"trial {number} (from digits <old> trial 7) complete" in line
    assert "earlier studies" not in note(small_record(), [])

"""Tests of what is written on the dashboard's pages, and when it is written again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note

from impon_hpo.errors import NothingYetError
from impon_hpo.reporting.chart import Chart
from impon_hpo.reporting.dashboard import Pages
from impon_hpo.reporting.render import figure
from impon_hpo.storage.trials import COST, EPOCHS
from tests.reporting.records import small_record

GRAPHS = {
    "accuracy-against-cost",
    "pruned-when",
    "best-so-far",
    "diagnostic-class-balance",
}


def graphs(study: optuna.Study) -> set[str]:
    kept = study._storage.get_study_system_attrs(study._study_id)
    return {key.split(":")[2] for key in kept if key.startswith("dashboard:plot_data:")}


def test_pages_are_written_and_keep_up_with_the_study() -> None:
    study = small_record().optuna_study
    pages = Pages(study._storage, "small", ["impon"], Path("runs/small"))
    pages.write()
    assert "2 trials complete" in get_note(study)
    assert graphs(study) == GRAPHS
    epochs = [{"epoch": 1, "val_accuracy": 0.5, "cost": 10, "diagnostics": {}}]
    attrs = {EPOCHS: epochs, COST: 10}
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs=attrs))
    pages.write()
    assert "3 trials complete" in get_note(study)
    assert graphs(study) == GRAPHS


def test_a_note_that_a_person_has_changed_stays() -> None:
    study = small_record().optuna_study
    pages = Pages(study._storage, "small", ["impon"], Path("runs/small"))
    pages.write()
    save_note(study, "Mine.")
    study.add_trial(create_trial(state=TrialState.FAIL))
    pages.write()
    assert get_note(study) == "Mine."


def test_what_a_busy_storage_does_not_take_is_logged_and_written_the_next_time(
    said: list[str],
) -> None:
    waits_for_nothing = optuna.storages.RDBStorage(
        "sqlite:///s.db", engine_kwargs={"connect_args": {"timeout": 0.01}}
    )
    kept = small_record().optuna_study
    optuna.copy_study(
        from_study_name=kept.study_name,
        from_storage=kept._storage,
        to_storage=waits_for_nothing,
    )
    study = optuna.load_study(study_name=kept.study_name, storage=waits_for_nothing)
    pages = Pages(waits_for_nothing, "small", ["impon"], Path("runs/small"))
    other = sqlite3.connect("s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):  # told once
        pages.write()
    other.execute("ROLLBACK")
    other.close()
    assert graphs(study) == set()
    (line,) = said
    assert line.startswith("Notes and graphs could not be saved: StorageInternalError")
    assert line.endswith("The dashboard shows the trials all the same.")
    pages.write()
    assert graphs(study) == GRAPHS
    assert "2 trials complete" in get_note(study)


def test_a_graph_that_cannot_be_drawn_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def drawn(chart: Chart) -> object:
        if chart.key == "pruned-when":
            raise ValueError("nonsense")
        return figure(chart)

    monkeypatch.setattr("impon_hpo.reporting.dashboard.figure", drawn)
    study = small_record().optuna_study
    Pages(study._storage, "small", ["impon"], Path("runs/small")).write()
    assert graphs(study) == GRAPHS - {"pruned-when"}
    assert "2 trials complete" in get_note(study)
    assert said[0].startswith("Graph 'pruned-when' of arm 'impon' could not be drawn: ValueError")


def test_a_storage_without_the_study_says_so() -> None:
    storage = small_record().optuna_study._storage
    with pytest.raises(NothingYetError, match="nothing of study 'other'"):
        Pages(storage, "other", ["impon"], Path("runs/other")).write()

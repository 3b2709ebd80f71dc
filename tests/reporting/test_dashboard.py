"""Tests of what is written on the dashboard's pages, and when it is written again."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note

from impon_hpo.errors import NothingYetError
from impon_hpo.reporting.dashboard import Pages
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


def test_a_storage_without_the_study_says_so() -> None:
    storage = small_record().optuna_study._storage
    with pytest.raises(NothingYetError, match="nothing of study 'other'"):
        Pages(storage, "other", ["impon"], Path("runs/other")).write()

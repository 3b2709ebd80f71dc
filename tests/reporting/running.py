"""An invented study under way, whose trials a test continues as a worker would."""

from __future__ import annotations

from typing import Any

import optuna

from impon_hpo.storage.trials import COST, EPOCHS, IDENTITY, StudyRecord, read_study
from tests.reporting.records import IDENTITY_OF_IT


def begun_study() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT)
    return study


def add_epochs(trial: optuna.Trial, *accuracies: float) -> None:
    """Write down epochs of 2 seconds and 1000 rows each."""
    epochs: list[dict[str, Any]] = [
        {
            "epoch": number,
            "val_accuracy": accuracy,
            "cost": 10,
            "rows_trained": 1000,
            "seconds_drawing": 0.5,
            "seconds_stepping": 1.0,
            "seconds_validating": 0.5,
            "diagnostics": {},
        }
        for number, accuracy in enumerate(accuracies, start=1)
    ]
    trial.set_user_attr(EPOCHS, epochs)
    n_reported = len(trial.storage.get_trial(trial._trial_id).intermediate_values)
    for number, accuracy in list(enumerate(accuracies, start=1))[n_reported:]:
        trial.report(accuracy, step=number)
    trial.set_user_attr(COST, 10 * len(epochs))


def finish(study: optuna.Study, trial: optuna.Trial, value: float) -> StudyRecord:
    study.tell(trial, value)
    return read_study(study)

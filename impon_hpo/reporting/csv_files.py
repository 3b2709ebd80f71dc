"""epochs.csv and trials.csv: everything that a study's trials recorded, as two tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from impon_hpo.files import write_csv
from impon_hpo.storage.trials import StudyRecord, TrialRecord, flat_epoch


def write_csv_files(folder: Path, records: Iterable[StudyRecord]) -> None:
    """Write `epochs.csv` (a row an epoch) and `trials.csv` (a row a trial) of all arms.

    Raises:
        StorageError: They cannot be written.
    """
    arms = [(record.identity["arm"], trial) for record in records for trial in record.trials]
    epochs = [
        {"arm": arm, "trial": trial.number} | flat_epoch(epoch)
        for arm, trial in arms
        for epoch in trial.epochs
    ]
    write_csv(folder / "epochs.csv", epochs)
    write_csv(folder / "trials.csv", [_trial_row(arm, trial) for arm, trial in arms])


def _trial_row(arm: str, trial: TrialRecord) -> dict[str, Any]:
    return {
        "arm": arm,
        "trial": trial.number,
        "state": trial.state,
        "val_accuracy": trial.value,
        "epochs": len(trial.epochs),
        "cost": trial.cost,
        "seconds": trial.seconds,
        "reason": trial.reason,
    } | trial.params

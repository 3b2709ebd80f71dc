"""epochs.csv and trials.csv: everything that a study's trials recorded, as two tables."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from impon_hpo.errors import StorageError
from impon_hpo.record import StudyRecord, TrialRecord, flat_epoch


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
    try:
        _write(folder / "epochs.csv", epochs)
        _write(folder / "trials.csv", [_trial_row(arm, trial) for arm, trial in arms])
    except OSError as error:
        raise StorageError(f"The tables in '{folder}' cannot be written: {error}") from error


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


def _write(path: Path, rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", newline="", dir=path.parent, suffix=".tmp", delete=False
    ) as file:
        writer = csv.DictWriter(file, fieldnames=columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    Path(file.name).chmod(0o644)  # a temporary file is readable by its owner only
    Path(file.name).replace(path)

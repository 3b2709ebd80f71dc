"""The CSV files of a grid: one row an epoch of every run, and the table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from impon_hpo.errors import StorageError
from impon_hpo.record import flat_epoch


def write_epochs(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write arm, seed, configuration and every field of every epoch.

    Raises:
        StorageError: It cannot be written.
    """
    rows = [
        {"arm": result["arm"], "seed": result["seed"]} | result["params"] | flat_epoch(epoch)
        for result in results
        for epoch in result["epochs"]
    ]
    write_rows(path, rows)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, with a column for each key that any of them has.

    Raises:
        StorageError: The file cannot be written.
    """
    fields = list(dict.fromkeys(key for row in rows for key in row))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=fields, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error

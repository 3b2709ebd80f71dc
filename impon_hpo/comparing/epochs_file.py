"""The file of a grid's epochs: one row an epoch of every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from impon_hpo.csv_table import write_csv
from impon_hpo.storage.trials import flat_epoch


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
    write_csv(path, rows)

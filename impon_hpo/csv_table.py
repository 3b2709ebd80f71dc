"""A CSV file: rows of named values, a column for each name that any of them has."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from impon_hpo.errors import StorageError


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as the text of a CSV file; what a row lacks is left empty."""
    fields = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", newline="", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False
        ) as file:
            file.write(csv_text(rows))
        Path(file.name).chmod(0o644)  # a temporary file is readable by its owner only
        Path(file.name).replace(path)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error

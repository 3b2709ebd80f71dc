"""Files written whole or not at all, and CSV: a column for each name that any row has."""

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
    """Write rows as a CSV file, whole or not at all.

    Raises:
        StorageError: The file cannot be written.
    """
    write_file(path, csv_text(rows))


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8. Its folder is created where it is missing.

    Raises:
        StorageError: The file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(data)
        try:
            Path(file.name).chmod(0o644)  # a temporary file is readable by its owner only
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink()
            raise
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error

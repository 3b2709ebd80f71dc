"""CSV files: what is written is read back, whole or not at all."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.csv_table import csv_text, write_csv, write_file
from impon_hpo.errors import StorageError

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable())
CELLS = st.text(max_size=20).filter(lambda cell: "\x00" not in cell and "\r" not in cell)


@given(st.lists(st.dictionaries(NAMES, CELLS, min_size=1, max_size=4), min_size=1, max_size=5))
def test_what_is_written_is_read_back(rows: list[dict[str, str]]) -> None:
    read = list(csv.DictReader(io.StringIO(csv_text(rows), newline="")))
    for row, copy in zip(rows, read, strict=True):
        assert {key: copy[key] for key in row} == row
        assert all(copy[key] == "" for key in copy if key not in row)


def test_file_is_replaced_whole_and_readable_by_all() -> None:
    path = Path("deep/table.csv")
    write_csv(path, [{"a": 1}, {"b": 2}])
    write_csv(path, [{"a": 3}])
    assert path.read_text() == "a\n3\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_path_that_cannot_be_written_is_told() -> None:
    Path("file").touch()
    with pytest.raises(StorageError, match=r"'file/table\.csv' cannot be written"):
        write_csv(Path("file/table.csv"), [{"a": 1}])
    Path("lines.png").mkdir()
    with pytest.raises(StorageError, match=r"'lines\.png' cannot be written"):
        write_file(Path("lines.png"), b"a picture")
    assert sorted(path.name for path in Path().iterdir()) == ["file", "lines.png"]

"""Files: what is written is read back, whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.errors import StorageError
from impon_hpo.files import (
    csv_text,
    free_disk,
    readable_bytes,
    readable_name,
    replacing,
    write_csv,
    write_file,
)

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable())
CELLS = st.text(max_size=20).filter(lambda cell: "\x00" not in cell and "\r" not in cell)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@given(st.lists(st.dictionaries(NAMES, CELLS, min_size=1, max_size=4), min_size=1, max_size=5))
def test_rows_are_read_back_as_written(rows: list[dict[str, str]]) -> None:
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
    assert names_in(path.parent) == ["table.csv"]


def test_bytes_and_text_are_written_as_they_are() -> None:
    write_file(Path("bytes"), b"\r\n\x00")
    write_file(Path("text"), "⅓\n")
    assert Path("bytes").read_bytes() == b"\r\n\x00"
    assert Path("text").read_text(encoding="utf-8") == "⅓\n"


@pytest.mark.parametrize("durable", [False, True])
def test_error_leaves_the_former_file_and_nothing_else(durable: bool) -> None:
    write_file(Path("folder/file"), "before")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), replacing(Path("folder/file"), durable=durable) as file:
            file.write(b"half of what")
            raise error
    assert Path("folder/file").read_text() == "before"
    assert names_in(Path("folder")) == ["file"]


def test_nobody_sees_half_a_file() -> None:
    with replacing(Path("folder/file")) as file:
        file.write(b"half")
        assert not Path("folder/file").exists()
    assert Path("folder/file").read_bytes() == b"half"


def test_content_is_on_the_disk_before_it_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[int, bool]] = []
    real = os.fsync

    def flush(descriptor: int) -> None:
        real(descriptor)
        flushed.append((os.fstat(descriptor).st_size, Path("file").exists()))

    monkeypatch.setattr(os, "fsync", flush)
    with replacing(Path("file"), durable=True) as file:
        file.write(b"four")
    assert flushed == [(4, False)]


def test_path_that_cannot_be_written_is_told() -> None:
    Path("file").touch()
    with pytest.raises(StorageError, match=r"'file/table\.csv' cannot be written"):
        write_csv(Path("file/table.csv"), [{"a": 1}])
    assert names_in(Path()) == ["file"]


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (45_678_901, "45.7 MB")],
)
def test_bytes_are_written_as_people_write_them(n: int, text: str) -> None:
    assert readable_bytes(n) == text


def test_free_disk_is_that_of_the_nearest_folder_that_exists() -> None:
    assert free_disk(Path("not/yet/there")) == pytest.approx(free_disk(Path()), rel=0.1)
    assert free_disk(Path()) > 0


@given(st.text(st.characters(codec=None)))
def test_readable_names_are_one_line_of_utf_8_and_ordinary_ones_stay(name: str) -> None:
    shown = readable_name(name)
    assert shown.encode("utf-8").decode() == shown
    assert shown.splitlines() in ([shown], [])
    assert readable_name(shown) == shown
    if name.isprintable():
        assert shown == name

"""The recordings: a table that is read as it was written, or refused with its path."""

from __future__ import annotations

import lzma
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.comparing.recordings_table import ABOUT, TABLE, Recordings, read_recordings
from impon_hpo.errors import NothingYetError, StorageError

FOLDER = Path("kept")
SHARES = st.floats(0, 1)
SECONDS = st.floats(0, 1e6, allow_nan=False)
COUNTS = st.integers(0, 10**12)
UNREADABLE = r"The recordings in 'kept' cannot be read: .+"


def row(
    training: str = "uniform cosine", block: int = 0, configuration: int = 0, epoch: int = 1
) -> dict[str, Any]:
    return {
        "training": training,
        "block": block,
        "configuration": configuration,
        "lr": 0.1,
        "epoch": epoch,
        "val_accuracy_last": 0.5,
        "cost": 10,
    }


@st.composite
def runs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return the rows of a run: some epochs, and perhaps the one in which it ended."""
    head = {
        "training": draw(st.sampled_from(["uniform cosine", "memory@1/3 rungs", "1/2", '"a", b'])),
        "block": draw(st.integers(0, 3)),
        "configuration": draw(st.integers(0, 3)),
        "lr": draw(st.floats(1e-9, 1e3)),
        "optimizer": draw(st.sampled_from(["sgd", "adam"])),
        "reference_cost": draw(COUNTS),
    }
    n_epochs = draw(st.integers(0, 3))
    rows = []
    for epoch in range(1, n_epochs + 1):
        found = head | {"epoch": epoch, "val_accuracy_last": draw(SHARES), "cost": draw(COUNTS)}
        found |= {"val_accuracy_ema": draw(SHARES), "seconds_stepping": draw(SECONDS)}
        if draw(st.booleans()):
            found["test_accuracy_last"] = draw(SHARES)
        rows.append(found)
    if n_epochs == 0 or draw(st.booleans()):
        ended = draw(st.sampled_from(["The training loss of epoch 1 is nan.", 'a, "b"', "0.5"]))
        rows.append(head | {"epoch": n_epochs + 1, "cost": draw(COUNTS), "ended": ended})
    return rows


def key(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    return tuple(rows[0][name] for name in ("training", "block", "configuration"))


@settings(max_examples=50)
@given(st.lists(runs(), min_size=1, max_size=6, unique_by=key), st.integers(0, 9))
def test_what_is_written_is_read_back(found: list[list[dict[str, Any]]], seed: int) -> None:
    about = {"digest": "abc", "configurations": [{"lr": 0.1}], "seed": seed, "data": "16 × 16"}
    written = Recordings([row for rows in found for row in rows], about)
    written.write(FOLDER)
    read = read_recordings(FOLDER)
    assert read.rows == written.rows
    assert read.about == about
    assert read.runs == written.runs
    assert read.runs.keys() == {key(rows) for rows in found}


def test_run_is_put_together_from_its_rows() -> None:
    head = row() | {"reference_cost": 7}
    rows = [
        head | {"epoch": 2, "val_accuracy_last": 0.4, "cost": 12, "test_accuracy_last": 0.3},
        row(configuration=1),
        head | {"epoch": 3, "cost": 5, "ended": "The training loss of epoch 3 is nan."},
        head | {"epoch": 1, "val_accuracy_last": 0.2, "cost": 11},
    ]
    run = Recordings(rows, {}).runs["uniform cosine", 0, 0]
    assert run.accuracy("val", "last") == (0.2, 0.4)
    assert list(run.cost) == [11, 12]
    assert (run.ended_cost, run.reference_cost) == (5, 7)
    assert run.ended == "The training loss of epoch 3 is nan."
    other = Recordings(rows, {}).runs["uniform cosine", 0, 1]
    assert (other.ended, other.ended_cost, other.reference_cost) == ("", 0, 0)


def test_test_accuracy_is_of_the_epochs_in_which_it_was_looked_at() -> None:
    rows = [row(), row(epoch=2) | {"test_accuracy_last": 0.7}]
    (run,) = Recordings(rows, {}).runs.values()
    assert run.accuracy("test", "last") == (0.7,)
    with pytest.raises(KeyError):  # a validation accuracy that is not there is no curve
        run.accuracy("val", "ema")


def test_same_runs_give_the_same_bytes() -> None:
    for name in ("first", "second"):
        rows = [row(configuration=number, epoch=epoch) for number in (0, 1) for epoch in (1, 2)]
        Recordings(rows, {"digest": "abc"}).write(Path(name) / "deep")
    for file in (TABLE, ABOUT):
        assert (Path("first/deep") / file).read_bytes() == (Path("second/deep") / file).read_bytes()


def test_recordings_that_cannot_be_written_name_the_folder() -> None:
    Path("file").write_text("")
    with pytest.raises(StorageError, match=rf"'file/deep/{TABLE}' cannot be written"):
        Recordings([row()], {}).write(Path("file/deep"))


def test_nothing_there_is_nothing_yet() -> None:
    with pytest.raises(NothingYetError, match="no recordings in 'kept' yet: run `impon-hpo comp"):
        read_recordings(FOLDER)


def packed(text: str) -> bytes:
    return lzma.compress(text.encode())


HEAD = "training,block,configuration,epoch,cost\n"
GOOD = packed(HEAD + "uniform cosine,0,0,1,10\n")


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"training,block\nuniform,0\n",
        b"\xfd7zXZ\0 and something else",
        GOOD[: len(GOOD) // 2],
        GOOD[:-1],
        lzma.compress(b"\xff\xfe\x00"),
        packed("block,configuration,epoch\n0,0,1\n"),
        packed("training,configuration,epoch\nuniform,0,1\n"),
        packed("training,block,configuration\nuniform,0,0\nuniform,0,0\n"),
        packed(HEAD + "uniform cosine,zero,0,1,10\n"),
        packed(HEAD + "uniform cosine,0,,1,10\n"),
        packed(HEAD + "uniform cosine,0,0,1,10,more\n"),
        packed(HEAD + "uniform cosine,0\n"),
        packed(HEAD + "uniform\rcosine,0,0,1,10\n"),
    ],
)
def test_broken_or_foreign_table_is_refused_with_its_path(table: bytes) -> None:
    FOLDER.mkdir()
    (FOLDER / TABLE).write_bytes(table)
    (FOLDER / ABOUT).write_text("{}")
    with pytest.raises(StorageError, match=UNREADABLE) as caught:
        read_recordings(FOLDER)
    assert not isinstance(caught.value, NothingYetError)


@pytest.mark.parametrize("about", [None, "", '{"digest": "ab', "[1, 2]", "3", "null"])
def test_broken_or_missing_description_is_refused_with_its_path(about: str | None) -> None:
    FOLDER.mkdir()
    (FOLDER / TABLE).write_bytes(GOOD)
    if about is not None:
        (FOLDER / ABOUT).write_text(about)
    with pytest.raises(StorageError, match=UNREADABLE) as caught:
        read_recordings(FOLDER)
    assert not isinstance(caught.value, NothingYetError)


def test_table_that_the_others_are_broken_from_is_good() -> None:
    FOLDER.mkdir()
    (FOLDER / TABLE).write_bytes(GOOD)
    (FOLDER / ABOUT).write_text("{}")
    assert list(read_recordings(FOLDER).runs) == [("uniform cosine", 0, 0)]


BLOCKS = [
    *(row("uniform cosine", block, number) for block in (0, 1) for number in (0, 1, 2)),
    *(row("uniform cosine", 2, number) for number in (0, 2)),
    *(row("memory cosine", 3, number) for number in (1, 2)),
    *(row("memory cosine", 1, number) for number in (1, 2)),
    row("memory cosine", 0, 2),
]


@pytest.mark.parametrize(
    ("training", "n", "taught", "blocks"),
    [
        ("uniform cosine", 3, False, [0, 1]),
        ("uniform cosine", 1, False, [0, 1, 2]),
        ("uniform cosine", 4, False, []),
        ("memory cosine", 3, False, []),
        ("memory cosine", 3, True, [1, 3]),  # its first configuration is its teacher's
        ("placebo cosine", 3, False, []),
    ],
)
def test_blocks_are_those_with_all_configurations(
    training: str, n: int, taught: bool, blocks: list[int]
) -> None:
    found = Recordings(BLOCKS, {})
    assert found.blocks_of(training, n, taught=taught) == blocks
    found.write(FOLDER)
    assert read_recordings(FOLDER).blocks_of(training, n, taught=taught) == blocks


def test_message_of_a_cut_file_says_what_is_wrong() -> None:
    FOLDER.mkdir()
    (FOLDER / TABLE).write_bytes(GOOD[:-4])
    with pytest.raises(StorageError, match=re.escape("ended before the end-of-stream marker")):
        read_recordings(FOLDER)

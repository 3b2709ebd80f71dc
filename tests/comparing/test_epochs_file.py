"""epochs.csv of a grid: a row an epoch of every run, whatever each sampler reports."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from impon_hpo.comparing.epochs_file import write_epochs
from impon_hpo.errors import StorageError


def epoch(number: int, **diagnostics: float) -> dict[str, Any]:
    return {"epoch": number, "val_accuracy": number / 10, "diagnostics": diagnostics}


def result(arm: str, *epochs: dict[str, Any], seed: int = 0, **params: Any) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "params": params, "epochs": list(epochs), "ended": ""}


def written(*results: dict[str, Any]) -> list[list[str]]:
    path = Path("deep") / "epochs.csv"
    write_epochs(path, results)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_every_epoch_of_every_run_has_its_row() -> None:
    first = result("uniform", epoch(1), epoch(2), seed=3, lr=0.1, optimizer="sgd")
    second = result("impon", epoch(1), seed=4, lr=0.2, optimizer="adam")
    assert written(first, second) == [
        ["arm", "seed", "lr", "optimizer", "epoch", "val_accuracy"],
        ["uniform", "3", "0.1", "sgd", "1", "0.1"],
        ["uniform", "3", "0.1", "sgd", "2", "0.2"],
        ["impon", "4", "0.2", "adam", "1", "0.1"],
    ]


def test_diagnostic_of_one_sampler_is_empty_for_the_others() -> None:
    plain = result("uniform", epoch(1, class_balance=0.9))
    more = result("impon", epoch(1, rank_correlation=0.5, class_balance=0.8))
    assert written(plain, more) == [
        ["arm", "seed", "epoch", "val_accuracy", "class_balance", "rank_correlation"],
        ["uniform", "0", "1", "0.1", "0.9", ""],
        ["impon", "0", "1", "0.1", "0.8", "0.5"],
    ]


def test_run_that_diverged_at_once_has_no_row() -> None:
    rows = written(result("broken"), result("uniform", epoch(1)))
    assert [row[0] for row in rows] == ["arm", "uniform"]


def test_awkward_names_come_back_as_they_are() -> None:
    name = 'größer, "schneller"'
    assert written(result(name, epoch(1), model="my:net\nwork"))[1][:3] == [
        name,
        "0",
        "my:net\nwork",
    ]


def test_lines_end_as_everywhere_on_unix() -> None:
    written(result("uniform", epoch(1)))
    assert Path("deep/epochs.csv").read_bytes() == (
        b"arm,seed,epoch,val_accuracy\nuniform,0,1,0.1\n"
    )


def test_later_table_replaces_the_earlier() -> None:
    written(result("uniform", epoch(1), epoch(2)))
    assert len(written(result("uniform", epoch(1)))) == 2


def test_folder_that_cannot_be_made_is_told() -> None:
    Path("file").write_text("in the way")
    with pytest.raises(StorageError, match=r"'file/epochs\.csv' cannot be written"):
        write_epochs(Path("file/epochs.csv"), [result("uniform", epoch(1))])

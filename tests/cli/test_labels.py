"""The command `labels`: from a table that a person edits to a study that trains with it."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impon_hpo.console import data
from impon_hpo.reporting.note import note
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import read_studies
from impon_hpo.tuning.study_file import read_study_file
from tests.command import run
from tests.studies import SMALL, storage_with_one_trial, write_study

FLIPPED = '''
"""Digits of which every fifth has a wrong label."""
import numpy as np
from impon_hpo import ImageData
from impon_hpo.training.data import load_digits

def load(**given):
    digits = load_digits(**given)
    wrong = np.random.default_rng(7).permutation(len(digits.labels))[: len(digits.labels) // 5]
    labels = digits.labels.copy()
    labels[wrong] = (labels[wrong] + 1 + wrong % 9) % 10
    names = tuple(f"{row}.png" for row in range(len(labels)))
    return ImageData(digits.images, labels, augment="crop", names=names)
'''
LEARNS = (
    SMALL.replace('"digits"', '"flipped_digits:load"')
    .replace("subset = 240\nvalidation_size = 100\n", 'eval_weights = "ema"\n')
    .replace("width = 4", "width = 8")
    .replace("epochs = 3", "epochs = 9")
    .replace("[16, 32]", "[64, 32]")
)


def table(path: str = "runs/small/labels.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def facts_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run("labels", "small", "--format", "json", *arguments) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_wrong_labels_are_listed_edited_and_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(LEARNS)
    (folder / "flipped_digits.py").write_text(FLIPPED)
    assert run("labels", "small", "--rows", "2") == 0
    out, err = capsys.readouterr()
    assert "No trial has kept what it saw of these rows" in err
    assert "9 epochs" in err
    head, *lines = out.splitlines()
    assert head.split("\t") == ["file", "given", "likely", "wrong_probability"]
    assert [line.split("\t")[0] for line in lines[:2]] == [row["file"] for row in table()[:2]]
    assert "labels look wrong, by a uniform run of 9 epochs" in lines[2]

    facts = facts_of(capsys)
    assert facts["tells"]
    assert facts["share"] == pytest.approx(0.2, abs=2 * facts["share_error"])
    rows = table()
    assert len(rows) == facts["listed"]
    assert list(rows[0]) == ["file", "given", "likely", "wrong_probability", "label"]
    assert all(row["label"] == row["given"] != row["likely"] for row in rows)
    probabilities = [float(row["wrong_probability"]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    with Image.open("runs/small/labels.png") as picture:
        assert picture.format == "PNG"

    for row in rows[:150]:
        row["label"] = row["likely"]
    with Path("runs/small/labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert run("labels", "small") == 2, "the edited labels would be lost"
    assert "has been edited, and would be overwritten" in capsys.readouterr().err
    Path("runs/small/labels.csv").rename("small/labels.csv")
    plain = read_study_file("small").identity("uniform")
    corrected = read_study_file("small", ["relabel=labels.csv"]).identity("uniform")
    assert corrected["run"].pop("relabel")
    assert corrected == plain
    after = facts_of(capsys, "--set", "relabel=labels.csv")
    assert after["share"] is None or after["share"] < facts["share"] - 0.05


def test_where_nothing_can_be_told_nothing_is_called_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study()
    facts = facts_of(capsys)
    assert (facts["tells"], facts["share"], facts["listed"], facts["worst"]) == (False, None, 0, [])
    assert facts["sentence"].startswith("Nothing can be told of 340 labels")
    assert Path("runs/small/labels.csv").read_text() == (
        "file,given,likely,wrong_probability,label\n"
    )
    assert not Path("runs/small/labels.png").exists()
    listed = facts_of(capsys, "--all", "--rows", "3")
    assert listed["listed"] == 340
    assert [row["wrong_probability"] for row in listed["worst"]] == [None] * 3
    assert [row["wrong_probability"] for row in table()] == [""] * 340
    assert run("labels", "small", "--all", "--rows", "1") == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("\tcannot be told")
    assert Path("runs/small/labels.png").exists()
    facts_of(capsys)
    assert not Path("runs/small/labels.png").exists(), "it would show what is not listed"


@pytest.mark.parametrize(
    "saved", [b"file;given;likely;wrong_probability;label\n1;2;3;1;4\n", b"file,label\n\xe9,4\n"]
)
def test_a_table_that_a_spreadsheet_has_saved_is_not_overwritten(
    saved: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study()
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/labels.csv").write_bytes(saved)
    assert run("labels", "small") == 2
    assert "has been edited" in capsys.readouterr().err
    assert Path("runs/small/labels.csv").read_bytes() == saved


def test_a_terminal_gets_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study()
    monkeypatch.setattr(data, "_force_terminal", True)
    assert run("labels", "small", "--all", "--rows", "1") == 0
    assert "┃" in capsys.readouterr().out


def test_what_the_first_trial_saw_is_used_and_the_dashboard_tells_what_was_found(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = SMALL.replace('[arms.impon]\nsampler = "impon"', '[arms.m]\nsampler = "impon-memory"')
    write_study(text)
    assert run("tune", "small", "--trials", "1", "--set", "lr=0.05", "--set", "epochs=5") == 0
    capsys.readouterr()
    with caplog.at_level(logging.INFO, "impon_hpo"):
        facts = facts_of(capsys, "--all", "--set", "lr=0.05", "--set", "epochs=5")
    assert "trained first" not in caplog.text
    assert facts["judged_by"] == "the study's first complete trial"
    assert (facts["training_rows"], facts["validation_rows"]) == (240, 0)
    (record,) = read_studies(open_storage("sqlite:///runs/small/study.db", create=False), "small")
    assert record.labels is not None
    assert record.labels["sentence"] == facts["sentence"]
    text = note(record, [record])
    assert facts["sentence"] in text
    assert f"(/artifacts/{record.optuna_study._study_id}/{record.labels['artifact']})" in text
    assert Path("runs/small/artifacts", record.labels["artifact"]).is_file()


def test_a_store_that_is_gone_does_not_cost_what_was_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study()
    storage_with_one_trial()
    Path("runs/small/artifacts").write_text("a file where the folder was")
    assert run("labels", "small", "--all", "--set", "epochs=1") == 0
    out, err = capsys.readouterr()
    assert "table: runs/small/labels.csv, picture: runs/small/labels.png" in out
    assert "The finding could not be left with arm 'impon': The folder for artifacts" in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,label\n99999,3\n", "line 2, has the image '99999'"),
        ("file,label\n5,three\n", "line 2, has the class 'three'"),
        ("image,label\n5,3\n", "must have the columns file and label"),
        (None, "must be a CSV file"),
    ],
)
@pytest.mark.parametrize("command", ["labels", "tune", "train"])
def test_a_bad_file_ends_with_a_sentence_and_code_2(
    command: str, text: str | None, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study()
    if text is not None:
        Path("small/bad.csv").write_text(text)
    assert run(command, "small", "--set", "relabel=bad.csv") == 2
    err = capsys.readouterr().err
    assert complaint in err.replace("\n", " ")
    assert "Traceback" not in err

"""A study with a conditional setting, from the command line: tuned to its end, and compared."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from impon_hpo.comparing.evidence import read_committed
from impon_hpo.reporting.chart import Palette
from impon_hpo.reporting.note import note
from impon_hpo.reporting.study_charts import study_charts
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import read_studies
from impon_hpo.tuning.study_file import read_study_file
from tests.command import run
from tests.comparing.comparisons import COMPARED, GRID
from tests.comparing.tiny import ONLY_IMPON, TINY, record
from tests.studies import SMALL, write_study

SPACE = """\
[space]
nesterov = { choices = [true, false], when = { optimizer = "sgd" } }
optimizer = ["sgd", "adam"]
lr = { low = 1e-3, high = 0.3, log = true }
"""
LR = 'lr = { type = "float", low = 1e-3, high = 0.3, log = true }\n'
STUDY = (
    SMALL.replace('name = "SuccessiveHalvingPruner"\nreduction_factor = 3', 'name = "promote"')
    .replace('"RandomSampler"', '"TPESampler"\nn_startup_trials = 2')
    .replace("n_trials = 3", "n_trials = 5")
    .replace("subset = 240", "subset = 64")
    .replace("width = 4", "width = 2")
    .replace("validation_size = 100", "validation_size = 60")
    .replace("[space]\n" + LR, SPACE)
    .replace('sampler = "impon"', 'sampler = "impon"\nbank_size = 64')
)


def given(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_it_is_tuned_to_its_end_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write_study(STUDY)
    assert run("tune", "small", "--dry-run") == 0
    assert "categorical choices [True, False], when optimizer is sgd" in capsys.readouterr().out
    assert run("tune", "small") == 0
    storage = open_storage("sqlite:///runs/small/study.db", create=False)
    (tuned,) = read_studies(storage, "small")
    assert sorted({trial.state for trial in tuned.trials}) == ["COMPLETE", "PRUNED"]
    assert len(tuned.trials) == 5
    for trial in tuned.trials:
        assert ("nesterov" in trial.params) == (trial.params["optimizer"] == "sgd")
    assert {trial.params["optimizer"] for trial in tuned.trials} == {"sgd", "adam"}
    assert "when optimizer is sgd" in note(tuned, [tuned])
    capsys.readouterr()

    assert run("status", "small", "--format", "json") == 0
    best = json.loads(capsys.readouterr().out)[0]["best"]
    words = shlex.split(best["retrain"])
    again = [words[at + 1].split("=")[0] for at, word in enumerate(words) if word == "--set"]
    assert again == list(best["params"])
    with Path("runs/small/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["nesterov"] for row in rows] == [
        str(trial.params.get("nesterov", "")) for trial in tuned.trials
    ]
    assert study_charts(tuned, [tuned], Palette(["impon"]))


def test_its_comparison_is_planned_recorded_and_read_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(COMPARED.replace("[space]\n" + LR, SPACE))
    small = (*TINY, *ONLY_IMPON, "run.width=2", "run.epochs=1")
    assert run("plan", "small", "--format", "json", *given(*small)) == 0
    plan = json.loads(capsys.readouterr().out)
    study_file = read_study_file("small", small)
    recorded = record(study_file)
    assert sum(int(row["cost"]) for row in recorded.rows) == plan["cost_left"]
    assert {"nesterov" in row for row in recorded.rows} == {True, False}
    for row in recorded.rows:
        assert ("nesterov" in row) == (row["optimizer"] == "sgd")
    back = read_committed(study_file, Path("runs/small/compare"))
    assert back.about["configurations"] == recorded.about["configurations"]
    assert [("nesterov" in row) for row in back.rows] == [
        ("nesterov" in row) for row in recorded.rows
    ]


def test_its_grid_has_no_configuration_twice(capsys: pytest.CaptureFixture[str]) -> None:
    write_study(GRID)
    space = 'space={ nesterov = { choices = [true, false], when = { optimizer = "sgd" } }, '
    small = given(space + 'optimizer = ["adam", "sgd"] }', "width=2", "subset=64")
    assert run("compare-samplers", "small", "--arm", "uniform", "--seeds", "1", *small) == 0
    assert "[3/3]" in capsys.readouterr().err
    with Path("runs/small/samplers/epochs.csv").open(newline="") as file:
        rows = [(row["optimizer"], row["nesterov"]) for row in csv.DictReader(file)]
    assert set(rows) == {("adam", ""), ("sgd", "True"), ("sgd", "False")}
    assert len(rows) == 3 * 2

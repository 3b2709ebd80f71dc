"""`tune --from`: a study that begins with the best of an earlier one, from any storage, once."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import StudyRecord, read_studies
from tests.cli.test_export import TINY
from tests.command import run
from tests.studies import untrained_study, write_study

DISTRIBUTIONS = {"lr": FloatDistribution(1e-4, 1.0), "batch_size": CategoricalDistribution([8, 16])}
BEST = {"lr": 0.25, "batch_size": 16}


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def record(address: str = "sqlite:///runs/fresh/study.db") -> StudyRecord:
    (only,) = read_studies(open_storage(address, create=False), "fresh")
    return only


@pytest.fixture(autouse=True)
def _studies() -> None:
    """`small`, whose arm impon has two trials, and `fresh`, which has not begun."""
    write_study(TINY)
    write_study(TINY, name="fresh")
    study = untrained_study("sqlite:///runs/small/study.db", [])
    for value, params in ((0.3, {"lr": 0.5, "batch_size": 16}), (0.6, BEST)):
        trial = optuna.trial.create_trial(value=value, params=params, distributions=DISTRIBUTIONS)
        study.add_trial(trial)


def test_best_of_another_study_come_first_and_only_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("tune", "fresh", "--from", "small")
    assert run(*arguments, "--dry-run", "--format", "json") == 0
    out, err = said(capsys)
    wanted = {"small-impon trial 1": BEST, "small-impon trial 0": {"batch_size": 16}}
    assert json.loads(out)["enqueued"] == wanted
    assert "outside of this space: lr = 0.5 of trial 0 (here: float low 0.001, high 0.3" in err
    assert not Path("runs/fresh/study.db").exists()
    assert run(*arguments) == 0
    out, err = said(capsys)
    assert "Tried first: trials 1, 0 of study 'small-impon'." in err
    assert "trial 0 (from small-impon trial 1)  epoch 1/3" in err
    assert (
        "trials of earlier studies: 0 from small-impon trial 1, 1 from small-impon trial 0" in out
    )
    trials = record().trials
    assert trials[0].params == BEST
    assert trials[1].params["batch_size"] == 16
    assert [trial.origin for trial in trials] == ["small-impon trial 1", "small-impon trial 0", ""]
    assert run(*arguments, "--trials", "4") == 0
    assert "Tried" not in said(capsys)[1]
    assert [trial.origin for trial in record().trials[3:]] == [""]
    assert run(*arguments, "--dry-run", "--format", "json") == 0
    assert json.loads(said(capsys)[0])["enqueued"] == {}
    header = Path("runs/fresh/trials.csv").read_text().splitlines()[0]
    assert "from" in header.split(",")


def test_it_is_no_part_of_what_makes_a_study_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tune", "fresh", "--trials", "1") == 0
    said(capsys)
    assert run("tune", "fresh", "--trials", "2", "--from", "small", "--from-best", "1") == 0
    line = "This study has begun, trials so far: 1. Tried next: trial 1 of study 'small-impon'."
    assert line in said(capsys)[1]
    assert record().trials[1].params == BEST
    assert run("tune", "fresh", "--trials", "2", "--from", "small") == 0
    assert (
        "Left out: trial 0 of study 'small-impon', since this study is to have 2 trials"
        in said(capsys)[1]
    )
    assert len(record().trials) == 2


def test_study_of_plain_optuna_in_any_storage(capsys: pytest.CaptureFixture[str]) -> None:
    plain = optuna.create_study(study_name="mine", storage="sqlite:///mine.db")  # it minimises
    for value, lr in ((0.9, 0.01), (0.1, 0.02)):
        params = {"lr": lr, "momentum": 0.5}
        of_these = {"lr": DISTRIBUTIONS["lr"], "momentum": FloatDistribution(0, 1)}
        plain.add_trial(
            optuna.trial.create_trial(value=value, params=params, distributions=of_these)
        )
    arguments = ("--from", "mine", "--from-storage", "sqlite:///mine.db")
    assert run("tune", "fresh", "--trials", "2", *arguments) == 0
    assert "Of study 'mine', this space does not have: momentum." in said(capsys)[1]
    assert [trial.params["lr"] for trial in record().trials] == [0.02, 0.01]


@pytest.mark.slow
def test_several_workers_enqueue_nothing_twice_under_promotion_with_tpe() -> None:
    text = TINY.replace('name = "SuccessiveHalvingPruner"', 'name = "promote"')
    write_study(text.replace("RandomSampler", "TPESampler"), name="fresh")
    Path("nets.py").write_text(
        "from torch import nn\ndef tiny(n): return nn.Sequential(nn.Flatten(), nn.Linear(64, n))\n"
    )
    arguments = ("--workers", "2", "--set", "model=nets:tiny", "--from", "small")
    assert run("tune", "fresh", "--trials", "4", *arguments) == 0
    origins = [trial.origin for trial in record().trials]
    assert sorted(origins) == ["", "", "small-impon trial 0", "small-impon trial 1"]
    assert [trial.state for trial in record().trials].count("FAIL") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "smal"), "There is no study 'smal'"),
        (("--from", "small", "--from-arm", "uniform"), "has no arm 'uniform'"),
        (("--from-arm", "impon"), "--from-arm needs --from OTHER"),
        (("--from-best", "3"), "--from-best needs --from OTHER"),
        (("--from", "fresh"), "There is no storage"),
        (("--from", "x", "--from-storage", "sqlite:///runs/small/study.db"), "no study 'x'"),
        (("--from", "small", "--set", "space={}"), "has no complete trial with a setting of this"),
    ],
)
def test_mistakes_are_sentences_before_anything_is_trained(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tune", "fresh", *arguments) == 2
    assert message in said(capsys)[1]
    assert not Path("runs/fresh/study.db").exists()

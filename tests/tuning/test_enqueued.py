"""Tests of trials that somebody enqueues: what cannot be a run costs that trial alone."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import REASON
from impon_hpo.tuning.enqueued import check_value
from impon_hpo.tuning.space import Distribution
from impon_hpo.tuning.study import open_study
from tests.command import run
from tests.studies import SMALL, small_study

ADDRESS = "sqlite:///study.db"
PROMOTE = SMALL.replace('name = "SuccessiveHalvingPruner"', 'name = "promote"')
LR = "lr must be a number from 0.001 to 0.3, but got"
BATCH_SIZE = "batch_size must be one of 16, 32, but got"

BAD: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 1}, f"{BATCH_SIZE} 1."),
    ({"batch_size": 500}, f"{BATCH_SIZE} 500."),
    ({"batch_size": None}, f"{BATCH_SIZE} None."),
    ({"lr": -1}, f"{LR} -1."),
    ({"lr": None}, f"{LR} None."),
    ({"lr": float("nan")}, f"{LR} nan."),
    ({"lr": "abc"}, f"{LR} 'abc'."),
    ({"lr": "0.1"}, f"{LR} '0.1'."),
    ({"lr": True}, f"{LR} True."),
    ({"lrr": 0.1}, "'lrr' is not in the space. Did you mean 'lr'? The space has: lr, batch_size."),
]


def study_of(text: str, *settings: str, address: str = ADDRESS) -> optuna.Study:
    """Make the small study's arm `uniform`, and return it as Optuna's users have it."""
    study_file = small_study(*settings, text=text)
    storage = open_storage(address, create=True)
    command = {"study": "small", "settings": list(settings), "storage": None}
    open_study(study_file, "uniform", storage, command=command, environment={})
    return optuna.load_study(study_name="small-uniform", storage=address)


def tune(*arguments: str) -> int:
    return run("tune", "small", "--arm", "uniform", "--storage", ADDRESS, *arguments)


def test_what_is_enqueued_after_the_end_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    study = study_of(SMALL)
    study.add_trial(optuna.trial.create_trial(value=0.5))
    study.enqueue_trial({"lr": 0.02})
    assert tune("--trials", "1") == 0
    assert "not tried, since the study has all its trials: 1. Ask for" in capfd.readouterr().err
    assert study.trials[1].state == TrialState.WAITING


@pytest.mark.parametrize("text", [SMALL, PROMOTE], ids=["halving", "promote"])
def test_what_cannot_be_a_run_fails_alone_with_its_reason(
    text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    study = study_of(text)
    for params, _ in BAD:
        study.enqueue_trial(params)
    study.enqueue_trial({"lr": 0.02})
    n_trials = len(BAD) + 3
    assert tune("--trials", str(n_trials)) == 0
    lines = capfd.readouterr().err.splitlines()
    trials = study.trials
    assert len(trials) == n_trials
    for trial, (_, reason) in zip(trials, BAD, strict=False):
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs[REASON] == reason
        assert lines.count(f"trial {trial.number} failed: {reason}") == 1
    assert TrialState.COMPLETE in {trial.state for trial in trials}
    assert all(trial.state.is_finished() for trial in trials)
    assert trials[len(BAD)].params["lr"] == 0.02  # the rest was drawn
    assert trials[len(BAD)].params["batch_size"] in (16, 32)
    assert run("status", "small", "--storage", ADDRESS) == 0
    told = " ".join(capfd.readouterr().out.split())
    assert f"trial 1 failed: {BATCH_SIZE} 500." in told
    assert "others failed: for 5 reasons: see trials.csv" in told
    assert run("status", "small", "--storage", ADDRESS, "--format", "json") == 0
    (facts,) = json.loads(capfd.readouterr().out)
    assert facts["failed"][0] == {"trial": 0, "reason": BAD[0][1]}
    assert tune("--trials", str(n_trials)) == 0  # and nothing is left to be done


@pytest.mark.parametrize(
    ("value", "distribution", "said"),
    [
        (0.25, FloatDistribution(0.0, 1.0, step=0.1), "a number from 0 to 1 in steps of 0.1"),
        (17, IntDistribution(16, 64, step=16), "a whole number from 16 to 64 in steps of 16"),
        (16.5, IntDistribution(16, 64), "a whole number from 16 to 64, but got 16.5"),
        ("c", CategoricalDistribution(["a", None, True]), "one of 'a', None, True, but got 'c'"),
    ],
)
def test_a_value_outside_of_the_space_is_told_with_what_the_space_has(
    value: Any, distribution: Distribution, said: str
) -> None:
    with pytest.raises(ConfigError, match=f"x must be {said}"):
        check_value("x", value, distribution)


@pytest.mark.parametrize(
    ("value", "distribution"),
    [
        (1, FloatDistribution(0.0, 1.0)),
        (0.3, FloatDistribution(0.0, 1.0, step=0.1)),
        (32, IntDistribution(16, 64, step=16)),
        (None, CategoricalDistribution(["a", None, True])),
    ],
)
def test_a_value_of_the_space_is_none_of_these(value: Any, distribution: Distribution) -> None:
    check_value("x", value, distribution)

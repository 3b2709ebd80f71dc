"""Tests of study samplers that fail or stop a study: no trial is lost, and none has failed."""

from __future__ import annotations

import io
from typing import Any

import optuna
import pytest
from rich.console import Console

from impon_hpo.errors import ImponHpoError
from impon_hpo.storage.connect import open_storage
from impon_hpo.tuning.job import Job, OnEpoch
from impon_hpo.tuning.progress import TuningProgress
from impon_hpo.tuning.study import open_study
from impon_hpo.tuning.worker import work
from tests.studies import small_study


def _open() -> optuna.Study:
    storage = open_storage("sqlite:///study.db", create=True)
    command: dict[str, Any] = {"study": "small", "settings": [], "storage": None}
    return open_study(small_study(), "impon", storage, command=command, environment={})


class Moody(optuna.samplers.RandomSampler):
    """A study sampler that fails at one of its calls, or stops the study after a trial.

    Args:
        where: The call.
        number: The trial at which it does.
        error: What it raises; None: it stops the study.
    """

    def __init__(self, where: str, number: int, error: Exception | None) -> None:
        super().__init__(seed=0)
        self.where, self.number, self.error = where, number, error

    def _act(self, where: str, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if (self.where, self.number) == (where, trial.number):
            if self.error is not None:
                raise self.error
            study.stop()

    def before_trial(self, study: Any, trial: Any) -> None:
        self._act("before_trial", study, trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        self._act("infer_relative_search_space", study, trial)
        return super().infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        self._act("sample_relative", study, trial)
        return super().sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, name: Any, distribution: Any) -> Any:
        self._act("sample_independent", study, trial)
        return super().sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        self._act("after_trial", study, trial)


def _tune_with(sampler: Moody, study: optuna.Study, n_trials: int) -> str:
    printed = io.StringIO()

    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        trial.suggest_float("lr", 1e-3, 0.3, log=True)
        return 0.5

    job = Job("impon", study, train, n_trials, sampler_of=lambda number: sampler)
    with TuningProgress(Console(file=printed, width=200)) as progress:
        work([job], progress=progress)
    return printed.getvalue()


@pytest.mark.parametrize(
    "where",
    ["before_trial", "infer_relative_search_space", "sample_relative", "sample_independent"],
)
@pytest.mark.parametrize("error", [ValueError("no such axis"), ImportError("no cmaes")])
def test_a_study_sampler_that_fails_costs_no_trial(where: str, error: Exception) -> None:
    study = _open()
    with pytest.raises(ImponHpoError, match=f"The study sampler Moody fails: .*{error}.* No trial"):
        _tune_with(Moody(where, 1, error), study, 3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "WAITING"]
    _tune_with(Moody("", 0, None), study, 3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3


def test_a_study_sampler_that_fails_after_a_trial_leaves_its_value() -> None:
    study = _open()
    with pytest.raises(ImponHpoError, match="The study sampler Moody fails: KeyError: 'grid_id'"):
        _tune_with(Moody("after_trial", 1, KeyError("grid_id")), study, 3)
    assert [trial.value for trial in study.trials] == [0.5, 0.5]


def test_an_error_of_the_storage_is_not_the_study_samplers() -> None:
    study = _open()
    away = optuna.exceptions.StorageInternalError("database is locked")
    with pytest.raises(optuna.exceptions.StorageInternalError, match="database is locked"):
        _tune_with(Moody("before_trial", 1, away), study, 3)


def test_a_study_sampler_may_stop_the_study() -> None:
    study = _open()
    said = _tune_with(Moody("after_trial", 1, None), study, 5)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert said.splitlines()[-2:] == [
        "The study sampler has nothing left to try.",
        "trial 1 complete",
    ]

"""A tracker that remembers what it was told, and a study that it follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna

from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.objective import Objective
from impon_hpo.tuning.tracking import TrackedTrial


class Notebook:
    """A tracker that remembers what it was told, and fails where it is asked to."""

    def __init__(self, fails: Callable[[str], bool] = lambda what: False) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.tried: list[str] = []
        self.fails = fails

    def _note(self, what: str, *more: Any) -> None:
        self.tried.append(what)
        if self.fails(what):
            raise ConnectionError("the server is away")
        self.told.append((what, *more))

    def begin(self, trial: TrackedTrial) -> None:
        self._note("begin", trial.number, sorted(trial.past))

    def epoch(self, trial: TrackedTrial, epoch: int, numbers: Mapping[str, float]) -> None:
        self._note("epoch", trial.number, epoch, numbers["val_accuracy"])

    def end(self, trial: TrackedTrial, state: str, value: float | None) -> None:
        self._note("end", trial.number, state, value)


def tried(
    tracker: Any,
    config: TrainingConfig,
    splits: Splits,
    pruner: optuna.pruners.BasePruner | None = None,
    n_trials: int = 1,
    **space: Any,
) -> optuna.Study:
    study = optuna.create_study(
        direction="maximize",
        study_name="by-hand",
        pruner=pruner or optuna.pruners.NopPruner(),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    objective = Objective(config, space, splits=splits, tracker=tracker)
    study.optimize(objective, n_trials=n_trials, catch=RuntimeError)
    return study

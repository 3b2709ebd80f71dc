"""The values that an objective returns, and the directions that a study must have for them."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError
from impon_hpo.storage.trials import COST, epochs_of
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.objective import Objective
from tests.tuning.plain import (
    COUNTED,
    LR,
    loads,
    new_study,
    small,
)


@pytest.mark.parametrize(
    ("given", "values", "line"),
    [
        ({}, ("metric",), 'Use optuna.create_study(direction="maximize").'),
        ({"directions": ["maximize", "minimize"]}, ("metric",), 'direction="maximize"'),
        ({"direction": "maximize"}, ("metric", "cost"), "directions=['maximize', 'minimize']"),
        (
            {"directions": ["maximize", "minimize"]},
            ("seconds", "metric"),
            "directions=['minimize', 'maximize']",
        ),
        (
            {"directions": ["maximize", "minimize"]},
            ("metric", "cost", "parameters"),
            "directions=['maximize', 'minimize', 'minimize']",
        ),
    ],
)
def test_a_study_of_other_directions_is_refused_before_anything_is_loaded(
    given: dict[str, Any], values: tuple[str, ...], line: str
) -> None:
    loads.clear()
    study = optuna.create_study(**given)
    objective = Objective(small(dataset=COUNTED), {"lr": LR}, values=values)
    with pytest.raises(ConfigError) as refused:
        study.optimize(objective, n_trials=1)
    assert line in str(refused.value)
    assert ("values=('metric', 'cost')" in str(refused.value)) == (
        len(values) == 1 and len(study.directions) > 1
    )
    assert loads == []


@pytest.mark.parametrize(
    "values", ["metric", (), ("cost",), ("metric", "metric"), ("metric", "costs"), ("metric", 3)]
)
def test_values_that_are_none_are_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="values must be"):
        Objective(small(), {}, values=values)


def test_several_values_are_returned_in_their_order(tiny_splits: Splits, said: list[str]) -> None:
    values = ("parameters", "metric", "cost", "seconds")
    study = optuna.create_study(
        directions=["minimize", "maximize", "minimize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(seed=0),
    )
    space = {"width": CategoricalDistribution([4, 8])}
    objective = Objective(small(), space, splits=tiny_splits, values=values)
    for width in (4, 8):
        study.enqueue_trial({"width": width})
    study.optimize(objective, n_trials=2)
    one = Objective(small(), space, splits=tiny_splits)
    for trial in study.trials:
        parameters, metric, cost, seconds = trial.values
        assert metric == one(trial)
        assert cost == trial.user_attrs[COST]
        epochs = epochs_of(trial.user_attrs).values()
        assert seconds == sum(
            epoch[key] for epoch in epochs for key in epoch if key.startswith("seconds_")
        )
        assert trial.intermediate_values == {}
        again = objective(trial)
        assert isinstance(again, tuple)
        assert again[:3] == (parameters, metric, cost)
    assert 3.5 < study.trials[1].values[0] / study.trials[0].values[0] < 4.5
    assert said == [
        "MedianPruner has no effect: Optuna prunes only where a trial has one value. "
        "create_study(…, pruner=optuna.pruners.NopPruner()) says so, too."
    ]
    assert study.best_trials


def test_a_run_that_diverges_is_pruned_where_it_has_several_values(tiny_splits: Splits) -> None:
    study = new_study(direction=None, directions=["maximize", "minimize"])
    space = {"lr": CategoricalDistribution([1e30])}
    objective = Objective(small(), space, splits=tiny_splits, values=("metric", "cost"))
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED

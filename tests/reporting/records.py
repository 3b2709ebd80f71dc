"""An invented record of an arm, as the storage would hold it, for tests of its reports."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState, create_trial

from impon_hpo.storage.trials import (
    COMMAND,
    COST,
    ENVIRONMENTS,
    EPOCHS,
    IDENTITY,
    QUESTION,
    REASON,
    StudyRecord,
    read_study,
)

LR = optuna.distributions.FloatDistribution(1e-3, 1.0)
OPTIMIZER = optuna.distributions.CategoricalDistribution(["sgd", "it's adam"])
IDENTITY_OF_IT: dict[str, Any] = {
    "study": "small",
    "arm": "impon",
    "seed": 1,
    "pruner": {"name": "MedianPruner", "n_startup_trials": 3},
    "study_sampler": {"name": "TPESampler"},
    "run": {
        "dataset": "digits",
        "model": "resnet18",
        "width": 4,
        "epochs": 9,
        "sampler": "impon",
        "sampler_options": {"bank_size": 100},
    },
    "space": {"lr": distribution_to_json(LR)},
}


def _epochs(count: int, cost: int = 10) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "val_accuracy": epoch / 10,
            "cost": cost,
            "diagnostics": {"class_balance": 0.9},
        }
        for epoch in range(1, count + 1)
    ]


BALANCED: dict[str, Any] = {"run": {**IDENTITY_OF_IT["run"], "metric": "balanced-accuracy"}}
"""What differs in the identity of a study over balanced accuracy."""


LOSS: dict[str, Any] = {"run": {**IDENTITY_OF_IT["run"], "metric": "loss"}}
"""What differs in the identity of a study over the loss, whose numbers are below 0."""


def small_record(
    *, storage: str | None = None, arm: str = "impon", identity: dict[str, Any] | None = None
) -> StudyRecord:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(IDENTITY, IDENTITY_OF_IT | {"arm": arm} | (identity or {}))
    study.set_user_attr(QUESTION, "Which one?")
    study.set_user_attr(
        COMMAND, {"study": "studies/small", "settings": ["epochs=9"], "storage": storage}
    )
    environment = {"versions": {"torch": "2.15.0"}, "cpu": "a CPU", "threads": 1}
    study.set_user_attr(ENVIRONMENTS, [environment])

    def add(state: TrialState, value: float | None, n_epochs: int, reason: str = "") -> None:
        attrs = {EPOCHS: _epochs(n_epochs), COST: 10 * n_epochs} | (
            {REASON: reason} if reason else {}
        )
        params = {"lr": 0.1 + len(study.trials) / 100, "optimizer": "it's adam"}
        distributions = {"lr": LR, "optimizer": OPTIMIZER}
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=params,
                distributions=distributions,
                user_attrs=attrs,
            )
        )

    add(TrialState.COMPLETE, 0.8, 9)
    add(TrialState.PRUNED, 0.95, 2, "pruned after epoch 2")  # better, but never judged at the end
    add(TrialState.COMPLETE, 0.9, 9)
    add(TrialState.FAIL, None, 1, "RuntimeError: no")
    return read_study(study)

"""What tests of an objective in plain Optuna code share: settings, a space, data that count."""

from __future__ import annotations

import os
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.data import load_dataset
from impon_hpo.training.image_data import ImageData
from tests.settings import training_config
from tests.training.runs import config

LR = FloatDistribution(1e-2, 1e-1, log=True)
SPACE: dict[str, BaseDistribution] = {"lr": LR, "batch_size": CategoricalDistribution([16, 32])}
CROSSFIT: dict[str, Any] = {
    "reference": "crossfit",
    "reference_options": {"epochs": 1, "width": 4, "batch_size": 32},
}
DROPPING = "tests.training.nets:dropping"

COUNTED = f"{__name__}:counted_digits"
loads: list[int] = []
"""The processes that have loaded `counted_digits`, once for each time."""


def counted_digits(**given: Any) -> ImageData:
    loads.append(os.getpid())
    return load_dataset(training_config({"dataset": "digits"}))


def new_study(**given: Any) -> optuna.Study:
    arguments: dict[str, Any] = {
        "direction": "maximize",
        "sampler": optuna.samplers.RandomSampler(seed=0),
        "pruner": optuna.pruners.NopPruner(),
    }
    return optuna.create_study(**(arguments | given))


def small(**given: Any) -> TrainingConfig:
    return config(**({"epochs": 2} | given))

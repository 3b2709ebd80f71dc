"""Tests of the search space."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.space import (
    FIXED,
    corners,
    suggest,
    with_settings,
)
from impon_hpo.tuning.space_syntax import parse_space
from tests.settings import training_config

TABLE = {
    "lr": {"type": "float", "low": 1e-3, "high": 0.3, "log": True},
    "momentum": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.3},
    "width": {"type": "int", "low": 4, "high": 16, "step": 4},
    "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
}


def test_a_table_becomes_optunas_distributions() -> None:
    assert parse_space(TABLE) == {
        "lr": FloatDistribution(1e-3, 0.3, log=True),
        "momentum": FloatDistribution(0.0, 0.9, step=0.3),
        "width": IntDistribution(4, 16, step=4),
        "optimizer": CategoricalDistribution(["sgd", "adam"]),
    }


def test_a_trial_gets_a_value_of_each_setting_within_its_bounds() -> None:
    space = parse_space(TABLE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        params = suggest(trial, space, CONFIG)
        assert params == trial.params
        assert trial.distributions == space
        training_config(params)


def test_corners_are_each_bound_alone_and_all_together() -> None:
    space = parse_space({key: TABLE[key] for key in ("lr", "optimizer")})
    assert list(corners(space, CONFIG)) == [
        {"lr": 1e-3},
        {"lr": 0.3},
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"lr": 1e-3, "optimizer": "sgd"},
        {"lr": 0.3, "optimizer": "adam"},
    ]


def test_a_bound_that_makes_no_valid_run_is_refused() -> None:
    space = {"lr": FloatDistribution(-0.1, 0.3)}
    with pytest.raises(ConfigError, match=r"space allows \{'lr': -0.1\}.*greater than 0"):
        check_space(CONFIG, space)
    with pytest.raises(ConfigError, match=r"batch_size = 1\.5: Input should be a valid integer"):
        check_space(CONFIG, {"batch_size": FloatDistribution(1.5, 8.0)})


@pytest.mark.parametrize("key", sorted(FIXED))
def test_a_setting_that_would_make_trials_incomparable_is_refused_with_the_reason(key: str) -> None:
    assert key in TrainingConfig.model_fields
    with pytest.raises(ConfigError, match=f"space.{key} cannot be searched over"):
        check_space(CONFIG, {key: IntDistribution(1, 3)})


def test_models_and_how_they_are_tuned_can_be_searched_over() -> None:
    table = {
        "model": {"type": "categorical", "choices": ["resnet18", "torchvision.models:resnet50"]},
        "train_layers": {"type": "categorical", "choices": ["all", "head", "layer4, fc"]},
        "normalisation": {"type": "categorical", "choices": ["data", "imagenet"]},
        "class_weights": {"type": "categorical", "choices": ["none", "balanced"]},
        "lr_head": {"type": "float", "low": 1e-3, "high": 1.0, "log": True},
    }
    check_space(CONFIG, parse_space(table))


def test_an_unknown_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"space\.lrr'\. Did you mean 'lr'"):
        check_space(CONFIG, {"lrr": FloatDistribution(0.1, 1)})


def test_a_setting_inside_a_table_is_searched_over_by_its_path() -> None:
    alpha = {"type": "float", "low": 0.1, "high": 1.0}
    space = parse_space({"augment_options": {"mixup": {"alpha": alpha}}})
    assert space == {"augment_options.mixup.alpha": FloatDistribution(0.1, 1.0)}
    assert parse_space({"augment_options.mixup.alpha": alpha}) == space
    config = training_config({"augment_options": {"erase": {"p": 1.0}, "mixup": {"alpha": 2.0}}})
    check_space(config, space)
    found = with_settings(
        config, suggest(optuna.create_study().ask(), space, config)
    ).augment_options
    assert found["erase"] == {"p": 1.0}
    assert 0.1 <= found["mixup"]["alpha"] <= 1.0
    assert config.augment_options["mixup"] == {"alpha": 2.0}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("augment_options.mixup.alfa", "augment_options.mixup.alfa'. Did you mean 'alpha'"),
        ("augment_options.mixup.alpha", r"augment_options.mixup.alpha = -1\.0: "),
        ("lr.low", r"Unknown key 'space\.lr\.low'"),
        ("sampler_options.ratio", "space.sampler_options.ratio cannot be searched over"),
    ],
)
def test_a_wrong_path_or_bound_inside_a_table_is_told(key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_space(CONFIG, {key: FloatDistribution(-1.0, 1.0)})

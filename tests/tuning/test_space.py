"""Tests of the search space: what a trial draws, under which conditions, and its corners."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, distribution_to_json

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.space import (
    corners,
    ends_of,
    suggest,
    walk,
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
CONFIG = training_config({})
CHAIN = {
    "momentum": {"choices": [0.5, 0.8], "when": {"nesterov": True}},
    "nesterov": {"choices": [True, False], "when": {"optimizer": "sgd"}},
    "optimizer": ["sgd", "adam", "adamw"],
}
"""The momentum is searched over with Nesterov's, and that with sgd."""
CHAINED: list[dict[str, Any]] = [
    {"optimizer": "sgd", "nesterov": True, "momentum": 0.5},
    {"optimizer": "sgd", "nesterov": True, "momentum": 0.8},
    {"optimizer": "sgd", "nesterov": False},
    {"optimizer": "adam"},
    {"optimizer": "adamw"},
]


def drawn(table: object, n: int, config: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return what n trials draw at random."""
    space, settings = parse_space(table), training_config(config or {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [suggest(study.ask(), space, settings) for _ in range(n)]


def test_a_trial_gets_a_value_of_each_setting_within_its_bounds() -> None:
    space = parse_space(TABLE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        params = suggest(trial, space, CONFIG)
        assert params == trial.params
        assert trial.distributions == dict(space)
        training_config(params)


def test_a_setting_inside_a_table_is_drawn_by_its_path() -> None:
    alpha = {"type": "float", "low": 0.1, "high": 1.0}
    space = parse_space({"augment_options": {"mixup": {"alpha": alpha}}})
    config = training_config({"augment_options": {"erase": {"p": 1.0}, "mixup": {"alpha": 2.0}}})
    params = suggest(optuna.create_study().ask(), space, config)
    options = with_settings(config, params).augment_options
    assert options["erase"] == {"p": 1.0}
    assert 0.1 <= options["mixup"]["alpha"] <= 1.0
    assert config.augment_options["mixup"] == {"alpha": 2.0}


# Conditions.


def test_a_setting_is_drawn_only_where_its_condition_holds() -> None:
    draws = drawn(CHAIN, 60)
    assert all(params in CHAINED for params in draws)
    assert all(params in draws for params in CHAINED)


def test_what_is_not_drawn_is_not_stored_with_the_trial_either() -> None:
    space = parse_space(CHAIN)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(20)]
    draws = [suggest(trial, space, CONFIG) for trial in trials]
    assert [trial.params for trial in trials] == draws


@pytest.mark.parametrize("order", list(itertools.permutations(CHAIN)))
def test_the_order_of_the_file_does_not_matter(order: tuple[str, ...]) -> None:
    space = parse_space({key: CHAIN[key] for key in order})
    assert space.identity() == parse_space(CHAIN).identity()
    assert all(params in CHAINED for params in drawn({key: CHAIN[key] for key in order}, 20))


def test_all_conditions_must_hold_and_of_a_list_of_values_any_one() -> None:
    when = {"optimizer": ["adam", "adamw"], "batch_size": 16}
    table = {
        "optimizer": ["sgd", "adam", "adamw"],
        "batch_size": [16, 32],
        "weight_decay": {"choices": [0.0, 0.1], "when": when},
    }
    for params in drawn(table, 40):
        holds = params["optimizer"] != "sgd" and params["batch_size"] == 16
        assert ("weight_decay" in params) == holds


def test_a_condition_may_name_a_setting_of_the_run() -> None:
    table = {"warmup_epochs": {"choices": [1.0, 2.0], "when": {"schedule": "one-cycle"}}}
    assert drawn(table, 1) == [{}]
    assert set(drawn(table, 1, {"schedule": "one-cycle"})[0]) == {"warmup_epochs"}


def test_a_condition_reads_what_the_run_has_where_a_setting_is_not_drawn() -> None:
    table = {
        "width": [4, 8],
        "nesterov": {"choices": [True, False], "when": {"width": 4}},
        "momentum": {"choices": [0.5], "when": {"nesterov": True}},
    }
    wide = {"width": 8, "momentum": 0.5}  # trained with nesterov, as [run] says
    draws = drawn(table, 20, {"nesterov": True})
    assert [params for params in draws if params["width"] == 8] == [wide] * draws.count(wide)
    assert {"width": 4, "nesterov": False} in draws
    assert {"width": 8} in drawn(table, 20, {"nesterov": False})


def test_true_is_not_one() -> None:
    table = {"width": [1, 2], "lr": {"choices": [0.1], "when": {"nesterov": [1]}}}
    assert all("lr" not in params for params in drawn(table, 5, {"nesterov": True}))


def test_a_condition_may_name_whole_numbers() -> None:
    table = {
        "width": {"low": 4, "high": 6},
        "lr": {"choices": [0.1], "when": {"width": [4, 6]}},
    }
    assert all(("lr" in params) == (params["width"] != 5) for params in drawn(table, 20))


# What makes it the same space.


def test_identity_of_a_setting_without_condition_is_the_text_that_stored_studies_have() -> None:
    assert parse_space({"lr": TABLE["lr"], "optimizer": TABLE["optimizer"]}).identity() == {
        "lr": '{"name": "FloatDistribution", "attributes": '
        '{"step": null, "low": 0.001, "high": 0.3, "log": true}}',
        "optimizer": '{"name": "CategoricalDistribution", "attributes": '
        '{"choices": ["sgd", "adam"]}}',
    }


def test_identity_of_a_conditional_setting_is_its_distribution_and_its_condition() -> None:
    text = parse_space(CHAIN).identity()["nesterov"]
    plain = distribution_to_json(CategoricalDistribution([True, False]))
    assert text == plain.removesuffix("}") + ', "when": {"optimizer": ["sgd"]}}'


def test_conditions_with_the_same_meaning_are_the_same() -> None:
    def identity(when: object) -> dict[str, str]:
        return parse_space({"nesterov": {"choices": [True], "when": when}}).identity()

    one = identity({"width": 4, "optimizer": ["sgd", "adam"]})
    assert one == identity({"optimizer": ("adam", "sgd"), "width": [4]})
    assert one != identity({"optimizer": "sgd", "width": 4})


# Configurations.


def test_every_configuration_is_walked_through_once() -> None:
    space = parse_space(CHAIN)
    assert list(walk(space, CONFIG, {key: ends_of(space[key]) for key in space})) == CHAINED


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


def test_corners_of_a_conditional_setting_make_its_condition_true() -> None:
    assert list(corners(parse_space(CHAIN), CONFIG)) == [
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"optimizer": "sgd", "nesterov": True},
        {"optimizer": "sgd", "nesterov": False},
        {"optimizer": "sgd", "nesterov": True, "momentum": 0.5},
        {"optimizer": "sgd", "nesterov": True, "momentum": 0.8},
        {"optimizer": "sgd", "nesterov": True, "momentum": 0.5},
        {"optimizer": "adamw"},
    ]


def test_a_condition_that_never_holds_in_an_arm_leaves_its_setting_out_of_the_corners() -> None:
    space = parse_space({"nesterov": {"choices": [True], "when": {"optimizer": "sgd"}}})
    assert list(corners(space, training_config({"optimizer": "adam"}))) == [{}, {}]


def test_a_value_of_a_path_that_is_no_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="augment_options"):
        with_settings(CONFIG, {"augment_options.mixup.alfa": 1.0})

"""Tests of the check of a search space: what it allows must be a valid run."""

from __future__ import annotations

import time
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from impon_hpo.errors import ConfigError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.space import FIXED
from impon_hpo.tuning.space_check import COMBINATIONS, check_conditions, check_space
from impon_hpo.tuning.space_syntax import Conditional, parse_space
from tests.settings import training_config

NESTEROV = [True, False]
MANY = {
    "batch_size": list(range(2, 50)),
    "width": list(range(1, 50)),
}
"""So many choices that not all combinations are checked."""


def check(space: dict[str, Any], **run: Any) -> None:
    check_space(training_config(run), parse_space(space))


def complaint(space: dict[str, Any], **run: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(space, **run)
    return str(caught.value)


def test_models_and_how_they_are_tuned_can_be_searched_over() -> None:
    check(
        {
            "model": ["resnet18", "torchvision.models:resnet50"],
            "train_layers": ["all", "head", "layer4, fc"],
            "normalisation": ["data", "imagenet"],
            "class_weights": ["none", "balanced"],
            "lr_head": {"type": "float", "low": 1e-3, "high": 1.0, "log": True},
        }
    )


def test_an_empty_space_repeats_one_configuration() -> None:
    check({})


@pytest.mark.parametrize("key", sorted(FIXED))
def test_a_setting_that_would_make_trials_incomparable_is_refused_with_the_reason(key: str) -> None:
    assert key in TrainingConfig.model_fields
    assert f"space.{key} cannot be searched over" in complaint({key: IntDistribution(1, 3)})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lrr", "space.lrr'. Did you mean 'lr'"),
        ("augment_options.mixup.alfa", "augment_options.mixup.alfa'. Did you mean 'alpha'"),
        ("augment_options.mixup.alpha", "augment_options.mixup.alpha = -1.0: "),
        ("lr.low", "Unknown key 'space.lr.low'"),
        ("sampler_options.ratio", "space.sampler_options.ratio cannot be searched over"),
    ],
)
def test_a_wrong_name_path_or_bound_is_told(key: str, said: str) -> None:
    assert said in complaint({key: FloatDistribution(-1.0, 1.0)})


# What cannot be a run.


@pytest.mark.parametrize("beside", [{}, {"width": [4, 8], "momentum": [0.5, 0.9]}, MANY])
def test_a_bound_that_makes_no_valid_run_is_refused_and_shown_alone(beside: dict[str, Any]) -> None:
    said = complaint({**beside, "lr": FloatDistribution(-0.1, 0.3)})
    assert said.startswith("space allows lr = -0.1, which is not a valid run: lr = -0.1: ")
    said = complaint({**beside, "ema_epochs": FloatDistribution(-2.0, -1.0)})
    assert said.startswith("space allows ema_epochs = -2.0, which is not a valid run: ")


@pytest.mark.parametrize("beside", [{}, {"width": [4, 8], "lr": [0.1, 0.2]}, MANY])
@pytest.mark.parametrize("order", [("optimizer", "nesterov"), ("nesterov", "optimizer")])
def test_choices_that_do_not_go_together_are_shown_with_the_condition_that_they_need(
    beside: dict[str, Any], order: tuple[str, str]
) -> None:
    both = {"optimizer": ["adam", "sgd"], "nesterov": NESTEROV}
    said = complaint({**beside, **{key: both[key] for key in order}})
    assert 'optimizer = "adam"' in said
    assert "nesterov = true" in said
    assert "together, which is not a valid run: nesterov = true needs optimizer = 'sgd'" in said
    assert 'nesterov = { …, when = { optimizer = "sgd" } }' in said
    assert "Conditional(…, when={'optimizer': 'sgd'})" in said
    assert "batch_size" not in said


def test_the_condition_that_is_proposed_is_enough() -> None:
    check({"optimizer": ["sgd", "adam"], "nesterov": Conditional(NESTEROV, {"optimizer": "sgd"})})


def test_a_condition_lists_all_values_with_which_it_fits() -> None:
    said = complaint({"optimizer": ["sgd", "adam", "adamw"], "nesterov": [True, False]})
    assert 'when = { optimizer = "sgd" }' in said
    schedules = ["cosine", "constant"]
    space = {"warmup_epochs": [0.0, 40.0], "schedule": schedules}
    assert "when" not in complaint(space, epochs=30)


def test_no_condition_is_proposed_where_a_bound_should_be_moved() -> None:
    said = complaint({"nesterov": NESTEROV, "momentum": FloatDistribution(0.0, 0.9)})
    assert "nesterov = true, momentum = 0.0 together" in said
    assert "Search over" not in said


def test_only_what_a_trial_can_be_is_refused() -> None:
    """With the momentum of the run, `nesterov` would not fit; but each trial has another one."""
    check({"momentum": [0.5, 0.9], "nesterov": NESTEROV}, momentum=0.0)
    check({"optimizer": ["sgd"], "nesterov": NESTEROV}, optimizer="adam")


def test_combinations_are_checked_in_no_time() -> None:
    space = parse_space(MANY)
    assert COMBINATIONS < 48 * 49
    begun = time.perf_counter()
    check_space(training_config({}), space)
    assert time.perf_counter() - begun < 1


# Conditions.


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (
            {"optimzer": "sgd"},
            "Unknown key 'space.nesterov.when.optimzer'. Did you mean 'optimizer'?",
        ),
        (
            {"optimizer": "sdg"},
            "space.nesterov.when.optimizer = \"sdg\": Input should be 'sgd', 'adam' or 'adamw'. "
            "Did you mean 'sgd'?",
        ),
        ({"optimizer": ["sgd", 3]}, "space.nesterov.when.optimizer = 3: "),
    ],
)
def test_a_condition_on_what_does_not_exist_is_refused(when: dict[str, Any], said: str) -> None:
    assert said in complaint({"nesterov": Conditional(NESTEROV, when)})


def test_a_condition_that_never_holds_is_refused_with_the_reason() -> None:
    def never(space: dict[str, Any], *runs: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            check_conditions([training_config(run) for run in runs or ({},)], parse_space(space))
        return str(caught.value)

    said = never({"nesterov": Conditional(NESTEROV, {"optimizer": "adam"})})
    assert 'its condition, optimizer = "adam", never holds' in said
    assert 'since optimizer is "sgd" and not searched over' in said
    chain = {
        "optimizer": ["sgd", "adam"],
        "nesterov": Conditional(NESTEROV, {"optimizer": "sgd"}),
        "momentum": Conditional([0.5], {"nesterov": True, "optimizer": ["adam", "adamw"]}),
    }
    with pytest.raises(ConfigError, match=r"when\.optimizer must be among .*\"adamw\""):
        parse_space(chain)
    chain["momentum"] = Conditional([0.5], {"nesterov": True, "optimizer": "adam"})
    assert "space.momentum: its condition" in never(chain)


def test_a_condition_need_hold_in_one_arm_only() -> None:
    space = parse_space({"nesterov": Conditional(NESTEROV, {"optimizer": "sgd"})})
    arms = [training_config({"optimizer": optimizer}) for optimizer in ("adam", "sgd")]
    check_conditions(arms, space)
    for config in arms:
        check_space(config, space)


@pytest.mark.parametrize(
    "beside", [{}, {"batch_size": MANY["batch_size"], "ema_epochs": list(range(1, 21))}]
)
def test_what_a_condition_on_a_number_between_the_bounds_allows_is_checked(
    beside: dict[str, Any],
) -> None:
    space = {"width": range(4, 9), "lr": Conditional([-1.0], {"width": 6})}
    assert "lr = -1.0" in complaint({**beside, **space})


def test_image_sizes_need_one_in_the_run() -> None:
    sizes = {"image_size": CategoricalDistribution([8, 16])}
    assert "space.image_size needs image_size in [run]" in complaint(sizes)
    check(sizes, image_size=8)

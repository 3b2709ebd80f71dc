"""Tests of how a search space is written, in a study file and in Python."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.space_syntax import Conditional, parse_space


def complaint(space: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_space(space)
    return str(caught.value)


# What is accepted.


@pytest.mark.parametrize(
    ("key", "entry", "distribution"),
    [
        (
            "lr",
            {"type": "float", "low": 1e-3, "high": 0.3, "log": True},
            FloatDistribution(1e-3, 0.3, log=True),
        ),
        (
            "width",
            {"type": "int", "low": 4, "high": 16, "step": 4},
            IntDistribution(4, 16, step=4),
        ),
        (
            "optimizer",
            {"type": "categorical", "choices": ["sgd", "adam"]},
            CategoricalDistribution(["sgd", "adam"]),
        ),
        ("lr", {"low": 0.1, "high": 1}, FloatDistribution(0.1, 1.0)),
        ("lr", {"low": 1, "high": 2}, FloatDistribution(1.0, 2.0)),
        ("lr_head", {"low": 1, "high": 2}, FloatDistribution(1.0, 2.0)),
        ("momentum", {"low": 0, "high": 0.9, "step": 0.3}, FloatDistribution(0.0, 0.9, step=0.3)),
        ("width", {"low": 4, "high": 16}, IntDistribution(4, 16)),
        ("image_size", {"low": 8, "high": 16, "step": 8}, IntDistribution(8, 16, step=8)),
        ("augment_options.mixup.alpha", {"low": 0.1, "high": 1}, FloatDistribution(0.1, 1.0)),
        ("batch_size", {"choices": [16, 32]}, CategoricalDistribution([16, 32])),
        ("batch_size", [16, 32], CategoricalDistribution([16, 32])),
        ("lr", [0.1, 0.2], CategoricalDistribution([0.1, 0.2])),
        ("batch_size", (16, 32, 64), CategoricalDistribution([16, 32, 64])),
        ("optimizer", ("sgd", "adam"), CategoricalDistribution(["sgd", "adam"])),
        ("nesterov", (True, False), CategoricalDistribution([True, False])),
        ("lr_head", [None, 0.1], CategoricalDistribution([None, 0.1])),
        ("width", range(4, 17, 4), IntDistribution(4, 16, step=4)),
        ("width", range(16, 3, -4), IntDistribution(4, 16, step=4)),
        ("batch_size", np.array([16, 32]), CategoricalDistribution([16, 32])),
        ("batch_size", [np.int64(16), np.int64(32)], CategoricalDistribution([16, 32])),
        ("lr", {"low": np.float32(0.5), "high": np.float64(1)}, FloatDistribution(0.5, 1.0)),
        ("width", {"low": np.int64(4), "high": np.int64(8)}, IntDistribution(4, 8)),
        ("lr", FloatDistribution(0.1, 0.2), FloatDistribution(0.1, 0.2)),
    ],
)
def test_what_is_plain_is_read(key: str, entry: object, distribution: BaseDistribution) -> None:
    space = parse_space({key: entry})
    assert dict(space) == {key: distribution}
    values = [*getattr(space[key], "choices", ())]
    assert not [value for value in values if isinstance(value, np.generic)]


@pytest.mark.parametrize(
    ("name", "arguments", "distribution"),
    [
        ("UniformDistribution", (0.1, 0.2), FloatDistribution(0.1, 0.2)),
        ("LogUniformDistribution", (0.1, 0.2), FloatDistribution(0.1, 0.2, log=True)),
        ("DiscreteUniformDistribution", (0.0, 0.8, 0.2), FloatDistribution(0.0, 0.8, step=0.2)),
        ("IntUniformDistribution", (4, 16, 4), IntDistribution(4, 16, step=4)),
        ("IntLogUniformDistribution", (4, 16), IntDistribution(4, 16, log=True)),
    ],
)
def test_distributions_of_optuna_2_become_those_of_today(
    name: str, arguments: tuple[float, ...], distribution: BaseDistribution
) -> None:
    with pytest.warns(FutureWarning, match=name):
        old = getattr(optuna.distributions, name)(*arguments)
    space = parse_space({"lr": old})
    assert dict(space) == {"lr": distribution}
    assert type(space["lr"]) is type(distribution)


def test_what_is_shorter_is_the_same_space() -> None:
    """So that a study is continued by whichever spelling."""
    short = {"lr": {"low": 1e-3, "high": 1}, "batch_size": [16, 32]}
    long = {
        "lr": {"type": "float", "low": 1e-3, "high": 1.0, "log": False},
        "batch_size": {"type": "categorical", "choices": [16, 32]},
    }
    assert parse_space(short).identity() == parse_space(long).identity()


@given(st.dictionaries(st.sampled_from(["lr", "momentum", "ema_epochs", "width"]), st.none()))
def test_without_conditions_the_order_is_that_of_the_file(keys: dict[str, None]) -> None:
    assert list(parse_space({key: [1, 2] for key in keys})) == list(keys)


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "float", "low": 0.1, "high": 1.0},
        {"low": 0.1, "high": 1.0},
        [0.1, 1.0],
        FloatDistribution(0.1, 1.0),
        Conditional([0.1, 1.0], when={"augment": "mixup"}),
        {"choices": [0.1, 1.0], "when": {"augment": "mixup"}},
        {"choices": [0.1, 1.0], "when": {"augment_options": {"rand": {"magnitude": 3}}}},
    ],
)
def test_a_setting_inside_a_table_has_its_path_as_its_key(entry: Any) -> None:
    nested = parse_space({"augment_options": {"mixup": {"alpha": entry}}})
    assert list(nested) == ["augment_options.mixup.alpha"]
    assert nested == parse_space({"augment_options.mixup.alpha": entry})


def test_conditions_of_python_and_of_a_file_are_the_same() -> None:
    python = {"nesterov": Conditional([True, False], when={"optimizer": "sgd"})}
    file = {"nesterov": {"choices": [True, False], "when": {"optimizer": "sgd"}}}
    assert parse_space(python) == parse_space(file)
    assert parse_space(python) != parse_space({"nesterov": [True, False]})


# What is refused.


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (None, "A space must be a table of settings"),
        ([0.1], "A space must be a table of settings"),
        ({3: [0.1]}, "The name of a setting must be a text, but got 3"),
    ],
)
def test_what_is_no_table_of_settings_is_told(space: object, said: str) -> None:
    assert said in complaint(space)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (3, "space.lr = 3 is a single value, so nothing is searched. Set it in [run]"),
        ("sgd", 'space.lr = "sgd" is a single value'),
        (True, "space.lr = true is a single value"),
        (np.float64(0.1), "space.lr = 0.1 is a single value"),
        (None, "space.lr must be a list of choices, such as [16, 32], or a table"),
        ({0.1, 0.2}, "space.lr must be a list of choices"),
        (range(0), "space.lr must be a list of choices"),
        ({}, "space.lr must be a list of choices"),
        ({"log": True}, "space.lr must be a list of choices"),
        ({"type": "flaot", "low": 1, "high": 2}, "'float', 'int' or 'categorical'"),
        ({"type": ["float"], "low": 1}, "'float', 'int' or 'categorical'"),
        ({"type": "float", "low": 1, "hi": 2}, "Did you mean 'high'"),
        ({"low": 1, "high": 2, "choices": [1]}, "Unknown key 'space.lr.low'"),
        ({"type": "float", "low": 1}, "space.lr.high must be a number, but got None"),
        ({"low": 1.0}, "space.lr.high must be a number, but got None"),
        ({"type": "float", "low": True, "high": 2}, "must be a number, but got True"),
        ({"type": "float", "low": 0.1, "high": float("inf")}, "must be a number, but got inf"),
        ({"type": "float", "low": float("nan"), "high": 1}, "must be a number, but got nan"),
        ({"type": "int", "low": 1.5, "high": 4}, "space.lr.low must be a whole number"),
        ({"low": 2.0, "high": 1.0}, "space.lr: low must be at most high, but got low = 2.0 and"),
        ({"low": 0.0, "high": 1.0, "log": True}, "space.lr: log = true needs low above 0"),
        ({"low": 0.1, "high": 1.0, "log": True, "step": 0.1}, "exclude each other"),
        ({"type": "int", "low": 1, "high": 9, "log": True, "step": 2}, "exclude each other"),
        ({"low": 0.1, "high": 1.0, "log": "yes"}, "space.lr.log must be true or false"),
        ({"low": 0.1, "high": 1.0, "step": 0.0}, "space.lr.step must be above 0"),
        ({"low": 0.1, "high": 1.0, "step": "a"}, "space.lr.step must be a number"),
        ({"choices": 3}, "space.lr.choices must be a list, but got 3"),
        ({"choices": []}, "space.lr must have at least one choice"),
        ([], "space.lr must have at least one choice"),
        ([0.1, 0.2, 0.1], "but 0.1 is there 2 times"),
        ([1, True], "but True is there 2 times (Optuna takes 1, 1.0 and true for the same)"),
        ([[0.1], [0.2]], "space.lr: a choice must be a text, a number, or true or false"),
        ([{"alpha": 1}], "space.lr: a choice must be a text, a number, or true or false"),
    ],
)
def test_a_mistake_in_an_entry_is_named(entry: object, said: str) -> None:
    assert said in complaint({"lr": entry})


@pytest.mark.parametrize(
    ("entry", "range_of", "choice"),
    [
        ((0.1, 0.2), "FloatDistribution(0.1, 0.2)", "[0.1, 0.2]"),
        ((16, 64), "IntDistribution(16, 64)", "[16, 64]"),
        ((np.int64(16), np.int64(64)), "IntDistribution(16, 64)", "[16, 64]"),
        ((1e-3, 0.1, "log-uniform"), "FloatDistribution(0.001, 0.1)", "[0.001, 0.1, 'log-"),
    ],
)
def test_a_pair_of_numbers_that_could_be_a_range_is_refused_with_both_spellings(
    entry: object, range_of: str, choice: str
) -> None:
    said = complaint({"lr": entry})
    assert f"could be a range or a choice. Write {range_of} for all from" in said
    assert f"or {choice}" in said


def test_whole_numbers_inside_a_table_need_a_type() -> None:
    said = complaint({"augment_options": {"rand": {"magnitude": {"low": 1, "high": 9}}}})
    assert 'space.augment_options.rand.magnitude needs a type: "int" for whole numbers' in said


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("sgd", "space.nesterov.when must be a table of settings and their values"),
        ({}, "space.nesterov.when must be a table of settings and their values"),
        ({"optimizer": []}, "space.nesterov.when.optimizer must be a value or a list of values"),
        ({"optimizer": [["sgd"]]}, "must be a value or a list of values"),
        ({"width": "8"}, "space.nesterov.when.width must be among what space.width has (whole num"),
        ({"width": 9}, "numbers from 4 to 8 in steps of 2), but got 9"),
        ({"batch_size": [16, 64]}, "what space.batch_size has (16, 32), but got 64"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"lr": 0.1}, "lr is drawn from a range of numbers, which hits none of them exactly"),
        ({"nesterov": True}, "must not go round in a circle, but nesterov → nesterov do"),
    ],
)
def test_a_mistake_in_a_condition_is_named(when: object, said: str) -> None:
    space = {
        "width": range(4, 9, 2),
        "batch_size": [16, 32],
        "schedule": ["cosine", "constant"],
        "lr": {"low": 0.1, "high": 0.2},
    }
    assert said in complaint({"nesterov": {"choices": [True, False], "when": when}, **space})


def test_a_condition_without_choices_is_told() -> None:
    assert "space.nesterov must be a list" in complaint({"nesterov": {"when": {"width": 4}}})


def test_conditions_that_go_round_in_a_circle_are_shown() -> None:
    space = {
        "optimizer": Conditional(["sgd", "adam"], {"width": 4}),
        "nesterov": Conditional([True, False], {"optimizer": "sgd"}),
        "width": Conditional([4, 8], {"nesterov": True}),
    }
    chain = re.search(r"circle, but (.*) do\.", complaint(space))
    assert chain is not None
    names = chain[1].split(" → ")
    assert names[0] == names[-1]
    assert set(names) == set(space)

"""Tests of pruners and study samplers by Optuna's own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.algorithms import make_pruner, make_study_sampler

PRUNERS: list[dict[str, Any]] = [
    {"name": "NopPruner"},
    {"name": "MedianPruner", "n_startup_trials": 3, "n_min_trials": 2},
    {"name": "PercentilePruner", "percentile": 25.0},
    {"name": "SuccessiveHalvingPruner", "reduction_factor": 3},
    {"name": "HyperbandPruner"},
    {"name": "ThresholdPruner", "lower": 0.2},
    {"name": "WilcoxonPruner", "p_threshold": 0.2},
    {"name": "PatientPruner", "wrapped_pruner": {"name": "MedianPruner"}, "patience": 2},
]
SAMPLERS: list[dict[str, Any]] = [
    {"name": "RandomSampler"},
    {"name": "TPESampler", "n_startup_trials": 5, "multivariate": True},
    {"name": "CmaEsSampler"},
    {"name": "GPSampler"},
    {"name": "QMCSampler"},
    {"name": "NSGAIISampler"},
    {"name": "NSGAIIISampler"},
    {"name": "BruteForceSampler"},
    {"name": "GridSampler", "search_space": {"lr": [0.1, 0.2]}},
    {
        "name": "PartialFixedSampler",
        "fixed_params": {"lr": 0.1},
        "base_sampler": {"name": "RandomSampler"},
    },
]


@pytest.mark.parametrize("table", PRUNERS, ids=lambda table: table["name"])
def test_every_pruner_of_optuna_is_made_by_name(table: dict[str, Any]) -> None:
    assert type(make_pruner(table, epochs=9)).__name__ == table["name"]


def test_no_pruner_of_optuna_is_left_out() -> None:
    classes = {name for name in optuna.pruners.__all__ if name.endswith("Pruner")}
    assert classes - {"BasePruner"} == {table["name"] for table in PRUNERS}


@pytest.mark.parametrize("table", SAMPLERS, ids=lambda table: table["name"])
def test_every_study_sampler_of_optuna_is_made_by_name(table: dict[str, Any]) -> None:
    made = make_study_sampler(table, seed=0, number=0)
    assert type(made).__name__ == table["name"]


def test_no_study_sampler_of_optuna_is_left_out() -> None:
    classes = {name for name in optuna.samplers.__all__ if name.endswith("Sampler")}
    assert classes - {"BaseSampler", "BaseGASampler"} == {table["name"] for table in SAMPLERS}


def test_resources_are_set_and_never_guessed_from_the_first_trials() -> None:
    halving = make_pruner({"name": "SuccessiveHalvingPruner"}, epochs=9)
    assert vars(halving)["_min_resource"] == 1
    hyperband = make_pruner({"name": "HyperbandPruner"}, epochs=27)
    assert vars(hyperband)["_min_resource"] == 1
    assert vars(hyperband)["_max_resource"] == 27
    given = make_pruner({"name": "HyperbandPruner", "max_resource": 9}, epochs=27)
    assert vars(given)["_max_resource"] == 9


def _first_values(table: dict[str, Any], *, seed: int, number: int) -> list[float]:
    sampler = make_study_sampler(table, seed=seed, number=number)
    study = optuna.create_study(sampler=sampler)
    return [study.ask().suggest_float("x", 0, 1) for _ in range(4)]


@pytest.mark.parametrize("name", ["RandomSampler", "TPESampler"])
def test_a_continued_study_sampler_does_not_propose_its_first_values_again(name: str) -> None:
    first = _first_values({"name": name}, seed=7, number=0)
    assert first == _first_values({"name": name}, seed=7, number=0)
    assert not set(first) & set(_first_values({"name": name}, seed=7, number=4))
    assert not set(first) & set(_first_values({"name": name}, seed=8, number=0))


def _patient(wrapped: Any) -> dict[str, Any]:
    return {"name": "PatientPruner", "wrapped_pruner": wrapped, "patience": 2}


@pytest.mark.parametrize(
    ("wrapped", "kind"),
    [
        ("MedianPruner", optuna.pruners.MedianPruner),
        ({"name": "HyperbandPruner"}, optuna.pruners.HyperbandPruner),
        ("optuna.pruners:MedianPruner", optuna.pruners.MedianPruner),
        (_patient("none"), optuna.pruners.PatientPruner),
        ("none", type(None)),
    ],
)
def test_a_wrapped_pruner_is_made_by_name_too(wrapped: Any, kind: type) -> None:
    made = vars(make_pruner(_patient(wrapped), epochs=9))["_wrapped_pruner"]
    assert type(made) is kind
    if kind is optuna.pruners.HyperbandPruner:
        assert vars(made)["_max_resource"] == 9


def _fixing(base: Any) -> dict[str, Any]:
    return {"name": "PartialFixedSampler", "fixed_params": {"y": 0.5}, "base_sampler": base}


@pytest.mark.parametrize("base", ["RandomSampler", {"name": "RandomSampler"}])
def test_an_inner_study_sampler_is_made_by_name_and_has_the_studys_seed(base: Any) -> None:
    first = _first_values(_fixing(base), seed=7, number=0)
    assert first == _first_values(_fixing(base), seed=7, number=0)
    assert not set(first) & set(_first_values(_fixing(base), seed=7, number=4))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (_fixing("RandomSmpler"), "Did you mean 'RandomSampler'"),
        (_fixing("none"), "Unknown study sampler 'none'"),  # it cannot do without
        (_fixing({"name": "TPESampler", "seed": 3}), "set the study's `seed`"),
        ({"name": "PartialFixedSampler", "fixed_params": {}}, "needs base_sampler"),
        (_fixing("RandomSampler") | {"fixed_params": 3}, "fixed_params = 3: Input should be a tab"),
        ({"name": "GridSampler"}, "GridSampler needs search_space"),
        ({"name": "GridSampler", "search_space": {"lr": 1}}, "Input should be a list"),
        ({"name": "TPESampler", "n_startup_trials": "x"}, "n_startup_trials = 'x': Input should"),
        ({"name": "TPESampler", "gamma": "x"}, "gamma = 'x': Input should be callable"),
        ({"name": "GPSampler", "independent_sampler": 3}, 'must be a name, a table .* or "none"'),
        ({"name": "BaseGASampler"}, "Unknown study sampler"),
    ],
)
def test_a_mistake_in_a_study_sampler_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_study_sampler(table, seed=0, number=0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, r"\[pruner\] must have a name"),
        ({"name": "MedianPrunner"}, "Did you mean 'MedianPruner'"),
        ({"name": "promot"}, "Did you mean 'promote'"),
        (
            {"name": "promote", "min_resource": 9},
            r"min_resource must be below the epochs of a run \(9\).*got 9",
        ),
        (
            {"name": "PatientPruner", "wrapped_pruner": {"name": "promote"}, "patience": 1},
            "not a pruner that another one can wrap",
        ),
        ({"name": "MedianPruner", "n_startup": 1}, "Did you mean 'n_startup_trials'"),
        ({"name": "PercentilePruner", "percentile": 101.0}, "between 0 and 100"),
        (
            {"name": "PercentilePruner"},
            "needs percentile. It takes: percentile, n",
        ),
        ({"name": "SuccessiveHalvingPruner", "reduction_factor": 1}, "reduction_factor"),
        ({"name": "no_such_module:Pruner"}, "cannot be imported"),
        ({"name": "NopPruner", "x": 1}, "NopPruner has no argument 'x'. It takes no arguments."),
        (_patient("promote"), "not a pruner that another one can wrap"),
        (_patient("MedianPrunner"), "Did you mean 'MedianPruner'"),
        (_patient({"patience": 1}), r"\[pruner\] must have a name"),
        (_patient({"name": "MedianPruner", "x": 1}), "MedianPruner has no argument 'x'"),
        (_patient(3), 'wrapped_pruner = 3 must be a name, a table .* or "none"'),
        ({"name": "PatientPruner", "patience": 2}, "PatientPruner needs wrapped_pruner"),
        (_patient("none") | {"patience": "2"}, "patience = '2': Input should be a valid integer"),
        (_patient("none") | {"patience": True}, "patience = True: Input should be a valid integer"),
        (
            {"name": "SuccessiveHalvingPruner", "reduction_factor": 2.5},
            "reduction_factor = 2.5: Input should be a valid integer",
        ),
        ({"name": "ThresholdPruner", "lower": "x"}, "lower = 'x': Input should be a valid number"),
        ({"name": "HyperbandPruner", "max_resource": "x"}, "should be integer or 'auto'"),
    ],
)
def test_a_mistake_in_a_pruner_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_pruner(table, epochs=9)


def test_a_seed_belongs_to_the_study() -> None:
    with pytest.raises(ConfigError, match="set the study's `seed`"):
        make_study_sampler({"name": "TPESampler", "seed": 3}, seed=0, number=0)


def test_a_pruner_of_ones_own_is_used_and_anything_else_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path().resolve())
    Path("my_pruner.py").write_text(
        "import optuna\n"
        "class LastPlace(optuna.pruners.BasePruner):\n"
        "    def __init__(self, margin=0.1):\n"
        "        self.margin = margin\n"
        "    def prune(self, study, trial):\n"
        "        return True\n"
        "class Any(LastPlace):\n"
        "    def __init__(self, odd: 'no such type' = 1, **rest):\n"
        "        self.odd, self.rest = odd, rest\n"
        "class Broken(LastPlace):\n"
        "    def __init__(self):\n"
        "        raise KeyError('x')\n"
        "class NoPruner:\n"
        "    pass\n"
    )
    made = make_pruner({"name": "my_pruner:LastPlace", "margin": 0.5}, epochs=9)
    assert vars(made) == {"margin": 0.5}
    made = make_pruner({"name": "my_pruner:Any", "odd": "a", "more": 2}, epochs=9)
    assert vars(made) == {"odd": "a", "rest": {"more": 2}}
    with pytest.raises(ConfigError, match="my_pruner:Broken: 'x'"):
        make_pruner({"name": "my_pruner:Broken"}, epochs=9)
    with pytest.raises(ConfigError, match="must be an optuna BasePruner"):
        make_pruner({"name": "my_pruner:NoPruner"}, epochs=9)

"""Warm starts: which configurations of an earlier study are tried first, and that none is twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import FROM, IDENTITY, is_finished
from impon_hpo.tuning.space_syntax import parse_space
from impon_hpo.tuning.warm_start import Earlier, best_of, enqueue, enqueue_best, find_study

SPACE = parse_space(
    {
        "lr": FloatDistribution(1e-3, 0.3, log=True),
        "batch_size": [16, 32],
        "width": IntDistribution(2, 10, step=2),
        "nesterov": [True, False],
    }
)
WIDE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(0, 10),
    "batch_size": CategoricalDistribution([16, 32, 64, "16"]),
    "width": FloatDistribution(0, 100),
    "nesterov": CategoricalDistribution([0, 1, True, False]),
    "beta": FloatDistribution(0, 1),
    "gamma": FloatDistribution(0, 1),
}


def earlier_study(*trials: tuple[float, dict[str, Any]], minimise: bool = False) -> optuna.Study:
    """Return a study that plain Optuna made, with complete trials of these values."""
    direction = StudyDirection.MINIMIZE if minimise else StudyDirection.MAXIMIZE
    study = optuna.create_study(study_name="earlier", direction=direction)
    for value, params in trials:
        of_these = {key: WIDE[key] for key in params}
        study.add_trial(create_trial(value=value, params=params, distributions=of_these))
    return study


def params_of(earlier: list[Earlier]) -> list[dict[str, Any]]:
    return [one.params for one in earlier]


@pytest.mark.parametrize("minimise", [False, True])
def test_best_come_first_in_the_direction_of_the_earlier_study(minimise: bool) -> None:
    sign = -1 if minimise else 1
    values = [0.1, 0.4, 0.2, 0.3]
    study = earlier_study(
        *((sign * value, {"lr": value / 2}) for value in values), minimise=minimise
    )
    earlier, notes = best_of(study, SPACE, 3)
    assert [one.trial for one in earlier] == [1, 3, 2]
    assert params_of(earlier) == [{"lr": 0.2}, {"lr": 0.15}, {"lr": 0.1}]
    assert not notes


def test_only_complete_trials_that_break_no_constraint_are_taken() -> None:
    study = earlier_study((0.5, {"lr": 0.1}))
    of_lr = {"lr": WIDE["lr"]}
    pruned = create_trial(
        state=TrialState.PRUNED,
        value=0.9,
        params={"lr": 0.2},
        distributions=of_lr,
        intermediate_values={1: 0.9},
    )
    study.add_trial(pruned)
    broken = create_trial(
        value=0.9, params={"lr": 0.2}, distributions=of_lr, constraints={"memory": 1.0}
    )
    study.add_trial(broken)
    assert params_of(best_of(study, SPACE, 5)[0]) == [{"lr": 0.1}]


def test_no_two_are_alike_also_in_what_is_left_of_them() -> None:
    study = earlier_study(
        (0.9, {"lr": 0.1, "beta": 0.5}),
        (0.8, {"lr": 0.1, "beta": 0.6}),
        (0.7, {"lr": 0.2, "gamma": 0.5}),
        (0.6, {"beta": 0.5}),
    )
    earlier, notes = best_of(study, SPACE, 5)
    assert [(one.trial, one.params) for one in earlier] == [(0, {"lr": 0.1}), (2, {"lr": 0.2})]
    assert notes == ["Of study 'earlier', this space does not have: beta, gamma."]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", 0.3, 0.3),
        ("lr", 0.31, None),
        ("batch_size", 32, 32),
        ("batch_size", 64, None),
        ("batch_size", "16", None),
        ("width", 4.0, 4),
        ("width", 5.0, None),
        ("width", 4.5, None),
        ("nesterov", True, True),
        ("nesterov", 1, None),
    ],
)
def test_value_is_taken_where_the_space_has_it(key: str, value: Any, expected: Any) -> None:
    given = {key: value} if key == "lr" else {"lr": 0.1, key: value}
    earlier, notes = best_of(earlier_study((0.5, given)), SPACE, 5)
    if expected is None:
        assert params_of(earlier) == ([] if key == "lr" else [{"lr": 0.1}])
        (note,) = notes
        assert f"outside of this space: {key} = {value!r} of trial 0 (here: " in note
    else:
        assert earlier[0].params[key] == expected
        assert type(earlier[0].params[key]) is type(expected)
        assert not notes


def test_study_of_several_objectives_is_refused() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(ConfigError, match="has 2 objectives"):
        best_of(study, SPACE, 5)


def test_plain_study_tries_them_first_and_knows_where_they_come_from(said: list[str]) -> None:
    earlier = earlier_study((0.2, {"lr": 0.2, "beta": 0.1}), (0.4, {"lr": 0.1}))
    study = optuna.create_study(direction="maximize")
    assert enqueue_best(study, earlier, SPACE) == [{"lr": 0.1}, {"lr": 0.2}]
    assert said == [
        "Of study 'earlier', this space does not have: beta.",
        "Tried first: trials 1, 0 of study 'earlier'.",
    ]

    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("lr", 1e-3, 0.3, log=True) + trial.suggest_int("width", 2, 4)

    study.optimize(objective, n_trials=3)
    assert [trial.params["lr"] for trial in study.trials[:2]] == [0.1, 0.2]
    origins = [trial.user_attrs.get(FROM) for trial in study.trials]
    assert origins == [{"study": "earlier", "trial": 1}, {"study": "earlier", "trial": 0}, None]
    assert enqueue_best(study, earlier, SPACE) == []  # it has tried them
    assert len(study.trials) == 3


def test_study_that_has_begun_gets_them_next_and_no_more_than_it_is_to_have() -> None:
    study = earlier_study((0.1, {"lr": 0.25}), (0.1, {"lr": 0.15}))
    earlier = [Earlier("other", 7 - at, {"lr": lr}) for at, lr in enumerate([0.1, 0.15, 0.2, 0.3])]
    lines: list[str] = []
    assert enqueue(study, earlier, lines.append, n_trials=3) == earlier[:1]
    assert lines == [
        "This study has begun, trials so far: 2. Tried next: trial 7 of study 'other'.",
        "Left out: trials 5, 4 of study 'other', since this study is to have 3 trials. Ask for "
        "more with --trials.",
    ]
    assert enqueue(study, earlier, lines.append, n_trials=9) == earlier[2:]


def test_what_is_killed_in_between_is_made_up_for() -> None:
    study = earlier_study()
    earlier = [Earlier("other", at, {"lr": 0.1 + at / 100}) for at in range(4)]
    enqueue(study, earlier[:2], print)
    assert enqueue(study, earlier, print) == earlier[2:]
    assert len(study.trials) == 4


@pytest.mark.parametrize("kind", ["sqlite", "journal", "postgres"])
def test_processes_that_enqueue_at_once_leave_each_configuration_once(
    kind: str, request: pytest.FixtureRequest
) -> None:
    addresses = {"sqlite": "sqlite:///x.db", "journal": "x.journal"}
    address = addresses.get(kind) or request.getfixturevalue("postgres")
    optuna.create_study(study_name="x", storage=open_storage(address, create=True))
    earlier = [Earlier("other", at, {"lr": 0.1 + at / 100}) for at in range(4)]
    ready = threading.Barrier(3)

    def begin() -> None:
        study = optuna.load_study(study_name="x", storage=open_storage(address, create=False))
        ready.wait()
        enqueue(study, earlier, print)

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = optuna.load_study(study_name="x", storage=open_storage(address, create=False))
    waiting = [trial for trial in study.trials if trial.state == TrialState.WAITING]
    assert sorted(_lr(trial) for trial in waiting) == [one.params["lr"] for one in earlier]
    assert not any(is_finished(trial) for trial in study.trials)  # twins do not count


def _lr(trial: FrozenTrial) -> float:
    return float(trial.system_attrs["fixed_params"]["lr"])


def stored(*studies: tuple[str, str, str]) -> Any:
    """Return a storage with studies by name, each of ours with its study and arm."""
    storage = open_storage("found.journal", create=True)
    for name, of, arm in studies:
        study = optuna.create_study(study_name=name, storage=storage)
        if of:
            study.set_user_attr(IDENTITY, {"study": of, "arm": arm})
    return storage


def test_study_is_found_by_its_name_or_by_its_arm() -> None:
    storage = stored(("digits-impon", "digits", "impon"), ("digits", "", ""))

    def find(name: str, *, exact: bool, arm: str = "impon") -> str:
        return find_study(storage, name, arm=arm, place="it", exact=exact).study_name

    assert find("digits", exact=True) == "digits"
    assert find("digits", exact=False) == "digits-impon"
    assert find("digits-impon", exact=True, arm="other") == "digits-impon"
    with pytest.raises(
        ConfigError, match=r"has no arm 'uniform' in it\. It has: impon\. Say which"
    ):
        find("digits", exact=False, arm="uniform")
    with pytest.raises(StorageError, match=r"no study 'digit' in it\. Did you mean 'digits'\?"):
        find("digit", exact=True)
    assert Path("found.journal").exists()

"""Tests of studies that try combinations: each once, to their end, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from impon_hpo.errors import ConfigError, TrialSettingsError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import read_studies
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning import objective
from impon_hpo.tuning.combinations import Combinations, combinations_of
from impon_hpo.tuning.space_syntax import Conditional, parse_space
from tests.command import run
from tests.studies import SMALL, write_study
from tests.tuning.forks import start
from tests.tuning.test_recovery import kill_at

# Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

GRID = 'name = "GridSampler"\nsearch_space = { lr = [0.01, 0.02, 0.05], batch_size = [16, 32] }'
SPACE = parse_space(
    {
        "lr": FloatDistribution(1e-3, 0.3, log=True),
        "batch_size": CategoricalDistribution([16, 32]),
    }
)
CONFIG = TrainingConfig()
PROMOTE = 'name = "promote"\nreduction_factor = 2'
HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
LINE = "All 6 combinations of the grid are tried."


def grid_study(sampler: str = GRID, pruner: str = HALVING) -> Path:
    text = SMALL.replace('name = "RandomSampler"', sampler).replace(HALVING, pruner)
    text = text.replace("epochs = 3", "epochs = 2")
    return write_study(text.replace("n_trials = 3", "n_trials = 6"))


def tune(*arguments: str) -> int:
    return run("tune", "small", "--arm", "uniform", *arguments)


def tried(address: str) -> list[tuple[Any, ...]]:
    (record,) = read_studies(open_storage(address, create=False), "small")
    # Two workers that see the last combination at the same moment make a trial each.
    trials = [trial for trial in record.trials if "No combination is left" not in trial.reason]
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
    return sorted(tuple(sorted(trial.params.items())) for trial in trials)


EVERY = sorted(
    (("batch_size", batch_size), ("lr", lr)) for lr in (0.01, 0.02, 0.05) for batch_size in (16, 32)
)


@pytest.mark.parametrize(
    ("pruner", "address"), [(HALVING, "sqlite:///grid.db"), (PROMOTE, "grid.journal")]
)
def test_a_grid_is_tried_once_and_then_the_study_ends(
    pruner: str, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    grid_study(pruner=pruner)
    assert tune("--storage", address, "--trials", "9") == 0
    assert tried(address) == EVERY
    said = capfd.readouterr().err
    assert said.count(LINE) == 1
    assert "finished 0/6" in said
    for n in ("6", "9"):  # and again, with more trials, too
        assert tune("--storage", address, "--trials", n) == 0
        said = capfd.readouterr().err
        assert LINE in said
        assert "epoch" not in said
        assert "Traceback" not in said
    assert tried(address) == EVERY


@pytest.mark.parametrize("pruner", [pytest.param(HALVING, marks=pytest.mark.slow), PROMOTE])
def test_two_workers_try_a_grid_once(pruner: str, postgres: str) -> None:
    grid_study(pruner=pruner)
    command = ["tune", "small", "--arm", "uniform", "--storage", postgres, "--trials", "9"]
    workers = [start(*command) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert tried(postgres) == EVERY
    for worker in workers:
        assert worker.said.count(LINE) == 1
        assert "Traceback" not in worker.said
        assert "epoch 1/2" in worker.said


SPACE_BY_CHOICES = 'space.lr={type="categorical", choices=[0.01, 0.02, 0.05]}'


@pytest.mark.parametrize(
    "sampler",
    [
        'name = "BruteForceSampler"',
        pytest.param(
            'name = "PartialFixedSampler"\nfixed_params = {}\nbase_sampler = "BruteForceSampler"',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_all_of_a_space_is_tried_once(sampler: str, capfd: pytest.CaptureFixture[str]) -> None:
    grid_study(sampler)
    address = "sqlite:///space.db"
    assert tune("--storage", address, "--trials", "9", "--set", SPACE_BY_CHOICES) == 0
    assert tried(address) == EVERY
    assert LINE in capfd.readouterr().err


WHERE: dict[str, tuple[tuple[Any, str, bool], int]] = {
    "between claim and values": ((objective, "suggest", False), 4),
    "before the end": ((optuna.Study, "tell", False), 3),
}


@pytest.mark.parametrize(
    ("point", "pruner"),
    [
        ("between claim and values", PROMOTE),
        ("before the end", HALVING),
        pytest.param("between claim and values", HALVING, marks=pytest.mark.slow),
        pytest.param("before the end", PROMOTE, marks=pytest.mark.slow),
    ],
)
def test_a_killed_grid_goes_on_to_the_same_end(point: str, pruner: str) -> None:
    grid_study(pruner=pruner)
    address = "grid.journal"
    place, n = WHERE[point]
    kill_at(place, n, lambda: tune("--storage", address, "--trials", "9"))
    assert tune("--storage", address, "--trials", "9") == 0
    assert tried(address) == EVERY


def test_a_plan_counts_the_combinations(capfd: pytest.CaptureFixture[str]) -> None:
    grid_study()
    assert tune("--dry-run", "--trials", "9", "--format", "json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["trials"], facts["epochs_at_most"]) == (6, 12)


def test_watching_a_grid_ends_with_it(capfd: pytest.CaptureFixture[str]) -> None:
    grid_study()
    assert tune("--trials", "9") == 0
    assert run("watch", "small", "--trials", "9") == 0


def study_with(*trials: optuna.trial.FrozenTrial) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study.get_trials()


def combinations() -> Combinations:
    table = {
        "name": "GridSampler",
        "search_space": {"lr": [0.01, 0.02, 0.05], "batch_size": [16, 32]},
    }
    made = combinations_of(table, SPACE, CONFIG, seed=3)
    assert made is not None
    return made


def new() -> optuna.trial.FrozenTrial:
    return create_trial(state=TrialState.RUNNING)


def enqueued(**params: Any) -> optuna.trial.FrozenTrial:
    return create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params})


def test_each_number_has_a_combination_of_its_own_whoever_asks() -> None:
    trials = study_with(*(new() for _ in range(6)))
    each = [combinations().of(number, trials[: number + 1]) for number in range(6)]
    assert sorted(tuple(sorted(params.items())) for params in each) == EVERY
    assert [combinations().of(number, trials) for number in range(6)] == each
    with pytest.raises(TrialSettingsError, match="No combination is left for it: all 6"):
        combinations().of(6, study_with(*(new() for _ in range(7))))


def test_what_somebody_enqueued_is_not_tried_again() -> None:
    wanted = {"lr": 0.02, "batch_size": 32}
    trials = study_with(new(), enqueued(**wanted), *(new() for _ in range(4)))
    own = combinations().of(0, trials)
    each = [combinations().of(number, trials) for number in range(6)]
    assert each[1] == wanted
    others = [params for number, params in enumerate(each) if number != 1]
    assert (wanted in others) == (own == wanted)
    assert len({json.dumps(params) for params in others}) == 5


def test_a_trial_that_is_enqueued_in_part_gets_a_combination_with_it() -> None:
    trials = study_with(enqueued(lr=0.05), enqueued(lr=0.05), enqueued(lr=0.05), enqueued(lr=0.1))
    first, second = (combinations().of(number, trials) for number in range(2))
    assert {first["batch_size"], second["batch_size"]} == {16, 32}
    assert first["lr"] == second["lr"] == 0.05
    with pytest.raises(TrialSettingsError, match="No combination is left"):
        combinations().of(2, trials)
    assert combinations().of(3, trials)["lr"] == 0.1  # beside the grid
    assert combinations().n_trials(trials[:2]) == 6
    assert combinations().n_trials([trials[3]]) == 7


def test_a_trial_that_is_enqueued_in_part_gets_no_combination_that_lacks_a_value() -> None:
    space = parse_space(
        {
            "optimizer": ["sgd", "adamw"],
            "nesterov": Conditional([True, False], when={"optimizer": "sgd"}),
        }
    )
    values: dict[str, list[Any]] = {
        "optimizer": ["sgd", "adamw"],
        "nesterov": [True, False],
    }
    counted = Combinations(values, space, CONFIG, seed=0)
    trials = study_with(*(enqueued(optimizer="sgd") for _ in range(3)), enqueued(nesterov=True))
    first, second = (counted.of(number, trials) for number in range(2))
    assert {first["nesterov"], second["nesterov"]} == {True, False}
    with pytest.raises(TrialSettingsError, match="No combination is left"):
        counted.of(2, trials)
    # Of adamw, what is enqueued is not asked for: it is adamw's only combination.
    assert counted.of(3, trials) == {"optimizer": "adamw"}
    assert counted.n_trials(trials) == 4
    # A value that is not in the space is not the grid's business: it is blamed as such.
    (wrong,) = study_with(enqueued(optimizer="adam"))
    assert counted.of(0, [wrong])["optimizer"] == "adam"


def test_a_trial_that_was_stopped_outside_leaves_its_combination() -> None:
    params = {"lr": 0.01, "batch_size": 16}
    stopped = create_trial(
        state=TrialState.FAIL,
        params=params,
        distributions=dict(SPACE),
        user_attrs={"impon:reason": "interrupted"},
    )
    trials = study_with(stopped)
    assert combinations().n_trials(trials) == 6
    trials = study_with(stopped, *(new() for _ in range(6)))
    assert params in [combinations().of(number, trials) for number in range(1, 7)]


def test_only_what_is_asked_for_makes_a_difference() -> None:
    counted = Combinations(
        {"lr": [0.1], "batch_size": [16, 32], "x": [1, 2]}, SPACE, CONFIG, seed=0
    )
    assert len(counted) == 2


def test_a_space_too_large_for_an_end_is_left_to_optuna() -> None:
    space = parse_space({"a": IntDistribution(1, 200), "b": IntDistribution(1, 200)})
    assert combinations_of({"name": "BruteForceSampler"}, space, CONFIG, seed=0) is None
    assert combinations_of({"name": "TPESampler"}, space, CONFIG, seed=0) is None


def test_steps_are_counted_as_they_are_written() -> None:
    space = parse_space(
        {"x": FloatDistribution(0.1, 0.5, step=0.2), "n": IntDistribution(2, 6, step=2)}
    )
    every = combinations_of({"name": "BruteForceSampler"}, space, CONFIG, seed=0)
    assert every is not None
    assert len(every) == 9
    trials = study_with(*(new() for _ in range(9)))
    each = [every.of(number, trials) for number in range(9)]
    assert {params["x"] for params in each} == {0.1, 0.3, 0.5}
    assert {params["n"] for params in each} == {2, 4, 6}


def test_settings_inside_of_tables_may_be_tables_in_a_grid() -> None:
    space = parse_space(
        {
            "augment_options": {"mixup": {"alpha": {"type": "float", "low": 0.1, "high": 1.0}}},
        }
    )
    nested = {"augment_options": {"mixup": {"alpha": [0.1, 0.5]}}}
    grid = combinations_of({"name": "GridSampler", "search_space": nested}, space, CONFIG, seed=0)
    assert grid is not None
    assert grid.of(0, study_with(new())).keys() == {"augment_options.mixup.alpha"}


Table = dict[str, Any]


def fixing(base: Any, **params: Any) -> Table:
    return {"name": "PartialFixedSampler", "fixed_params": params, "base_sampler": base}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"name": "GridSampler", "search_space": {"lr": [0.1]}},
            "search_space lacks batch_size: a grid has values for each setting",
        ),
        (
            {"name": "GridSampler", "search_space": {"lr": [0.1, 2.0], "batch_size": [16]}},
            "search_space: lr must be a number from 0.001 to 0.3, but got 2.0",
        ),
        (
            {"name": "GridSampler", "search_space": {"lr": [0.1], "batch_size": [17]}},
            "batch_size must be one of 16, 32, but got 17",
        ),
        ({"name": "GridSampler", "search_space": {"lr": 0.1}}, "must be a list of values"),
        ({"name": "GridSampler", "search_space": {"lr": []}}, "must be a list of values"),
        (
            {"name": "GridSampler", "search_space": {"batchsize": [16]}},
            "'batchsize', which is not in .space.. Did you mean 'batch_size'",
        ),
        ({"name": "BruteForceSampler"}, "space.lr must have a step, or choices"),
        (fixing("TPESampler", lr=3), "fixed_params: lr must be a number from 0.001 to 0.3"),
        (fixing("TPESampler", lrr=0.1), "'lrr', which is not in .space.. Did you mean 'lr'"),
    ],
)
def test_a_grid_that_does_not_fit_the_space_is_refused(table: Table, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        combinations_of(table, SPACE, CONFIG, seed=0)


@pytest.mark.parametrize(
    "base", ["BruteForceSampler", {"name": "GridSampler", "search_space": {"batch_size": [16, 32]}}]
)
def test_what_is_fixed_is_not_gone_through(base: Any) -> None:
    fixed = combinations_of(fixing(base, lr=0.1), SPACE, CONFIG, seed=0)
    assert fixed is not None
    trials = study_with(new(), new())
    each = [fixed.of(number, trials) for number in range(2)]
    assert [params["lr"] for params in each] == [0.1, 0.1]
    assert {params["batch_size"] for params in each} == {16, 32}


def test_the_order_is_that_of_the_seed() -> None:
    def order(seed: int) -> list[Table]:
        every = combinations_of(
            {"name": "BruteForceSampler"},
            parse_space({"n": IntDistribution(1, 9)}),
            CONFIG,
            seed=seed,
        )
        assert every is not None
        trials = study_with(*(new() for _ in range(9)))
        return [every.of(number, trials) for number in range(9)]

    assert order(1) == order(1) != order(2)


def test_a_trial_for_which_nothing_is_left_ends_with_that_reason(
    capfd: pytest.CaptureFixture[str],
) -> None:
    grid_study()
    assert tune("--storage", "grid.journal") == 0
    (record,) = read_studies(open_storage("grid.journal", create=False), "small")
    record.optuna_study.enqueue_trial({})  # as a worker does that another one forestalls
    capfd.readouterr()
    assert tune("--storage", "grid.journal", "--trials", "9") == 0
    said = capfd.readouterr().err
    assert "trial 6 failed: No combination is left for it: all 6 of the grid are tried" in said
    assert LINE in said
    assert tune("--storage", "grid.journal", "--trials", "9") == 0
    assert tried("grid.journal") == EVERY


def test_one_combination_is_called_one() -> None:
    one = parse_space({"batch_size": [16]})
    grid = Combinations({"batch_size": [16]}, one, CONFIG, seed=0)
    assert grid.exhausted == "The one combination of the grid is tried."

"""An objective in plain Optuna code: any trial, study sampler, pruner and function around it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.study import MaxTrialsCallback
from optuna.trial import FixedTrial, TrialState

from impon_hpo.sampling.table import SAMPLERS
from impon_hpo.storage.connect import artifact_store
from impon_hpo.storage.trials import USED
from impon_hpo.training.config import wants_reference
from impon_hpo.training.reference_folder import References
from impon_hpo.training.splits import Splits
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.objective import Objective
from tests.training.runs import config
from tests.tuning.plain import (
    CROSSFIT,
    LR,
    SPACE,
    new_study,
    small,
)

# Trials that are in no study, or done.


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_trial_again_and_a_fixed_one_come_to_the_same_value(
    tiny_splits: Splits, sampler: str
) -> None:
    given = small(sampler=sampler)
    if wants_reference(given):
        given = small(sampler=sampler, **CROSSFIT)
    study = new_study()
    objective = Objective(given, {"lr": LR}, splits=tiny_splits)
    study.optimize(objective, n_trials=1)
    assert objective(study.best_trial) == study.best_value
    assert objective(FixedTrial(study.best_params)) == study.best_value


@pytest.mark.parametrize("sampler", ["impon", "impon-memory"])
def test_a_trial_again_leaves_everything_as_it_was(tmp_path: Path, sampler: str) -> None:
    study = new_study(storage="sqlite:///study.db", pruner=optuna.pruners.MedianPruner(1))
    objective = Objective(
        small(sampler=sampler),
        SPACE,
        artifact_store=artifact_store("artifacts"),
        references=References(Path("references")),
        checkpoints=Checkpoints(Path("checkpoints"), keep=True),
    )
    study.optimize(objective, n_trials=2)
    trials = study.get_trials(deepcopy=False)
    attributes = study.user_attrs
    kept = copy.deepcopy(trials)
    files = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for trial in trials:
        value = objective(trial)
        assert objective(trial) == value
        assert trial.state == TrialState.PRUNED or value == trial.value
    fixed = FixedTrial({"lr": 0.05, "batch_size": 16})
    assert objective(fixed) == objective(fixed)
    assert fixed.user_attrs == {}
    assert trials == kept == study.get_trials()
    assert study.user_attrs == attributes
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == files


def test_a_trial_again_reads_the_reference_that_it_used(
    tiny_splits: Splits, said: list[str]
) -> None:
    given = config(sampler="rho-loss", epoch_fraction=1.0, epochs=4)
    study = new_study()
    objective = Objective(
        given, {"lr": LR}, splits=tiny_splits, references=References(Path("references"))
    )
    study.optimize(objective, n_trials=2)
    first, second = study.trials
    assert USED not in first.user_attrs
    assert [objective(first), objective(second)] == [first.value, second.value]
    said.clear()
    elsewhere = Objective(
        given, {"lr": LR}, splits=tiny_splits, references=References(Path("empty"))
    )
    assert elsewhere(first) == first.value
    assert said == []
    assert 0 <= elsewhere(second) <= 1
    (line,) = said
    assert line.startswith(f"The reference {second.user_attrs[USED]}, which trial 1 was trained ")
    assert list(Path("empty").glob("*.pt")) == []  # it teaches nobody


@pytest.mark.parametrize("sampler", ["curriculum", "placebo"])
def test_a_first_trial_is_uniform_where_its_sampler_has_no_order_without_a_reference(
    tiny_splits: Splits, sampler: str
) -> None:
    options = {"of": "rho-loss"} if sampler == "placebo" else {}
    given = small(sampler=sampler, sampler_options=options)
    study = new_study()
    study.optimize(Objective(given, {"lr": LR}, splits=tiny_splits), n_trials=1)
    uniform = Objective(small(), {"lr": LR}, splits=tiny_splits)
    assert uniform(study.best_trial) == study.best_value


def test_a_pruned_trial_again_goes_to_its_end(tiny_splits: Splits) -> None:
    study = new_study(pruner=optuna.pruners.ThresholdPruner(lower=1.1))
    objective = Objective(small(), {"lr": LR}, splits=tiny_splits)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert objective(trial) == objective(FixedTrial(trial.params)) != trial.value


def test_a_fixed_trial_that_diverges_is_pruned_as_in_a_study(tiny_splits: Splits) -> None:
    objective = Objective(small(), {"lr": CategoricalDistribution([1e30])}, splits=tiny_splits)
    with pytest.raises(optuna.TrialPruned, match="training loss of epoch"):
        objective(FixedTrial({"lr": 1e30}))


def test_ask_and_tell(tiny_splits: Splits) -> None:
    objective = Objective(small(), SPACE, splits=tiny_splits)
    study = new_study()
    for _ in range(2):
        trial = study.ask()
        study.tell(trial, objective(trial))
    optimised = new_study()
    optimised.optimize(objective, n_trials=2)
    assert [trial.params for trial in study.trials] == [trial.params for trial in optimised.trials]
    assert [trial.value for trial in study.trials] == [trial.value for trial in optimised.trials]


# What else people do with an objective.

SAMPLERS_OF_OPTUNA: list[Callable[[], BaseSampler]] = [
    optuna.samplers.CmaEsSampler,
    optuna.samplers.GPSampler,
    optuna.samplers.NSGAIISampler,
    optuna.samplers.NSGAIIISampler,
    optuna.samplers.QMCSampler,
    optuna.samplers.TPESampler,
    lambda: optuna.samplers.GridSampler({"lr": [0.02, 0.05], "batch_size": [16]}),
    lambda: optuna.samplers.PartialFixedSampler({"lr": 0.05}, optuna.samplers.RandomSampler(0)),
]
PRUNERS_OF_OPTUNA: list[Callable[[], BasePruner]] = [
    optuna.pruners.MedianPruner,
    lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=2, reduction_factor=2),
    lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(1), patience=1),
    lambda: optuna.pruners.PercentilePruner(50.0, n_startup_trials=1),
    optuna.pruners.SuccessiveHalvingPruner,
    lambda: optuna.pruners.ThresholdPruner(lower=0.0),
    optuna.pruners.WilcoxonPruner,
]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", SAMPLERS_OF_OPTUNA)
def test_every_study_sampler_proposes_for_it(
    tiny_splits: Splits, sampler: Callable[[], BaseSampler]
) -> None:
    objective = Objective(small(epochs=1), SPACE, splits=tiny_splits)
    study = new_study(sampler=sampler())
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert objective(study.best_trial) == study.best_value


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("pruner", PRUNERS_OF_OPTUNA)
def test_every_pruner_judges_its_epochs(
    tiny_splits: Splits, pruner: Callable[[], BasePruner]
) -> None:
    objective = Objective(small(), SPACE, splits=tiny_splits)
    study = new_study(pruner=pruner())
    study.optimize(objective, n_trials=4)
    for trial in study.trials:
        assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        assert trial.value == trial.intermediate_values[trial.last_step or 0]


def test_a_function_around_it_has_suggestions_and_a_verdict_of_its_own(
    tiny_splits: Splits,
) -> None:
    objective = Objective(small(), SPACE, splits=tiny_splits)
    other = Objective(small(seed=1), SPACE, splits=tiny_splits)

    def mean(trial: Any) -> float:
        share = trial.suggest_float("share", 0, 1)
        value: Any = share * objective(trial) + (1 - share) * other(trial)
        trial.set_user_attr("share", share)
        if value > 1:
            raise optuna.TrialPruned
        return float(value)

    study = new_study(storage=JournalStorage(JournalFileBackend("journal.log")))
    study.enqueue_trial({"share": 0.5})
    study.optimize(
        mean,
        n_trials=3,
        timeout=100,
        catch=(RuntimeError,),
        gc_after_trial=True,
        callbacks=[MaxTrialsCallback(2, states=(TrialState.COMPLETE,))],
    )
    study.optimize(mean, n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.trials[0].user_attrs["share"] == 0.5
    assert mean(study.best_trial) == study.best_value

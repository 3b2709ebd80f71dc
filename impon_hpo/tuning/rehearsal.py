"""The rehearsal: pruner and study sampler on made-up curves, before anything is trained.

Optuna takes most arguments as they come, and imports optional packages when they are needed: what
does not fit shows only once there are trials to compare.
"""

from __future__ import annotations

import warnings

import optuna

from impon_hpo.errors import ConfigError, ImponHpoError
from impon_hpo.storage.connect import quiet_studies
from impon_hpo.tuning.algorithms import BlamedSampler, make_pruner, make_study_sampler
from impon_hpo.tuning.space import suggest
from impon_hpo.tuning.study_file import StudyFile

N_BEFORE = 12
"""Trials that are there when pruner and study sampler are asked: most begin to decide after ten."""

N_AFTER = 2


def rehearse(study_file: StudyFile, arm: str) -> None:
    """Ask pruner and study sampler of an arm about a few made-up trials.

    Raises:
        ConfigError: One of them fails.
    """
    config = study_file.arms[arm]
    epochs = config.epochs

    def made_up(trial: optuna.Trial) -> float:
        suggest(trial, study_file.space, config)
        value = 0.0
        for epoch in range(1, epochs + 1):
            value = (1 - 0.8**epoch) * (1 + trial.number * 5 % N_BEFORE) / N_BEFORE
            storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
            if epoch < epochs and study.pruner.prune(study, storage.get_trial(trial._trial_id)):
                raise optuna.TrialPruned
        return value

    with warnings.catch_warnings(), quiet_studies(optuna.logging.CRITICAL):
        warnings.simplefilter("ignore")
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=optuna.pruners.NopPruner(),
        )
        storage = study._storage
        study.optimize(made_up, n_trials=N_BEFORE)
        study.pruner = make_pruner(study_file.pruner, epochs=epochs)
        if study_file.combinations(arm) is None:
            sampler = make_study_sampler(
                study_file.study_sampler, seed=study_file.seed, number=N_BEFORE
            )
            study.sampler = BlamedSampler(sampler)
        try:
            study.optimize(made_up, n_trials=N_AFTER)
        except ImponHpoError as error:
            fault, table, cause = error.__cause__, "study_sampler", study_file.study_sampler
        except Exception as error:
            fault, table, cause = error, "pruner", study_file.pruner
        else:
            return
    raise ConfigError(
        f"[{table}] {cause['name']} fails as soon as it has trials to look at: "
        f"{type(fault).__name__}: {fault}"
    ) from fault

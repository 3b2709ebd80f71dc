"""Tuning an arm: its trials, until as many are finished as were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.environment import environment
from impon_hpo.errors import NothingYetError
from impon_hpo.files import expanded, free_disk, readable_bytes
from impon_hpo.storage.connect import (
    artifact_store,
    open_storage,
    without_secrets,
)
from impon_hpo.tuning.algorithms import make_study_sampler
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.budget import Budget
from impon_hpo.tuning.enqueued import blaming_settings, check_names, enqueued_values, frozen
from impon_hpo.tuning.job import Job, OnEpoch
from impon_hpo.tuning.lease import Watch
from impon_hpo.tuning.processes import Orders
from impon_hpo.tuning.promotion import promotion_of
from impon_hpo.tuning.standings import Standings
from impon_hpo.tuning.study import finished_study, open_study
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.trackers import make_tracker
from impon_hpo.tuning.warm_start import Earlier, enqueue
from impon_hpo.tuning.worker import Progress, work

CHECKPOINT_SHARE = 0.5
"""Share of the free disk that checkpoints of waiting trials may take up, unless told otherwise."""


def command_of(orders: Orders) -> dict[str, Any]:
    """Return study, settings and storage as the user gave them, for the commands that are shown."""
    storage = None if orders.storage is None else without_secrets(orders.storage)
    return {"study": orders.study, "settings": list(orders.settings), "storage": storage}


def budget_of(orders: Orders) -> Budget:
    """Return what may be spent."""
    return Budget(orders.max_epochs, orders.max_cost, orders.max_seconds)


def checkpoints_of(study_file: StudyFile, orders: Orders) -> Checkpoints:
    """Return the folder in which runs are saved."""
    return Checkpoints(
        checkpoint_folder(study_file),
        keep=orders.keep_checkpoints,
        budget=orders.checkpoint_budget,
        best=best_folder(study_file) if orders.task == "tune" else None,
    )


def checkpoint_folder(study_file: StudyFile) -> Path:
    """Return the folder for the checkpoints of trials that are not finished."""
    return study_file.runs / "checkpoints"


def best_folder(study_file: StudyFile) -> Path:
    """Return the folder for the checkpoint of the best complete trial of each arm."""
    return study_file.runs / "best"


def tune(study_file: StudyFile, arm: str, orders: Orders, progress: Progress) -> None:
    """Run trials of an arm until as many are finished as wanted.

    A trial that fails is recorded with its reason and the study goes on. It ends when all
    combinations of a grid are tried, too. Of an arm that has all its trials, neither data nor model
    are looked at, which take seconds to load.

    Args:
        study_file: The study.
        arm: One of its arms.
        orders: Trials, storage, budget, device.
        progress: Gets what there is to tell.

    Raises:
        ImponHpoError: Three trials in a row failed, or the user made a mistake.
        BudgetSpentError: The budget is spent.
        KeyboardInterrupt: The user stopped it.
    """
    n_trials = orders.n_trials or study_file.n_trials
    address = orders.storage or study_file.storage
    checkpoints = checkpoints_of(study_file, orders)
    combinations = study_file.combinations(arm)
    earlier = [Earlier(**one) for one in orders.earlier]
    storage: BaseStorage | None = None
    with suppress(NothingYetError):
        storage = open_storage(address, create=False)
    if storage is not None:
        record = finished_study(study_file, arm, storage, n_trials, command=command_of(orders))
        if record is not None:
            study = record.optuna_study
            trials = study.get_trials(deepcopy=False)
            enqueue(study, earlier, progress.note, n_trials=n_trials)
            checkpoints.delete_finished(study, trials)
            if combinations is not None and combinations.all_tried(trials):
                progress.note(combinations.exhausted)
            _note_enqueued(trials, progress)
            return

    promotion = promotion_of(study_file.pruner, epochs=study_file.arms[arm].epochs)
    store = artifact_store(study_file.artifacts)
    if has_own_place(study_file):
        checkpoints.store = store
    if promotion is not None and checkpoints.budget is None:
        checkpoints.budget = _room_of_waiting(checkpoints, progress)

    from impon_hpo.training.reference_folder import References
    from impon_hpo.tuning.dry_run import check_fit
    from impon_hpo.tuning.objective import Objective
    from impon_hpo.tuning.rehearsal import rehearse

    objective = Objective(
        study_file.arms[arm],
        study_file.space,
        artifact_store=store,
        references=References(study_file.runs / "references"),
        checkpoints=checkpoints,
        n_trials=n_trials,
        report=study_file.report,
        report_smoothing=study_file.report_smoothing,
        tracker=make_tracker(study_file.track, study_file.runs),
    )
    rehearse(study_file, arm)
    check_fit(study_file.arms[arm], study_file.space, objective.splits_of)
    storage = open_storage(address, create=True) if storage is None else storage
    study = open_study(
        study_file,
        arm,
        storage,
        command=command_of(orders),
        environment=environment(str(objective.device)),
    )
    if earlier:
        with filelock.FileLock(study_file.runs / "enqueue.lock"):  # workers of a machine in turn
            enqueue(study, earlier, progress.note, n_trials=n_trials)
    standings = None
    if promotion is not None:
        standings = Standings(
            study, promotion, checkpoints, untaught=lambda: objective.untaught(study)
        )

    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        with blaming_settings(trial):  # around `Objective`, others may ask for values of their own
            check_names(frozen(trial), study_file.space)
        return float(objective(trial, on_epoch))

    job = Job(
        arm,
        study,
        train,
        n_trials,
        standings=standings,
        combinations=combinations,
        sampler_of=lambda number: make_study_sampler(
            study_file.study_sampler, seed=study_file.seed, number=number
        ),
    )
    work(
        [job],
        progress=progress,
        budget=budget_of(orders),
        watch=Watch(grace=orders.grace),
        checkpoints=checkpoints,
    )


def has_own_place(study_file: StudyFile) -> bool:
    """Return whether artifacts have a place of their own, which other machines may see."""
    return not expanded(study_file.artifacts).resolve().is_relative_to(study_file.runs.resolve())


def _note_enqueued(trials: Sequence[FrozenTrial], progress: Progress) -> None:
    """Say that what somebody has enqueued is not tried, since all trials are finished."""
    enqueued = [
        trial.number
        for trial in trials
        if trial.state == TrialState.WAITING and not trial.params and enqueued_values(trial)
    ]
    if enqueued:
        progress.note(
            f"Enqueued and not tried, since the study has all its trials: "
            f"{', '.join(map(str, enqueued))}. Ask for more with --trials."
        )


def _room_of_waiting(checkpoints: Checkpoints, progress: Progress) -> float:
    """Return the bytes that checkpoints of trials that wait to be promoted may take up, and say
    so."""
    room = free_disk(checkpoints.folder) * CHECKPOINT_SHARE
    progress.note(
        f"Checkpoints of waiting trials may take up at most {readable_bytes(room)} (half of the "
        "free disk); --checkpoint-budget changes that."
    )
    return room

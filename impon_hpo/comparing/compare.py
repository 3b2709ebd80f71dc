"""Comparing: a comparison's runs are recorded by one worker of possibly many, then gathered."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from optuna.artifacts import download_artifact, get_all_artifact_meta
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from impon_hpo.comparing.evidence import ending, fix, read_trials, runs_to_adopt
from impon_hpo.comparing.grid import Grid, Key, PlannedRun, comparison_grid, samplers_grid
from impon_hpo.comparing.recorder import STEP_LOSSES, make_jobs
from impon_hpo.environment import environment
from impon_hpo.storage.connect import ArtifactStore, artifact_store, open_storage
from impon_hpo.storage.trials import COMMAND, QUESTION, RECORDED, epochs_of
from impon_hpo.training.device import find_device
from impon_hpo.training.reference_folder import References
from impon_hpo.tuning.lease import Watch
from impon_hpo.tuning.processes import Orders
from impon_hpo.tuning.study_file import StudyFile
from impon_hpo.tuning.tune import budget_of, checkpoints_of, command_of
from impon_hpo.tuning.worker import Progress, work


def compare(study_file: StudyFile, orders: Orders, progress: Progress) -> None:
    """Train what is not recorded yet of a comparison.

    Args:
        study_file: The study.
        orders: Arms, storage, budget, device, and the table that is continued.
        progress: Gets what there is to tell.

    Raises:
        ImponHpoError: A run met a mistake of the user's, or failed three times.
        BudgetSpentError: The budget is spent.
        KeyboardInterrupt: The user stopped it.
    """
    grid = comparison_grid(study_file, orders.arms)
    adopted: Collection[Key] = ()
    if orders.recordings is not None:  # a mistake in it comes before anything is begun
        adopted = runs_to_adopt(study_file, Path(orders.recordings))
    storage = open_storage(orders.storage or study_file.storage, create=True)
    fixed = fix(study_file, storage, command=orders.command, recorded=adopted)
    train_grid(study_file, grid, storage, orders, progress, recorded=fixed.recorded)


def compare_samplers(study_file: StudyFile, orders: Orders, progress: Progress) -> None:
    """Train what is not there yet of every arm on every configuration of a grid.

    Args:
        study_file: The study.
        orders: Arms, seeds, storage, budget and device.
        progress: Gets what there is to tell.
    """
    grid = samplers_grid(study_file, orders.arms, orders.n_seeds)
    storage = open_storage(orders.storage or study_file.storage, create=True)
    train_grid(study_file, grid, storage, orders, progress)


def train_grid(
    study_file: StudyFile,
    grid: Grid,
    storage: BaseStorage,
    orders: Orders,
    progress: Progress,
    *,
    recorded: Collection[Key] = (),
) -> None:
    """Train all runs of a grid that are neither in the storage nor in a table already.

    Args:
        study_file: The study.
        grid: Its grid.
        storage: Where its runs are kept.
        orders: Budget and device.
        progress: Gets what there is to tell.
        recorded: Runs that a table has.
    """
    # So that the numbers are the same, to the bit, with any number of workers and threads.
    torch.set_num_threads(1)
    device = find_device(study_file.run.device)
    checkpoints = checkpoints_of(study_file, orders)
    jobs = make_jobs(
        grid,
        storage,
        recorded=recorded,
        device=device,
        references=References(study_file.runs / "references"),
        artifact_store=artifact_store(study_file.artifacts),
        checkpoints=checkpoints,
        notes={QUESTION: study_file.question, COMMAND: command_of(orders)},
        environment=environment(str(device)),
    )
    work(
        jobs,
        progress=progress,
        budget=budget_of(orders),
        watch=Watch(grace=orders.grace),
        checkpoints=checkpoints,
    )


def results(
    study_file: StudyFile, grid: Grid, storage: BaseStorage, *, losses: bool = False
) -> list[dict[str, Any]]:
    """Return every finished run of a grid, seeds outermost, then configurations, then arms.

    Args:
        study_file: The study.
        grid: Its grid.
        storage: Where its runs are kept.
        losses: Whether to read the losses of the steps, too, which are a file each.

    Each has arm, params, seed, epochs (fields of `EpochResult`), horizon, steps_per_epoch,
    step_losses (means of stretches of an epoch's steps, or none), ended and ended_cost (of a run
    that diverged), reference_cost and environments.
    """
    store = artifact_store(study_file.artifacts) if losses else None
    trials, environments = read_trials(grid, storage)
    listed = []
    for block in range(grid.n_blocks):
        for number in range(len(grid.params)):
            for training in grid.trainings:
                run = PlannedRun(training, block, number)
                trial = trials.get(run.key)
                if trial is None:
                    continue
                reason, cost = ending(trial)
                facts = trial.user_attrs[RECORDED]
                listed.append(
                    {
                        "arm": training.name,
                        "params": grid.params[number],
                        "seed": grid.seed + block,
                        "epochs": list(epochs_of(trial.user_attrs).values()),
                        "horizon": training.config.epochs,
                        "steps_per_epoch": facts["steps_per_epoch"],
                        "step_losses": [] if store is None else _step_losses(storage, store, trial),
                        "ended": reason,
                        "ended_cost": cost,
                        "reference_cost": facts["reference_cost"],
                        "environments": environments,
                    }
                )
    return listed


def _step_losses(
    storage: BaseStorage, store: ArtifactStore, trial: FrozenTrial
) -> list[list[float]]:
    for meta in get_all_artifact_meta(trial, storage=storage):
        if meta.filename == STEP_LOSSES:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / STEP_LOSSES
                download_artifact(
                    artifact_store=store, file_path=str(path), artifact_id=meta.artifact_id
                )
                losses: list[list[float]] = json.loads(path.read_text())
                return losses
    return []

"""The study of the benchmarks: its file, a storage filled with trials, a worker that tunes it."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from impon_hpo import ImponHpoError
from impon_hpo.environment import environment
from impon_hpo.storage.trials import COST, EPOCH, WORKER
from impon_hpo.tuning.algorithms import make_study_sampler
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.job import Job, Train
from impon_hpo.tuning.lease import Watch
from impon_hpo.tuning.progress import TuningProgress
from impon_hpo.tuning.study import open_study
from impon_hpo.tuning.study_file import StudyFile, read_study_file
from impon_hpo.tuning.worker import work

ARM = "uniform"
EPOCHS_A_TRIAL = 9
ELSEWHERE = {"place": "elsewhere", "pid": 1, "began": "0", "beat": 0}
"""The worker that holds the trials of others."""

RUNGS = (1, 3)
"""Epochs after which the pruner of the study decides."""

STUDY = f"""\
question = "What does a study cost beside its training?"
n_trials = 10
seed = 0

[pruner]
name = "SuccessiveHalvingPruner"
reduction_factor = 3

[study_sampler]
name = "RandomSampler"

[run]
dataset = "digits"
width = {{width}}
epochs = {EPOCHS_A_TRIAL}
batch_size = 32
subset = {{rows}}
device = "cpu"

[space]
lr = {{{{ type = "float", low = 1e-3, high = 0.5, log = true }}}}
weight_decay = {{{{ type = "float", low = 1e-6, high = 1e-2, log = true }}}}

[arms.{ARM}]
sampler = "uniform"
"""


def write_study_file(folder: Path, *, width: int, rows: int = 32) -> StudyFile:
    """Write the study of the benchmarks, a model of `width` on `rows` digits, and read it back."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(STUDY.format(width=width, rows=rows))
    return read_study_file(str(folder))


def open_filled(study_file: StudyFile, storage: BaseStorage, n_trials: int) -> optuna.Study:
    """Open the study and add finished trials, as tuning leaves them, until there are `n_trials`."""
    command: dict[str, Any] = {"study": study_file.name, "settings": [], "storage": None}
    study = open_study(study_file, ARM, storage, command=command, environment=environment("cpu"))
    n_present = len(study.get_trials(deepcopy=False))
    for number in range(n_present, n_trials):
        # Worse than guessing, so that the pruner has work to do but lets later trials pass.
        study.add_trial(_finished(study_file, number, highest=0.05))
    return study


def add_others(study_file: StudyFile, study: optuna.Study, n_trials: int) -> None:
    """Add so many trials that workers elsewhere hold, in the middle of their epochs."""
    for number in range(n_trials):
        like = _finished(study_file, number, highest=0.5)  # about as good as the stand-ins
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=like.params,
                distributions=like.distributions,
                intermediate_values=like.intermediate_values,
                user_attrs=_epochs_of(like) | {WORKER: ELSEWHERE},
                system_attrs=like.system_attrs,
            )
        )


def _epochs_of(trial: FrozenTrial) -> dict[str, Any]:
    return {key: value for key, value in trial.user_attrs.items() if key.startswith(EPOCH)}


def check_finished(study: optuna.Study, n_trials: int) -> list[FrozenTrial]:
    """Return the trials of a study, once it is certain that `n_trials` have ended and none runs.

    Raises:
        ImponHpoError: A trial is missing, too many, or still running.
    """
    trials = study.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    numbers = [trial.number for trial in finished]
    running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
    if running or numbers != list(range(n_trials)):
        odd = sorted(set(numbers) ^ set(range(n_trials)))
        raise ImponHpoError(
            f"Not every trial is accounted for: {len(numbers)} of {n_trials} are finished, still "
            f"running are {running or 'none'}, missing or too many are {odd or 'none'}."
        )
    return finished


def storage_kind(address: str) -> str:
    """Return what kind of storage an address is of: sqlite, postgresql+psycopg, journal …"""
    return address.partition(":")[0] if "://" in address else "journal"


class Worker:
    """A silent worker without a budget: the one place where a benchmark runs a worker's loop.

    Args:
        study_file: The study's file.
        study: The study.
    """

    def __init__(self, study_file: StudyFile, study: optuna.Study) -> None:
        self._study_file = study_file
        self._study = study
        # A file that is not a terminal: lines of text are made, as by a worker in the background.
        self._progress = TuningProgress(Console(file=io.StringIO(), quiet=True))

    def run(
        self,
        train: Train,
        *,
        n_trials: int,
        watch: Watch | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Run trials until `n_trials` of the study are finished, by whatever workers."""
        job = Job(
            ARM,
            self._study,
            train,
            n_trials,
            sampler_of=lambda number: make_study_sampler(
                self._study_file.study_sampler, seed=self._study_file.seed, number=number
            ),
        )
        work([job], progress=self._progress, watch=watch, checkpoints=checkpoints)


def _finished(study_file: StudyFile, number: int, *, highest: float) -> FrozenTrial:
    draws = random.Random(number)
    n_epochs = draws.choice([1, 1, RUNGS[1], EPOCHS_A_TRIAL])
    accuracies = [round(draws.uniform(0, highest), 4) for _ in range(n_epochs)]
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if n_epochs == EPOCHS_A_TRIAL else TrialState.PRUNED,
        value=accuracies[-1],
        params={"lr": draws.uniform(1e-3, 0.5), "weight_decay": draws.uniform(1e-6, 1e-2)},
        distributions=dict(study_file.space),
        intermediate_values=dict(enumerate(accuracies, start=1)),
        user_attrs=recorded_epochs(draws, accuracies) | {COST: 276 * n_epochs},
        system_attrs={
            f"completed_rung_{rung}": accuracies[step - 1]
            for rung, step in enumerate(RUNGS)
            if step <= n_epochs
        },
    )


def recorded_epochs(draws: random.Random, accuracies: Sequence[float]) -> dict[str, Any]:
    """Return the user attributes that epochs of these accuracies leave with a trial."""
    return {
        f"{EPOCH}{epoch}": {
            "epoch": epoch,
            "train_loss": draws.random(),
            "val_accuracy": accuracy,
            "val_loss": draws.random(),
            "rows_trained": 32,
            "rows_scored": 0,
            "rows_validated": 180,
            "cost": 276,
            "seconds_drawing": draws.random(),
            "seconds_stepping": draws.random(),
            "seconds_validating": draws.random(),
            "share_seen": 1.0,
            "diagnostics": {"class_balance": 1.0},
        }
        for epoch, accuracy in enumerate(accuracies, start=1)
    }

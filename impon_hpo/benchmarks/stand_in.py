"""Stand-ins for workers: threads that tune as workers do, but sleep where those train."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console

from impon_hpo.benchmarks.filled_study import ARM, ELSEWHERE
from impon_hpo.benchmarks.meter import Readings, metered
from impon_hpo.errors import StorageError
from impon_hpo.storage.connect import open_storage, quiet_studies
from impon_hpo.storage.trials import WORKER
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.tuning.algorithms import make_pruner, make_study_sampler
from impon_hpo.tuning.begun import Begun
from impon_hpo.tuning.guard import Guard
from impon_hpo.tuning.lease import Watch
from impon_hpo.tuning.ledger import Budget
from impon_hpo.tuning.objective import Course, Objective
from impon_hpo.tuning.progress import Progress
from impon_hpo.tuning.study import study_name
from impon_hpo.tuning.study_file import StudyFile, read_study_file
from impon_hpo.tuning.tune import tune

UNEVEN = 0.2
"""By how much an epoch is longer or shorter than asked, at most, so that none march in step."""


@dataclass
class WorkerTimes:
    """Where the time of one worker went, in seconds; moments are those of `time.perf_counter()`.

    Args:
        begun: The moment of its start.
        ended: The moment at which its last trial ended.
        epochs: The moment of each epoch's end, and the seconds that it was asked to take.
        between_epochs: From the end of an epoch to the beginning of the trial's next one: the
            moment of that beginning, and the seconds.
        between_trials: The same, from the end of a trial's last epoch to the beginning of the next
            trial's first.
        error: Why it ended before its time, or "".
    """

    begun: float = 0.0
    ended: float = 0.0
    epochs: list[tuple[float, float]] = field(default_factory=list)
    between_epochs: list[tuple[float, float]] = field(default_factory=list)
    between_trials: list[tuple[float, float]] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Shift:
    """What the workers of one process have done.

    Args:
        workers: The times of those that could open the storage.
        refused: Why the others could not.
        used: What was read of the seconds that the process took of the processors.
    """

    workers: list[WorkerTimes]
    refused: list[str]
    used: Readings


class _Trusting(Watch):
    """Takes no trial for lost that others are said to be at."""

    def lost(self, trial: FrozenTrial) -> bool:
        return trial.user_attrs.get(WORKER) != ELSEWHERE and super().lost(trial)


class StandIn(Objective):
    """The objective with a sleep in place of training; all that it does beside that is its own.

    Args:
        study_file: The study.
        epoch_seconds: What an epoch takes.
        times: Where the time goes is added here.
        on_epoch: As in `Objective`.
    """

    def __init__(
        self,
        study_file: StudyFile,
        *,
        epoch_seconds: float,
        times: WorkerTimes,
        on_epoch: Callable[[optuna.Trial, EpochResult], None],
    ) -> None:
        super().__init__(study_file.arms[ARM], study_file.space, on_epoch=on_epoch)
        self._epoch_seconds = epoch_seconds
        self._times = times
        self._last: float | None = None

    def _epochs(
        self, trial: optuna.Trial, config: TrainingConfig, begun: Begun, course: Course
    ) -> Iterator[tuple[EpochResult, bool]]:
        draws = random.Random(trial.number)
        best = draws.random()
        for epoch in range(1, config.epochs + 1):
            seconds = self._epoch_seconds * draws.uniform(1 - UNEVEN, 1 + UNEVEN)
            if self._last is not None:
                now = time.perf_counter()
                of = self._times.between_epochs if epoch > 1 else self._times.between_trials
                of.append((now, now - self._last))
            time.sleep(seconds)
            self._last = time.perf_counter()
            self._times.epochs.append((self._last, seconds))
            accuracy = best * (1 - 0.5**epoch) + draws.uniform(0, 0.05)
            yield _result(epoch, accuracy, seconds), True


def build_workers(
    *,
    folder: str,
    address: str,
    numbers: Sequence[int],
    n_trials: int,
    epoch_seconds: float,
) -> Callable[[], Shift]:
    """Open a storage once for each worker, and return what lets all of them tune to the end.

    Args:
        folder: The study's.
        address: The storage's, which holds the study.
        numbers: Of the workers; each starts at a moment of the first epoch that depends on it.
        n_trials: Finished trials wanted, of all processes together.
        epoch_seconds: What an epoch takes.
    """
    study_file = read_study_file(folder)
    studies, refused = {}, []
    with quiet_studies():
        for number in numbers:
            try:
                studies[number] = _load(study_file, address)
            except StorageError as error:
                refused.append(str(error))

    def work() -> Shift:
        found = {number: WorkerTimes() for number in studies}
        # Daemons, so that Ctrl-C need not wait for their epochs.
        threads = [
            threading.Thread(
                target=_work,
                args=(study_file, study, n_trials, epoch_seconds, number, found[number]),
                daemon=True,
            )
            for number, study in studies.items()
        ]
        with metered(time.process_time) as readings:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return Shift(list(found.values()), refused, readings)

    return work


def _load(study_file: StudyFile, address: str) -> optuna.Study:
    return optuna.load_study(
        study_name=study_name(study_file, ARM),
        storage=open_storage(address, create=False),
        pruner=make_pruner(study_file.pruner, epochs=study_file.arms[ARM].epochs),
    )


def _work(
    study_file: StudyFile,
    study: optuna.Study,
    n_trials: int,
    epoch_seconds: float,
    number: int,
    times: WorkerTimes,
) -> None:
    """Tune as one worker, and write down where its time went."""
    time.sleep(random.Random(number).uniform(0, epoch_seconds))
    times.begun = time.perf_counter()
    horizon = study_file.arms[ARM].epochs

    def trial_ended(trial: optuna.Trial) -> float:
        try:
            return objective(trial)
        finally:
            times.ended = time.perf_counter()

    try:
        with Progress(Console(quiet=True), horizon) as progress:
            guard = Guard(Budget(), progress.epoch)
            objective = StandIn(
                study_file, epoch_seconds=epoch_seconds, times=times, on_epoch=guard.epoch
            )
            tune(
                study,
                trial_ended,
                n_trials=n_trials,
                progress=progress,
                guard=guard,
                watch=_Trusting(),
                sampler_of=lambda number: make_study_sampler(
                    study_file.study_sampler, seed=study_file.seed, number=number
                ),
            )
    except BaseException as error:  # counted and shown, whatever it is; the others go on
        times.error = f"{type(error).__name__}: {error}"


def _result(epoch: int, accuracy: float, seconds: float) -> EpochResult:
    """Make a result as long as a real one."""
    made: dict[str, Any] = {"rows_trained": 1024, "rows_scored": 0, "rows_validated": 180}
    return EpochResult(
        epoch=epoch,
        train_loss=1 - accuracy,
        val_accuracy=accuracy,
        val_loss=1 - accuracy,
        cost=3 * 1024 + 180,
        seconds_drawing=0.0,
        seconds_stepping=seconds,
        seconds_validating=0.0,
        share_seen=1.0,
        diagnostics={"class_balance": 1.0},
        **made,
    )

"""Stand-ins for workers: threads that tune as workers do, but sleep where those train."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from benchmarks.filled_study import ARM, ELSEWHERE, Worker
from benchmarks.measure import Readings, metered
from impon_hpo import EpochResult, TrainingConfig
from impon_hpo.errors import StorageError
from impon_hpo.storage.connect import open_storage, quiet_studies
from impon_hpo.storage.trials import WORKER
from impon_hpo.tuning.algorithms import make_pruner
from impon_hpo.tuning.job import OnEpoch
from impon_hpo.tuning.lease import Watch
from impon_hpo.tuning.resuming import Past
from impon_hpo.tuning.space import suggest
from impon_hpo.tuning.study import study_name
from impon_hpo.tuning.study_file import StudyFile, read_study_file
from impon_hpo.tuning.trial_training import train_trial

UNEVEN = 0.2
"""Largest share by which an epoch is longer or shorter, so that workers do not march in step."""


@dataclass
class WorkerTimes:
    """Where the time of one worker went, in seconds; moments are those of `time.perf_counter()`.

    Args:
        begun: The moment of its start.
        ended: The moment at which its last trial ended.
        epochs: The moment of each epoch's end, and the seconds that it was meant to take.
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
    """The work of one process.

    Args:
        workers: The times of the workers that could open the storage.
        refused: Why the others could not.
        used: Readings of the processor seconds that the process used.
    """

    workers: list[WorkerTimes]
    refused: list[str]
    used: Readings


class _Trusting(Watch):
    """Takes no trial of the others for lost, although no worker holds it."""

    def lost(self, trial: FrozenTrial) -> bool:
        return trial.user_attrs.get(WORKER) != ELSEWHERE and super().lost(trial)


class _Sleep:
    """A run whose epochs are sleeps.

    Args:
        config: The settings.
        number: Of its trial, from which its accuracies follow.
        epoch_seconds: What an epoch takes.
        times: Gets where the time went.
        last: The moment at which the worker's last epoch ended, or None.
    """

    def __init__(
        self,
        config: TrainingConfig,
        number: int,
        epoch_seconds: float,
        times: WorkerTimes,
        last: float | None,
    ) -> None:
        self.config, self.results, self.last = config, list[EpochResult](), last
        self._seconds, self._times = epoch_seconds, times
        self._draws = random.Random(number)
        self._best = self._draws.random()

    @property
    def epoch(self) -> int:
        return len(self.results)

    def train_epoch(self, between_steps: Callable[[], None]) -> EpochResult:
        epoch = self.epoch + 1
        seconds = self._seconds * self._draws.uniform(1 - UNEVEN, 1 + UNEVEN)
        if self.last is not None:
            now = time.perf_counter()
            of = self._times.between_epochs if epoch > 1 else self._times.between_trials
            of.append((now, now - self.last))
        time.sleep(seconds)
        self.last = time.perf_counter()
        self._times.epochs.append((self.last, seconds))
        accuracy = self._best * (1 - 0.5**epoch) + self._draws.uniform(0, 0.05)
        self.results.append(_result(epoch, accuracy, seconds))
        return self.results[-1]


@dataclass
class StandIn:
    """Trains as the objective does, with a sleep in place of every epoch.

    Args:
        study_file: The study.
        epoch_seconds: What an epoch takes.
        times: Gets where the time went.
    """

    study_file: StudyFile
    epoch_seconds: float
    times: WorkerTimes
    _last: float | None = None

    def __call__(self, trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        config = self.study_file.arms[ARM]
        suggest(trial, self.study_file.space, config)
        run = _Sleep(config, trial.number, self.epoch_seconds, self.times, self._last)
        try:
            train_trial(
                trial,
                lambda: run,  # type: ignore[arg-type, return-value]
                past=Past.of(trial),
                checkpoint=None,
                ended=lambda run, how: None,
                on_epoch=on_epoch,
            )
            return run.results[-1].val_accuracy
        finally:
            self._last, self.times.ended = run.last, time.perf_counter()


def build_workers(
    *,
    folder: str,
    address: str,
    numbers: Sequence[int],
    n_trials: int,
    epoch_seconds: float,
) -> Callable[[], Shift]:
    """Open a storage once for each worker, and return what runs all of them to the end.

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
        times = {number: WorkerTimes() for number in studies}
        # Daemons, so that Ctrl-C need not wait for their epochs.
        threads = [
            threading.Thread(
                target=_work,
                args=(study_file, study, n_trials, epoch_seconds, number, times[number]),
                daemon=True,
            )
            for number, study in studies.items()
        ]
        with metered(time.process_time) as readings:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return Shift(list(times.values()), refused, readings)

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
    try:
        worker = Worker(study_file, study)
        stand_in = StandIn(study_file, epoch_seconds, times)
        worker.run(stand_in, n_trials=n_trials, watch=_Trusting())
    except BaseException as error:  # counted and shown, whatever it is; the others go on
        times.error = f"{type(error).__name__}: {error}"


def _result(epoch: int, accuracy: float, seconds: float) -> EpochResult:
    """Return a result that takes as much room as a real one."""
    rows: dict[str, Any] = {"rows_trained": 1024, "rows_scored": 0, "rows_validated": 180}
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
        **rows,
    )

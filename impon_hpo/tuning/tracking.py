"""Tracking: what a tracker, such as TensorBoard or one's own, is told of trials as they run."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from impon_hpo.errors import ConfigError, ImponHpoError, describing
from impon_hpo.storage.trials import IDENTITY, UID, flat_epoch
from impon_hpo.training.config import TrainingConfig
from impon_hpo.tuning.enqueued import frozen
from impon_hpo.tuning.lease import TakenOverError

log = logging.getLogger("impon_hpo")

WAITING = "waiting"
"""The state in which a trial ends that goes on later: here or elsewhere, it begins again."""

FAILING_SHARE = 0.05
"""Share of the time that a tracker that fails may take."""


@dataclass(frozen=True, eq=False)
class TrackedTrial:
    """A trial as a tracker is told of it.

    Args:
        name: Such as "quickstart-impon trial 3".
        study: The name of the Optuna study.
        number: Optuna's number.
        params: The configuration that it tries.
        settings: All settings of its run.
        past: The numbers of the epochs that it had before it was interrupted, by epoch. They are
            not told again.
        experiment: The name of the study file's folder, or else `study`.
        arm: The arm of the study file, or "".
        uid: Tells the study from one of the same name in another storage, or "".
    """

    name: str
    study: str
    number: int
    params: Mapping[str, Any]
    settings: Mapping[str, Any]
    past: Mapping[int, Mapping[str, float]]
    experiment: str
    arm: str = ""
    uid: str = ""

    @classmethod
    def of(
        cls,
        trial: optuna.Trial,
        config: TrainingConfig,
        epochs: Mapping[int, Mapping[str, Any]],
    ) -> TrackedTrial:
        """Return a trial that is about to be trained.

        Args:
            trial: The trial, with its parameters.
            config: The settings of its run.
            epochs: What is recorded of its epochs.
        """
        study = trial.study.study_name
        attributes = trial.study.user_attrs
        identity = attributes.get(IDENTITY, {})
        return cls(
            name=f"{study} trial {trial.number}",
            study=study,
            number=trial.number,
            params=trial.params,
            settings=config.identity(),
            past={number: numbers_of(epoch) for number, epoch in epochs.items()},
            experiment=identity.get("study", study),
            arm=identity.get("arm", ""),
            uid=attributes.get(UID, ""),
        )


class Tracker(Protocol):
    """Where trials are shown as they run: three methods, called in this order for each trial.

    Trials of several threads may come between each other. What a tracker raises is logged once a
    trial, and costs no trial; what it has not taken is told again, in order, once it takes it.

    Example:
        >>> import optuna
        >>> from impon_hpo import Objective, TrainingConfig
        >>> class Printer:
        ...     def begin(self, trial):
        ...         print("begin", trial.number, dict(trial.params), trial.settings["epochs"])
        ...
        ...     def epoch(self, trial, epoch, numbers):
        ...         print("epoch", epoch, 0 <= numbers["val_accuracy"] <= 1)
        ...
        ...     def end(self, trial, state, value):
        ...         print("end", state)
        >>> config = TrainingConfig(dataset="digits", subset=64, width=4, epochs=2, batch_size=32)
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> study = optuna.create_study(direction="maximize")
        >>> study.optimize(Objective(config, {}, tracker=Printer()), n_trials=1)
        begin 0 {} 2
        epoch 1 True
        epoch 2 True
        end complete
    """

    def begin(self, trial: TrackedTrial) -> None:
        """A trial begins, or goes on after an interruption."""

    def epoch(self, trial: TrackedTrial, epoch: int, numbers: Mapping[str, float]) -> None:
        """An epoch is done; `numbers` are the fields of `EpochResult` and the diagnostics."""

    def end(self, trial: TrackedTrial, state: str, value: float | None) -> None:
        """A trial has ended: "complete", "pruned", "diverged", "failed", or "waiting" if it goes on
        later; `value` is the metric after its last epoch, or None where it has none."""


def check_tracker(tracker: Tracker) -> None:
    """Raise `ConfigError` where a tracker lacks a method, or is a class."""
    methods = [getattr(tracker, name, None) for name in ("begin", "epoch", "end")]
    if inspect.isclass(tracker) or not all(map(callable, methods)):
        raise ConfigError(
            "tracker must be an object with the methods begin, epoch and end, such as "
            f"TensorBoardTracker(), but got {tracker!r}."
        )


def numbers_of(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that are told of a recorded epoch: those that are finite."""
    return {
        name: value
        for name, value in flat_epoch(epoch).items()
        if name != "epoch" and isinstance(value, int | float) and math.isfinite(value)
    }


@dataclass
class PatientTracker:
    """A tracker that is borne with: what it raises is logged once a trial, what it has not taken is
    told again, and while it fails it may take only a small share of the time.

    Args:
        tracker: The tracker.
        again_at: When it may be told something again, by the monotonic clock of this process.

    Raises:
        ConfigError: It lacks a method.
    """

    tracker: Tracker
    again_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        check_tracker(self.tracker)

    def __getstate__(self) -> dict[str, Any]:
        return {"tracker": self.tracker, "again_at": 0.0}

    @contextmanager
    def follow(
        self, trial: optuna.Trial, config: TrainingConfig, epochs: Mapping[int, Mapping[str, Any]]
    ) -> Iterator[Tracking]:
        """Tell that a trial begins, and that it waits or has failed if it ends without a word. Of
        one that another worker has taken over, tell nothing more.

        Args:
            trial: The trial, with its parameters.
            config: The settings of its run.
            epochs: What is recorded of its epochs.
        """
        tracking = Tracking(self, TrackedTrial.of(trial, config, epochs))
        try:
            yield tracking
        except TakenOverError:
            raise  # who has the trial now tells how it ends
        except optuna.exceptions.UpdateFinishedTrialError:
            if frozen(trial).state == TrialState.FAIL:  # by hand, so nobody tells it
                tracking.end("failed", None)
            raise
        except BaseException as error:
            mistake = isinstance(error, ImponHpoError) or not isinstance(error, Exception)
            tracking.end(WAITING if mistake else "failed", None)
            raise


class Tracking:
    """What a tracker is told of one trial.

    Args:
        patient: The tracker.
        trial: The trial, which begins.
    """

    def __init__(self, patient: PatientTracker, trial: TrackedTrial) -> None:
        self._patient, self._trial = patient, trial
        self._untold = deque[Callable[[], None]]()
        self._failed = self._ended = False
        self._tell(partial(patient.tracker.begin, trial))

    def epoch(self, epoch: int, recorded: Mapping[str, Any]) -> None:
        """Tell what is recorded of an epoch."""
        self._tell(partial(self._patient.tracker.epoch, self._trial, epoch, numbers_of(recorded)))

    def end(self, state: str, value: float | None) -> None:
        """Tell how the trial has ended, unless that is done."""
        if self._ended:
            return
        self._ended = True
        self._tell(partial(self._patient.tracker.end, self._trial, state, value))
        if self._untold and not self._failed:
            log.warning("Trial %d was not tracked: a moment ago, that failed.", self._trial.number)

    def _tell(self, call: Callable[[], None]) -> None:
        self._untold.append(call)
        begun = time.monotonic()
        if begun < self._patient.again_at:
            return
        what = f"Trial {self._trial.number} could not be tracked"
        with suppress(Exception) if self._failed else describing(what, "The trial goes on."):
            while self._untold:
                self._untold[0]()
                self._untold.popleft()
        if self._untold:
            self._failed = True
            now = time.monotonic()
            self._patient.again_at = now + (now - begun) / FAILING_SHARE

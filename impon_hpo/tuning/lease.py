"""The lease on a trial: who is at it, whether it still lives, and how another one takes it over.

Optuna's heartbeat exists in RDB storages only, and its retry makes a new trial: with the rungs of
the old one counted twice, and another Hyperband bracket. Here a trial whose worker is gone keeps
its number, values and rungs: it goes back to WAITING, and whoever asks next takes it up.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.storage.trials import WORKER

GRACE_SECONDS = 180.0
"""How long a worker on another machine may be silent before its trial is taken over."""

BEATS = 12
"""How often a worker says within that time that it lives."""


class HandedBackError(BaseException):
    """A trial ends here without being finished: no failure, so no `except Exception` takes it."""


class PausedError(HandedBackError):
    """The trial has come to its rung, where it waits until it is promoted."""


class TakenOverError(HandedBackError):
    """Another worker has taken over the trial, since this one was silent for too long."""


def this_worker() -> dict[str, Any]:
    """Return what tells this process from every other one, here and elsewhere, now and later."""
    pid = os.getpid()
    return {"place": _place(), "pid": pid, "began": _began(pid)}


def _place() -> str:
    """Name the machine since its last start, and the container: where a pid means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return f"{socket.gethostname()} of unknown start"
    return f"{socket.gethostname()} {boot} {space}"


def process_stat(pid: int | str) -> tuple[str, list[str]] | None:
    """Return the name of a process and what proc(5) lists behind it, from its state (the 3rd field)
    on; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in parentheses, and may have some of its own.
    name, _, fields = text.partition("(")[2].rpartition(")")
    return name, fields.split()


def _began(pid: int) -> str | None:
    """Return when a process began, in ticks since the machine started; None if there is none."""
    stat = process_stat(pid)
    if stat is None:
        return None
    _, fields = stat  # the state is the 3rd field of proc(5), the start the 22nd
    return None if fields[0] in "ZX" else fields[19]


class Watch:
    """Tells which RUNNING trials have lost their worker, on any storage.

    A worker of this machine is gone when its process is; one elsewhere, when its beat has not
    changed for `grace` seconds of this machine's own clock, so that clocks need not agree.

    Args:
        grace: Seconds.
        clock: A monotonic clock.
    """

    def __init__(
        self, *, grace: float = GRACE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._grace = grace
        self.beat_seconds = grace / BEATS
        self._clock = clock
        self._seen: dict[int, tuple[Any, float]] = {}

    def lost(self, trial: FrozenTrial) -> bool:
        """Return whether a RUNNING trial has lost its worker."""
        worker = trial.user_attrs.get(WORKER) or {}
        if worker.get("place") == _place():
            return bool(_began(worker["pid"]) != worker["began"])
        beat = (worker.get("place"), worker.get("pid"), worker.get("beat"))
        # By its id, which no trial of another study in the same storage has.
        last, since = self._seen.get(trial._trial_id, (None, 0.0))
        if last != beat:
            self._seen[trial._trial_id] = (beat, self._clock())
            return False
        return self._clock() - since > self._grace

    def take_back(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[int]:
        """Put trials that have lost their worker back among the waiting ones; return their numbers.

        Whoever asks next goes on with them, under their old numbers.

        Args:
            study: The study.
            trials: Its trials, as just read.
        """
        numbers = []
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                self._seen.pop(trial._trial_id, None)  # its next worker has nothing to do with it
            elif self.lost(trial):
                latest = study._storage.get_trial(trial._trial_id)
                same = latest.user_attrs.get(WORKER) == trial.user_attrs.get(WORKER)
                if latest.state == TrialState.RUNNING and same and put_back(study, trial._trial_id):
                    numbers.append(trial.number)
        return numbers


def signed_by(trial: FrozenTrial, worker: Mapping[str, Any]) -> bool:
    """Return whether a worker says that it is at a trial."""
    signed = trial.user_attrs.get(WORKER) or {}
    return {key: signed.get(key) for key in worker} == worker


def claim(study: optuna.Study, trial_id: int) -> bool:
    """Claim a waiting trial; return False if it no longer waits.

    That a trial no longer waits is the storage's one atomic step: however many workers claim at the
    same moment, one gets it.
    """
    storage = study._storage
    try:
        if not storage.set_trial_state_values(trial_id, TrialState.RUNNING):
            return False
        storage.set_trial_user_attr(trial_id, WORKER, _beat())
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    return True


def make_trial(study: optuna.Study, attributes: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """Make a trial that this process holds, and return its id and number.

    It is signed afterwards: where a server's answer is lost, it is made twice, and the first one,
    which nobody has signed, is found like any other that has lost its worker.

    Args:
        study: The study.
        attributes: User attributes of the trial.
    """
    made = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes or {}))
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=made)
    study._storage.set_trial_user_attr(trial_id, WORKER, _beat())
    return trial_id, study._storage.get_trial_number_from_id(trial_id)


def _beat() -> dict[str, Any]:
    # Never the same twice: who takes up a trial again is not taken for having been silent since.
    return this_worker() | {"beat": time.time_ns()}


def put_back(study: optuna.Study, trial_id: int) -> bool:
    """Put a RUNNING trial back among the waiting ones, as it is; False if it is finished."""
    storage = study._storage
    try:
        # Nobody's, so that nobody takes it for lost between the asking and the first beat.
        storage.set_trial_user_attr(trial_id, WORKER, {})
        return bool(storage.set_trial_state_values(trial_id, TrialState.WAITING))
    except optuna.exceptions.UpdateFinishedTrialError:
        return False


class Lease:
    """Says that this process is at a trial, and again every few seconds.

    Args:
        study: The study.
        trial: A trial that has just been asked for.
        beat_seconds: How often.
    """

    def __init__(self, study: optuna.Study, trial: optuna.Trial, *, beat_seconds: float) -> None:
        self._storage: BaseStorage = study._storage
        self._trial_id = trial._trial_id
        self._me = this_worker()
        self._seconds = beat_seconds
        self._stop = threading.Event()
        self._write_beat()

    def check(self) -> None:
        """Raise `TakenOverError` unless the trial is still this process's."""
        trial = self._storage.get_trial(self._trial_id)
        if not signed_by(trial, self._me):
            place = (trial.user_attrs.get(WORKER) or {}).get("place")
            raise TakenOverError(f"trial {trial.number} is {place}'s now")

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Beat while what is inside runs."""
        thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _write_beat(self) -> None:
        self._storage.set_trial_user_attr(self._trial_id, WORKER, _beat())

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.check()
                self._write_beat()
            except (TakenOverError, optuna.exceptions.UpdateFinishedTrialError):
                return
            except Exception:  # a storage that is away for a moment: the next beat tries again
                continue

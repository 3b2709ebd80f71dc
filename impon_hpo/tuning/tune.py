"""Tuning one arm of a study: trials until as many are finished as were asked for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from impon_hpo.errors import ImponHpoError
from impon_hpo.storage.trials import REASON, StudyRecord, read_study
from impon_hpo.tuning.checkpoints import Checkpoints
from impon_hpo.tuning.guard import Guard
from impon_hpo.tuning.lease import Lease, TakenOverError, Watch, put_back
from impon_hpo.tuning.progress import Progress

FAILURES_IN_A_ROW = 3
POLL_SECONDS = 1.0
"""How often a worker looks whether the last trials, which others are at, are finished."""

LONGEST_POLL_SECONDS = 30.0

READING_SHARE = 0.05
"""Share of its time that such a worker may keep the storage busy with looking."""

WAITING_SHARE = 0.1
"""The pause before the next look, as a share of the time that it has waited already."""

Run = Callable[[optuna.Trial], float]


def tune(
    study: optuna.Study,
    objective: Run,
    *,
    n_trials: int,
    progress: Progress,
    guard: Guard | None = None,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
    sampler_of: Callable[[int], BaseSampler] | None = None,
) -> StudyRecord:
    """Run trials until `n_trials` of the study are finished (complete, pruned or failed), beside
    whatever other workers the storage has.

    A trial that fails is recorded with its reason and the study goes on. One that is interrupted,
    or whose worker is gone, keeps its number and what it reported, and is continued by whoever
    comes first. A worker waits for the trials that others are at, in case they are lost.

    Args:
        study: The study.
        objective: Trains a trial.
        n_trials: Finished trials wanted in all.
        progress: Gets what there is to say.
        guard: Watches over budget and lease after every epoch; its `epoch` is the objective's
            `on_epoch`.
        watch: Tells which workers are gone.
        checkpoints: Those that the objective writes; of finished trials they are deleted.
        sampler_of: Makes the study sampler for a trial number, seeded by it, so that what is
            proposed depends neither on interruptions nor, at random, on the other workers.

    Raises:
        ImponHpoError: Three trials in a row failed, or a trial met a mistake of the user's.
        BudgetSpentError: The budget is spent; a trial that had begun waits to be continued.
        KeyboardInterrupt: The user stopped it.
    """
    watch = watch or Watch()
    failures = 0
    free_since = time.perf_counter()
    while True:
        begun = time.perf_counter()
        trials = study.get_trials(deepcopy=False)
        if checkpoints is not None:  # also of a process that was killed in between
            checkpoints.delete_finished(study, trials)
        lost = watch.take_back(study, trials)
        for number in lost:
            progress.note(f"trial {number} has lost its worker: it is continued")
        record = read_study(study, None if lost else trials)
        reading = time.perf_counter() - begun
        if record.n_finished >= n_trials:
            return record
        if guard is not None:
            guard.check_budget(study)
        trial = _next_trial(study, record, n_trials, sampler_of)
        if trial is None:
            time.sleep(pause_seconds(reading, begun - free_since))
            continue
        progress.begin(record, n_trials)
        lease = Lease(study, trial, beat_seconds=watch.beat_seconds)
        error = _run_trial(study, trial, lease, objective, progress, guard)
        free_since = time.perf_counter()
        failures = 0 if error is None else failures + 1
        if failures >= FAILURES_IN_A_ROW:
            trials = study.get_trials(deepcopy=False)
            if checkpoints is not None:
                checkpoints.delete_finished(study, trials)
            n_finished = read_study(study, trials).n_finished
            raise ImponHpoError(
                f"{failures} trials in a row failed, the last one with "
                f"{type(error).__name__}: {error}. {n_finished} of {n_trials} "
                "trials are finished; mend the cause, then the same command continues."
            ) from error


def pause_seconds(reading: float, waited: float) -> float:
    """Return for how long a worker that has nothing left to do waits before it looks again.

    The slower the storage answers, and the longer the trials that others are at take, the longer,
    so that hundreds of such workers do not keep the storage from those that train; and not all at
    the same moment.

    Args:
        reading: Seconds that the last look took.
        waited: Seconds that it has waited already.
    """
    seconds = max(POLL_SECONDS, reading / READING_SHARE, waited * WAITING_SHARE)
    return min(seconds * random.uniform(0.5, 1.5), LONGEST_POLL_SECONDS)


def _next_trial(
    study: optuna.Study,
    record: StudyRecord,
    n_trials: int,
    sampler_of: Callable[[int], BaseSampler] | None,
) -> optuna.Trial | None:
    """Ask for a trial; None where all that are wanted are finished or in other hands.

    Trial numbers are given out once, by the storage: those below the limit are the ones wanted,
    however many workers ask at the same moment.
    """
    n_not_counted = sum(trial.state == "FAIL" and not trial.finished for trial in record.trials)
    limit = n_trials + n_not_counted
    waiting = any(trial.state == "WAITING" and trial.number < limit for trial in record.trials)
    if not waiting and len(record.trials) >= limit:
        return None
    expected = len(record.trials)
    if sampler_of is not None:
        study.sampler = sampler_of(expected)
    trial = study.ask()
    if sampler_of is not None and trial.number != expected:  # another worker was faster
        study.sampler = sampler_of(trial.number)  # which is asked at the first suggestion
    if trial.number >= limit:  # for a later command that wants more
        put_back(study, trial._trial_id)
        return None
    return trial


def _run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    lease: Lease,
    objective: Run,
    progress: Progress,
    guard: Guard | None,
) -> Exception | None:
    """Run one trial and tell the study how it ended; return the error of one that failed."""
    if guard is not None:
        guard.hold(lease)
    failed: Exception | None = None
    try:
        with lease.held():
            value = objective(trial)
    except (TakenOverError, optuna.exceptions.UpdateFinishedTrialError):
        progress.note(f"trial {trial.number} was taken over by another worker")
        return None
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
    except ImponHpoError:
        put_back(study, trial._trial_id)
        raise
    except Exception as error:
        failed = error
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        progress.note(f"trial {trial.number} failed: {type(error).__name__}: {error}")
        return failed
    except BaseException:  # Ctrl-C, SIGTERM, a budget that is spent: someone continues it
        put_back(study, trial._trial_id)
        raise
    else:
        study.tell(trial, value, skip_if_finished=True)
    ended = study._storage.get_trial(trial._trial_id)
    progress.end(ended.number, ended.state.name, ended.user_attrs.get(REASON, ""))
    return None

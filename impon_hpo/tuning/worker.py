"""The worker: claims one trial after the other, of one study or of many, and trains it."""

from __future__ import annotations

import functools
import math
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.errors import ImponHpoError, TrialSettingsError, describing
from impon_hpo.storage.trials import REASON, is_finished, read_study
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.tuning.algorithms import BlamedSampler, proposing
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.budget import Budget, spent
from impon_hpo.tuning.job import Job, count_finished
from impon_hpo.tuning.lease import (
    Lease,
    PausedError,
    TakenOverError,
    Watch,
    claim,
    make_trial,
    put_back,
    signed_by,
    this_worker,
)

FAILURES_IN_A_ROW = 3
POLL_SECONDS = 1.0
"""How often a worker looks whether the last trials, held by other workers, are finished."""

LONGEST_POLL_SECONDS = 30.0

READING_SHARE = 0.05
"""Share of its time that such a worker may keep the storage busy with looking."""

WAITING_SHARE = 0.1
"""The pause before the next look, as a share of the time that it has waited already."""


class Progress(Protocol):
    """What a worker tells of its trials."""

    def start(self, jobs: Sequence[Job]) -> None:
        """The worker starts."""

    def begin(self, job: Job, trials: Sequence[FrozenTrial]) -> None:
        """A trial begins; `trials` are those of its study, as just read."""

    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None:
        """An epoch is done."""

    def pause(self, job: Job, trial: FrozenTrial) -> None:
        """A trial waits at its rung."""

    def end(self, job: Job, trial: FrozenTrial) -> None:
        """A trial has ended."""

    def note(self, line: str) -> None:
        """Anything else."""


def work(
    jobs: Sequence[Job],
    *,
    progress: Progress,
    budget: Budget | None = None,
    watch: Watch | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Finish the trials of all jobs, those of earlier jobs first, beside whatever other workers the
    storage has.

    A trial that is interrupted, or whose worker is gone, keeps its number and what it reported, and
    is continued by whoever comes first. One whose values cannot be a run fails, and the next one
    begins. A worker waits only when all that is left is held by
    others, in case they are lost.

    Args:
        jobs: What is to be finished.
        progress: Gets what there is to tell.
        budget: What all studies of the jobs together may spend.
        watch: Tells which workers are gone.
        checkpoints: Those that training writes; of finished trials they are deleted.

    Raises:
        ImponHpoError: Three trials in a row failed, or a trial met a mistake of the user's, or the
            study sampler failed.
        BudgetSpentError: The budget is spent; a trial that had begun waits to be continued.
        KeyboardInterrupt: The user stopped it.
    """
    progress.start(jobs)
    worker = _Worker(list(jobs), progress, budget or Budget(), watch or Watch(), checkpoints)
    try:
        _work_on(worker)
    except KeyboardInterrupt:
        worker.put_back_claimed()
        raise


def _work_on(worker: _Worker) -> None:
    n_failures = 0
    free_since = time.perf_counter()
    while True:
        begun = time.perf_counter()
        claimed = worker.claim()
        if not worker.jobs:
            return
        if claimed is None:
            time.sleep(pause_seconds(time.perf_counter() - begun, begun - free_since))
            continue
        job, trial = claimed
        error = worker.run(job, trial)
        free_since = time.perf_counter()
        if isinstance(error, TrialSettingsError):  # it says nothing about the others
            continue
        n_failures = 0 if error is None else n_failures + 1
        if n_failures >= FAILURES_IN_A_ROW:
            raise ImponHpoError(
                f"{n_failures} trials in a row failed, the last one with "
                f"{type(error).__name__}: {error}. {worker.n_finished()} of "
                f"{sum(job.end - job.begin for job in worker.all_jobs)} trials are finished. "
                "Fix the cause and run the same command again."
            ) from error


def pause_seconds(reading: float, waited: float) -> float:
    """Return for how long a worker that has nothing left to do waits before it looks again.

    The slower the storage answers, and the longer the trials that others hold take, the longer, so
    that hundreds of such workers do not keep the storage from those that train; and not all at the
    same moment.

    Args:
        reading: Seconds that the last look took.
        waited: Seconds that it has waited already.
    """
    seconds = max(POLL_SECONDS, reading / READING_SHARE, waited * WAITING_SHARE)
    return min(seconds * random.uniform(0.5, 1.5), LONGEST_POLL_SECONDS)


@dataclass(frozen=True)
class _Look:
    """A look at all trials of a study.

    Args:
        trials: The trials.
        ended: When it ended.
        seconds: How long it took.
    """

    trials: list[FrozenTrial]
    ended: float
    seconds: float

    @property
    def suffices(self) -> bool:
        """Whether another one would take too large a share of the time."""
        return (time.perf_counter() - self.ended) * READING_SHARE < self.seconds


@dataclass
class _Worker:
    """One worker: the jobs that are not finished yet, and what it watches over."""

    jobs: list[Job]
    progress: Progress
    budget: Budget
    watch: Watch
    checkpoints: Checkpoints | None

    def __post_init__(self) -> None:
        self.all_jobs = tuple(self.jobs)
        self.studies = list({job.study.study_name: job.study for job in self.jobs}.values())
        self.failed_here: set[int] = set()
        self.stopped: set[str] = set()
        """Names of studies whose study sampler has nothing left to try."""
        self._looks: dict[str, _Look] = {}

    def claim(self) -> tuple[Job, optuna.Trial] | None:
        """Claim the next trial; None where all that are left are held by others.

        Jobs that are finished are left out from then on.
        """
        # What failed here is tried again last of all: it may hold up nothing else.
        return self._claim_but(self.failed_here) or (
            self._claim_but(set()) if self.failed_here else None
        )

    def _claim_but(self, skipped: Collection[int]) -> tuple[Job, optuna.Trial] | None:
        """Claim the next trial that is not one of those with the ids `skipped`."""
        looks: dict[str, list[FrozenTrial]] = {}

        def look(study: optuna.Study) -> list[FrozenTrial]:
            if study.study_name not in looks:
                looks[study.study_name] = self._look(study)
            return looks[study.study_name]

        for job in tuple(self.jobs):
            last = self._looks.get(job.study.study_name)
            if job.standings is not None and last is not None and last.suffices:
                self._check_budget()
                standings = job.standings.read()
                claimed = job.standings.claim(standings, job.limit(last.trials))
                if claimed is not None:
                    return self._begun(job, *claimed, last.trials)
            trials = look(job.study)
            stopped = job.study.study_name in self.stopped
            if stopped or job.n_finished(trials) >= job.n_wanted(trials):
                self.jobs.remove(job)
                if job.combinations is not None and job.combinations.all_tried(trials):
                    self.progress.note(job.combinations.exhausted)
                continue
            if job.after is not None:
                study, number = job.after
                others = look(study)
                if len(others) <= number or not is_finished(others[number]):
                    continue
            self._check_budget()
            claimed = _claim(job, trials, skipped)
            if claimed is not None:
                return self._begun(job, *claimed, trials)
        return None

    def _begun(
        self, job: Job, trial_id: int, number: int, trials: Sequence[FrozenTrial]
    ) -> tuple[Job, optuna.Trial] | None:
        """Begin or continue a trial that this process has claimed; None where it has nothing to
        try. `trials` are those of its study."""
        study = job.study
        self.progress.begin(job, trials)
        try:
            if job.combinations is not None:
                # Others may have made trials since then, which come before this one.
                before = study.get_trials(deepcopy=False)
                study.sampler = proposing(job.combinations.of(number, before))
            elif job.sampler_of is not None:
                study.sampler = BlamedSampler(job.sampler_of(number))
            seen = study if job.standings is None else job.standings.seen_by_samplers()
            # As `Study.ask` does: what a study sampler sees is as new as the trial.
            seen._thread_local.cached_all_trials = None
            return job, optuna.Trial(seen, trial_id)
        except TrialSettingsError as error:
            study.sampler = proposing({})
            self._fail(job, trial_id, number, error)
            return None
        except ImponHpoError:
            put_back(study, trial_id)
            raise

    def put_back_claimed(self) -> None:
        """Put back what this process holds: a stop may come between a claim and its training, or
        while a trial is put to wait."""
        me = this_worker()
        for study in self.studies:
            for trial in study.get_trials(deepcopy=False):
                if trial.state == TrialState.RUNNING and signed_by(trial, me):
                    put_back(study, trial._trial_id)

    def _look(self, study: optuna.Study) -> list[FrozenTrial]:
        """Return the trials of a study; those that have lost their worker wait from now on."""
        begun = time.perf_counter()
        trials = study.get_trials(deepcopy=False)
        if self.checkpoints is not None:  # also of a process that was killed in between
            self.checkpoints.delete_finished(study, trials)
        lost = self.watch.take_back(study, trials)
        for number in lost:
            self.progress.note(f"trial {number} has lost its worker: it is continued")
        trials = study.get_trials(deepcopy=False) if lost else trials
        ended = time.perf_counter()
        self._looks[study.study_name] = _Look(trials, ended, ended - begun)
        return trials

    def run(self, job: Job, trial: optuna.Trial) -> Exception | None:
        """Run one trial and tell its study how it ended; return the error of one that failed."""
        try:
            lease = Lease(job.study, trial, beat_seconds=self.watch.beat_seconds)
            return self._run(job, trial, lease)
        except (TakenOverError, optuna.exceptions.UpdateFinishedTrialError):
            self.progress.note(f"trial {trial.number} was taken over by another worker")
            return None

    def _run(self, job: Job, trial: optuna.Trial, lease: Lease) -> Exception | None:
        study = job.study
        value: float | None = None
        state = None
        try:
            with lease.held():
                value = job.train(trial, functools.partial(self._epoch, lease))
        except (TakenOverError, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except PausedError:
            lease.check()
            self._pause(job, trial)
            return None
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except ImponHpoError as error:
            if job.retries or not isinstance(error, TrialSettingsError):
                put_back(study, trial._trial_id)
                raise
            lease.check()
            return self._fail(job, trial._trial_id, trial.number, error)
        except Exception as error:
            lease.check()
            if not job.retries:
                return self._fail(job, trial._trial_id, trial.number, error)
            self.failed_here.add(trial._trial_id)
            put_back(study, trial._trial_id)
            self.progress.note(f"trial {trial.number} failed: {_reason(error)}")
            return error
        except BaseException:  # Ctrl-C, SIGTERM, a budget that is spent: someone continues it
            if self.checkpoints is not None and job.standings is not None:
                self.checkpoints.share(study, trial.number)
            put_back(study, trial._trial_id)
            raise
        lease.check()
        if value is not None and math.isnan(value):
            no_number = ArithmeticError(f"a trial's value must be a number, but is {value}")
            return self._fail(job, trial._trial_id, trial.number, no_number)
        self._tell(job, trial.number, value, state)
        ended = self._ended(job, trial._trial_id)
        with describing(f"The end of trial {trial.number} could not be shown"):
            self.progress.end(job, ended)
        return None

    def _fail(self, job: Job, trial_id: int, number: int, error: Exception) -> Exception:
        """End a trial as failed, with its reason, and return the error."""
        reason = _reason(error)
        job.study._storage.set_trial_user_attr(trial_id, REASON, reason)
        self._tell(job, number, None, TrialState.FAIL)
        self._ended(job, trial_id)
        self.progress.note(f"trial {number} failed: {reason}")
        return error

    def _tell(self, job: Job, number: int, value: float | None, state: TrialState | None) -> None:
        """Tell a study how a trial has ended."""
        study = job.study
        study._stop_flag = False
        # Where nothing is left to try, a study sampler stops the study, as it may under `optimize`.
        study._thread_local.in_optimize_loop = True
        try:
            study.tell(number, value, state, skip_if_finished=True)
        finally:
            study._thread_local.in_optimize_loop = False
        if study._stop_flag:
            self.stopped.add(study.study_name)
            self.progress.note("The study sampler has nothing left to try.")

    def _ended(self, job: Job, trial_id: int) -> FrozenTrial:
        """Return a trial as it has ended, and note that where others look for it."""
        frozen = job.study._storage.get_trial(trial_id)
        if job.standings is not None:
            job.standings.ended(frozen)
        return frozen

    def _pause(self, job: Job, trial: optuna.Trial) -> None:
        """Let a trial wait at its rung."""
        assert job.standings is not None
        job.standings.pause(trial)
        self.progress.pause(job, job.study._storage.get_trial(trial._trial_id))
        for number in job.standings.delete_checkpoints():
            self.progress.note(
                f"trial {number} waits without its checkpoint, for which there was no room: if it "
                "is promoted, it is trained again"
            )

    def _epoch(self, lease: Lease, trial: optuna.Trial, result: EpochResult) -> None:
        """Look, after an epoch that is recorded, whether the trial may go on."""
        lease.check()
        with describing(f"Epoch {result.epoch} of trial {trial.number} could not be shown"):
            self.progress.epoch(trial, result)
        self._check_budget()

    def _check_budget(self) -> None:
        if self.budget.given:
            self.budget.check(spent(read_study(study) for study in self.studies))

    def n_finished(self) -> int:
        """Return how many trials of all jobs are finished."""
        return count_finished(self.all_jobs, self._look)


def _claim(
    job: Job, trials: Sequence[FrozenTrial], skipped: Collection[int]
) -> tuple[int, int] | None:
    """Claim the first trial of a job that waits, or make a new one, and return its id and number;
    None where there is neither.

    Trial numbers are given out once, by the storage: however many workers make trials at the same
    moment, each gets another one.
    """
    study, limit = job.study, job.limit(trials)
    if job.standings is not None:
        return job.standings.claim(job.standings.look(trials), limit)
    for trial in trials[job.begin : limit]:
        waits = trial.state == TrialState.WAITING and trial._trial_id not in skipped
        if waits and claim(study, trial._trial_id):
            return trial._trial_id, trial.number
    if not job.begin <= len(trials) < limit:
        return None
    trial_id, number = make_trial(study)
    if not job.begin <= number < limit:  # another worker was faster: it is for later
        put_back(study, trial_id)
        return None
    return trial_id, number


def _reason(error: Exception) -> str:
    """Return why a trial failed, as one line."""
    kind = "" if isinstance(error, ImponHpoError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())

"""A job: the trials of one study that a worker is to finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from impon_hpo.storage.trials import is_finished
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.tuning.combinations import Combinations
from impon_hpo.tuning.standings import Standings

OnEpoch = Callable[[optuna.Trial, EpochResult], None]
Train = Callable[[optuna.Trial, OnEpoch], float]


@dataclass(frozen=True)
class Job:
    """Trials of one study that a worker is to finish: those with the numbers `begin` … `end` - 1.

    Args:
        name: What is trained, for people: an arm.
        study: The study.
        train: Trains a trial and returns its value; calls what it is given after every epoch.
        end: The first number that is not wanted.
        begin: The first number.
        sampler_of: Makes the study sampler for a trial number, seeded by it, so that what is
            proposed depends neither on interruptions nor, at random, on the other workers.
        combinations: What its trials try instead, one after the other, until all are tried.
        after: A study and a trial number that must be finished before.
        retries: Whether a trial that fails is offered again instead of being told as failed.
        standings: Of a halving that promotes: it says which trial is next.
    """

    name: str
    study: optuna.Study
    train: Train
    end: int
    begin: int = 0
    sampler_of: Callable[[int], BaseSampler] | None = None
    combinations: Combinations | None = None
    after: tuple[optuna.Study, int] | None = None
    retries: bool = False
    standings: Standings | None = None

    def limit(self, trials: Sequence[FrozenTrial]) -> int:
        """Return the first number that is not wanted, with those that do not count added."""
        end = self.end
        if self.combinations is not None:
            end = min(end, self.combinations.n_trials(trials))
        return end + _n_uncounted(trials)

    def n_wanted(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many of its trials are to be finished: no more than it has combinations."""
        return self.limit(trials) - _n_uncounted(trials) - self.begin

    def n_finished(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many of its trials are finished."""
        return sum(map(is_finished, trials[self.begin : self.limit(trials)]))


def _n_uncounted(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state.is_finished() and not is_finished(trial) for trial in trials)


def count_finished(
    jobs: Sequence[Job], look: Callable[[optuna.Study], Sequence[FrozenTrial]]
) -> int:
    """Return how many trials of some jobs are finished; `look` reads those of a study, once."""
    studies = {job.study.study_name: job.study for job in jobs}
    trials = {name: look(study) for name, study in studies.items()}
    return sum(job.n_finished(trials[job.study.study_name]) for job in jobs)

"""Live progress on standard error: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, RenderableType
from rich.live import Live

from impon_hpo.storage.trials import (
    REASON,
    RECORDED,
    UNTIL,
    StudyRecord,
    TrialRecord,
    epochs_of,
    read_study,
    read_trial,
)
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.tuning.budget import Budget, spent
from impon_hpo.tuning.job import Job, count_finished
from impon_hpo.tuning.live_table import clock, live_table, named, seconds_left

READING_SHARE = 0.05
"""Share of the time that may go into reading the storage for the table."""


class LiveProgress:
    """A table that is kept up to date in a terminal; elsewhere nothing is shown but lines.

    Use it as a context manager.

    Args:
        console: Where to show it; it must write to standard error.
        budget: What may be spent.
    """

    def __init__(self, console: Console, budget: Budget | None = None) -> None:
        self.console = console
        self.budget = budget or Budget()
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._read_at = 0.0
        self._read_seconds = 0.0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, render: Callable[[], RenderableType]) -> None:
        """Show what the storage has now, unless it was read a moment ago."""
        begun = time.perf_counter()
        if (begun - self._read_at) * READING_SHARE < self._read_seconds:
            return  # a storage of thousands of trials takes long to read
        self._live.update(render())
        self._read_at = time.perf_counter()
        self._read_seconds = self._read_at - begun

    def note(self, line: str) -> None:
        """Print one line above whatever is shown."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)


class TuningProgress(LiveProgress):
    """Shows how an arm's trials go: accuracies, epoch, time left, the study's best, pruned and what
    is left of its budget."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Take note of what is to be done."""
        (self._job,) = jobs
        self._n_wanted = self._job.end

    def begin(self, job: Job, trials: Sequence[FrozenTrial]) -> None:
        """Take note of what the storage holds as a trial begins."""
        self._record = read_study(job.study, trials)
        self._n_wanted = job.n_wanted(trials)

    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Show the result of one epoch."""
        if self.console.is_terminal:
            self.show(self._render)
            return
        self._record = record = _with_epoch(self._record, trial, result)
        best = record.best
        facts = {
            "trial": named(next(one for one in record.trials if one.number == trial.number)),
            "epoch": f"{result.epoch}/{record.identity['run']['epochs']}",
            f"val {record.metric}": f"{result.val_accuracy:.4f}",
            "best": "-" if best is None else f"{best.value:.4f} (trial {best.number})",
            "pruned": f"{record.count('PRUNED')}",
            "finished": f"{record.n_finished}/{self._n_wanted}",
            "time left": clock(seconds_left([record], self._n_wanted)),
        }
        if self.budget.given:
            facts["budget left"] = self.budget.left(spent([read_study(trial.study)]))
        self.note("  ".join(f"{name} {value}" for name, value in facts.items()))

    def pause(self, job: Job, trial: FrozenTrial) -> None:
        """Say at which rung a trial waits."""
        epoch = trial.user_attrs[UNTIL]
        value = epochs_of(trial.user_attrs)[epoch]["val_accuracy"]
        self.note(f"trial {trial.number} waits at epoch {epoch}: {value:.4f}")

    def end(self, job: Job, trial: FrozenTrial) -> None:
        """Say how a trial ended."""
        reason = trial.user_attrs.get(REASON, "")
        self.note(f"trial {trial.number} {trial.state.name.lower()}{reason and f': {reason}'}")

    def _render(self) -> RenderableType:
        record = read_study(self._job.study)
        title = f"{record.identity['study']}, arm {record.identity['arm']}"
        left = self.budget.left(spent([record]))
        return live_table(title, [record], self._n_wanted, left)


def _with_epoch(record: StudyRecord, trial: optuna.Trial, result: EpochResult) -> StudyRecord:
    """Return a study's record with one epoch more of a trial that runs."""
    before = {entry.number: entry for entry in record.trials}
    old = before.get(trial.number) or _new_trial(trial.number, record)
    epochs = [epoch for epoch in old.epochs if epoch["epoch"] < result.epoch]
    now = dataclasses.replace(old, state="RUNNING", epochs=[*epochs, dataclasses.asdict(result)])
    return dataclasses.replace(record, trials=list((before | {trial.number: now}).values()))


def _new_trial(number: int, record: StudyRecord) -> TrialRecord:
    horizon = record.identity["run"]["epochs"]
    frozen = optuna.trial.create_trial(state=TrialState.RUNNING)
    return dataclasses.replace(read_trial(frozen, horizon), number=number)


class RecordingProgress(LiveProgress):
    """Shows how the runs of a comparison go: a line for each that ends, and in a terminal those
    that are under way, whoever trains them."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Take note of what is to be done, and say how much of it is there."""
        self._jobs = jobs
        self._studies = {job.study.study_name: job.study for job in jobs}
        self._n_runs = sum(job.end - job.begin for job in jobs)
        n_finished = self._n_finished()
        if n_finished:
            self.note(f"{n_finished} of {self._n_runs} runs are there already.")

    def _n_finished(self) -> int:
        return count_finished(self._jobs, lambda study: study.get_trials(deepcopy=False))

    def begin(self, job: Job, trials: Sequence[FrozenTrial]) -> None:
        """A run begins."""

    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Show the runs that are under way."""
        if self.console.is_terminal:
            self.show(self._render)

    def pause(self, job: Job, trial: FrozenTrial) -> None:
        """No run of a comparison waits."""

    def end(self, job: Job, trial: FrozenTrial) -> None:
        """Say what a run came to."""
        params = " ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
        outcome = trial.user_attrs.get(REASON) or f"{trial.value or 0.0:.4f}"
        block = trial.user_attrs[RECORDED]["block"]
        count = f"[{self._n_finished()}/{self._n_runs}]"
        self.note(f"{count} {job.name} {params} block={block}: {outcome}")

    def _render(self) -> RenderableType:
        records = [read_study(study) for study in self._studies.values()]
        title = records[0].identity["study"]
        return live_table(title, records, self._n_runs, self.budget.left(spent(records)))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

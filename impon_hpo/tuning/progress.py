"""Live progress of a study on standard error: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

import optuna
from rich.console import Console
from rich.live import Live

from impon_hpo.live_table import clock, live_table
from impon_hpo.storage.trials import StudyRecord, read_study
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.tuning.ledger import Budget, spent

READING_SHARE = 0.05
"""Share of the time that may go into reading the study for the table."""


def budget_left(budget: Budget, record: StudyRecord) -> str:
    """Return what is left of a study's budget, in words; "" where there is none."""
    found = spent(record)
    said = []
    if budget.max_epochs is not None:
        said.append(f"{max(0, budget.max_epochs - found.epochs):,} epochs")
    if budget.max_cost is not None:
        said.append(f"{max(0.0, budget.max_cost - found.cost):,.0f} forward-equivalents")
    if budget.max_seconds is not None:
        said.append(f"{clock(max(0.0, budget.max_seconds - found.seconds))} of training")
    return ", ".join(said)


class Progress:
    """Shows what runs with its accuracies, epoch, pace and time left, and the study's best, pruned
    and what is left of its budget.

    Use it as a context manager.

    Args:
        console: Where to show it; it must write to standard error.
        horizon: Epochs of an unpruned trial.
        budget: What the study may spend.
    """

    def __init__(self, console: Console, horizon: int, budget: Budget | None = None) -> None:
        self._console = console
        self._horizon = horizon
        self._budget = budget or Budget()
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._seconds: list[float] = []  # of every epoch of this process
        self._last = time.perf_counter()
        self._record: StudyRecord | None = None
        self._n_trials = 0
        self._read_at = 0.0
        self._read_seconds = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def begin(self, record: StudyRecord, n_trials: int) -> None:
        """Take note of what the storage holds as a trial begins."""
        self._record = record
        self._n_trials = n_trials
        self._last = time.perf_counter()

    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Show the result of one epoch."""
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now
        record = self._record
        assert record is not None, "begin() comes before epoch()"
        if self._console.is_terminal:
            self._show(trial.study)
            return
        best = record.best
        facts = {
            "trial": f"{trial.number}",
            "epoch": f"{result.epoch}/{self._horizon}",
            "val accuracy": f"{result.val_accuracy:.4f}",
            "best": "-" if best is None else f"{best.value:.4f} (trial {best.number})",
            "pruned": f"{record.count('PRUNED')}",
            "finished": f"{record.n_finished}/{self._n_trials}",
            "time left": clock(self._seconds_left(record, result.epoch)),
        }
        if self._budget.given:
            facts["budget left"] = budget_left(self._budget, read_study(trial.study))
        line = "  ".join(f"{name} {value}" for name, value in facts.items())
        self._console.print(line, highlight=False, soft_wrap=True)

    def _show(self, study: optuna.Study) -> None:
        """Show the study as the storage has it, with the trials of all workers."""
        begun = time.perf_counter()
        if (begun - self._read_at) * READING_SHARE < self._read_seconds:
            return  # a storage of thousands of trials takes long to read
        record = read_study(study)
        table = live_table(record, self._n_trials, budget_left(self._budget, record))
        self._live.update(table)
        self._read_at = time.perf_counter()
        self._read_seconds = self._read_at - begun

    def end(self, number: int, state: str, reason: str) -> None:
        """Say how a trial ended."""
        said = f": {reason}" if reason else ""
        self.note(f"trial {number} {state.lower()}{said}")

    def note(self, line: str) -> None:
        """Print one line above whatever is shown."""
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _seconds_left(self, record: StudyRecord, epoch: int) -> float:
        """Estimate: the epochs that finished trials had on average, at this process's pace."""
        lengths = [len(trial.epochs) for trial in record.trials if trial.finished]
        expected = sum(lengths) / len(lengths) if lengths else self._horizon
        epochs = (self._n_trials - record.n_finished) * expected - epoch
        return max(0.0, epochs) * sum(self._seconds) / len(self._seconds)

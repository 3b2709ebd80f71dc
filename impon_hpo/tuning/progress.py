"""Live progress of a study on standard error: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

import optuna
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from impon_hpo.record import StudyRecord
from impon_hpo.training.epoch_result import EpochResult


class Progress:
    """Shows trial, epoch, validation accuracy, best, pruned so far and time left.

    Use it as a context manager.

    Args:
        console: Where to show it; it must write to standard error.
        horizon: Epochs of an unpruned trial.
    """

    def __init__(self, console: Console, horizon: int) -> None:
        self._console = console
        self._horizon = horizon
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._seconds: list[float] = []  # of every epoch of this process
        self._last = time.perf_counter()
        self._record: StudyRecord | None = None
        self._n_trials = 0

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
        best = record.best
        facts = {
            "trial": f"{trial.number}",
            "epoch": f"{result.epoch}/{self._horizon}",
            "val accuracy": f"{result.val_accuracy:.4f}",
            "best": "-" if best is None else f"{best.value:.4f} (trial {best.number})",
            "pruned": f"{record.count('PRUNED')}",
            "finished": f"{record.n_finished}/{self._n_trials}",
            "time left": _clock(self._seconds_left(record, result.epoch)),
        }
        if self._console.is_terminal:
            self._live.update(self._panel(facts, record.n_finished + result.epoch / self._horizon))
        else:
            line = "  ".join(f"{name} {value}" for name, value in facts.items())
            self._console.print(line, highlight=False, soft_wrap=True)

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

    def _panel(self, facts: dict[str, str], done: float) -> Group:
        table = Table(*facts, box=None, header_style="bold", pad_edge=False)
        table.add_row(*facts.values())
        return Group(Text(), table, ProgressBar(total=self._n_trials, completed=done, width=60))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

"""A study as it runs, as a table for a terminal: what runs, how far it is, and what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from impon_hpo.storage.trials import EPOCH_SECONDS, StudyRecord, TrialRecord

BARS = "▁▂▃▄▅▆▇█"
LENGTH = 24
"""Epochs that a sparkline has room for; of longer runs, the last ones."""


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Return values as bars between `low` and `high`."""
    steps = len(BARS) - 1
    scale = steps / (high - low) if high > low else 0.0
    places = (round(scale * (value - low)) for value in values[-LENGTH:])
    return "".join(BARS[min(steps, max(0, place))] for place in places)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def live_table(
    title: str, records: Sequence[StudyRecord], n_trials: int, budget: str = ""
) -> Group:
    """Return the running trials with their accuracies, and what their studies have come to.

    Args:
        title: What they are.
        records: The studies as they are now: one that is tuned, or those of a comparison.
        n_trials: Finished trials wanted in all.
        budget: What is left of it, in words, if one was given.
    """
    several = len(records) > 1
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = ["trial", "accuracy by epoch", "val accuracy", "epoch", "rows/s", "time left"]
    for name in ["arm", *names] if several else names:
        left = name == "arm" or "by" in name
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    trials = [trial for record in records for trial in record.trials]
    accuracies = [epoch["val_accuracy"] for trial in trials for epoch in trial.epochs]
    low, high = min(accuracies, default=0.0), max(accuracies, default=1.0)
    for record in records:
        for trial in record.trials:
            if trial.state == "RUNNING":
                arm = [record.identity["arm"]] if several else []
                table.add_row(*arm, *_running(trial, low, high))
    n_finished = sum(record.n_finished for record in records)
    facts = [f"finished {n_finished}/{n_trials}"]
    if not several:
        (record,) = records
        best = record.best
        facts += [
            f"pruned {record.count('PRUNED')}",
            "best -" if best is None else f"best {best.value:.4f} (trial {best.number})",
        ]
    facts.append(f"time left {clock(seconds_left(records, n_trials))}")
    if budget:
        facts.append(f"budget left {budget}")
    done = n_finished + sum(_shares(trials))
    return Group(
        Text(f"\n{title}: {'  '.join(facts)}", style="bold"),
        table if table.rows else Text("no trial is running"),
        ProgressBar(total=n_trials, completed=min(done, n_trials), width=60),
    )


def seconds_left(records: Sequence[StudyRecord], n_trials: int) -> float:
    """Estimate what is left of `n_trials` trials: the epochs that finished ones had on average, at
    the pace so far, shared by the workers that are at it."""
    trials = [trial for record in records for trial in record.trials]
    seconds = [_seconds(epoch) for trial in trials for epoch in trial.epochs]
    if not seconds:
        return 0.0
    lengths = [len(trial.epochs) for trial in trials if trial.finished]
    expected = sum(lengths) / len(lengths) if lengths else records[0].identity["run"]["epochs"]
    running = [trial for trial in trials if trial.state == "RUNNING"]
    done = sum(min(len(trial.epochs), expected) for trial in running)
    epochs = max(0.0, (n_trials - sum(trial.finished for trial in trials)) * expected - done)
    return epochs * sum(seconds) / len(seconds) / max(1, len(running))


def _running(trial: TrialRecord, low: float, high: float) -> list[str]:
    """Return the cells of one running trial."""
    curve = [epoch["val_accuracy"] for epoch in trial.epochs]
    if not curve:
        return [str(trial.number), "", "-", f"0/{trial.horizon}", "-", "-"]
    seconds = [_seconds(epoch) for epoch in trial.epochs]
    left = (trial.horizon - len(curve)) * sum(seconds) / len(seconds)
    rate = trial.epochs[-1]["rows_trained"] / max(seconds[-1], 1e-9)
    return [
        str(trial.number),
        sparkline(curve, low, high),
        f"{curve[-1]:.4f}",
        f"{len(curve)}/{trial.horizon}",
        f"{rate:,.0f}",
        clock(left),
    ]


def _shares(trials: Sequence[TrialRecord]) -> Iterator[float]:
    for trial in trials:
        if trial.state == "RUNNING":
            yield len(trial.epochs) / trial.horizon


def _seconds(epoch: dict[str, float]) -> float:
    return sum(epoch[key] for key in EPOCH_SECONDS)

"""A study as it runs: the live table for a terminal, plain lines elsewhere, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from impon_hpo.storage.trials import StudyRecord, TrialRecord, seconds_of
from impon_hpo.tuning.promotion import promotion_of_study, waiting_trials

BARS = "▁▂▃▄▅▆▇█"
LENGTH = 24
"""Epochs that a sparkline has room for; of longer runs, the last ones."""

WAITING_ROWS = 8
"""How many of the trials that wait to be promoted are shown: those that are the nearest to it."""


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


def named(trial: TrialRecord) -> str:
    """Return the number of a trial, with the one of an earlier study that it was enqueued from."""
    return f"{trial.number} (from {trial.origin})" if trial.origin else str(trial.number)


def live_table(
    title: str, records: Sequence[StudyRecord], n_trials: int, budget: str = ""
) -> Group:
    """Return the trials that run or wait to be promoted, and the progress of their studies.

    Args:
        title: Heading of the table.
        records: The studies as they are now: one that is tuned, or those of a comparison.
        n_trials: Finished trials wanted in all studies together.
        budget: What is left of the budget, in words; "" where there is none.
    """
    several = len(records) > 1
    table = Table(box=None, header_style="bold", pad_edge=False)
    metric = records[0].metric.replace(" ", "\n")  # a heading of two lines, to save width
    names = ["trial", f"{metric} by epoch", f"val {metric}", "epoch", "rows/s", "time left"]
    for name in ["arm", *names] if several else names:
        is_text = name == "arm" or "by" in name
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    trials = [trial for record in records for trial in record.trials]
    accuracies = [epoch["val_accuracy"] for trial in trials for epoch in trial.epochs]
    low, high = min(accuracies, default=0.0), max(accuracies, default=1.0)
    for record in records:
        for trial in record.trials:
            if trial.state == "RUNNING":
                arm = [record.identity["arm"]] if several else []
                table.add_row(*arm, *_running(trial, low, high))
    waiting = [entry for record in records for entry in waiting_trials(record)]
    for entry in waiting[:WAITING_ROWS]:
        cells = _running(entry.trial, low, high)
        table.add_row(*cells[:-2], "", f"waits, place {entry.place} of {entry.n_come}")
    n_finished = sum(record.n_finished for record in records)
    facts = [f"finished {n_finished}/{n_trials}"]
    if not several:
        (record,) = records
        best = record.best
        facts += [
            *([f"waiting {len(waiting)}"] if waiting else []),
            f"pruned {record.count('PRUNED')}",
            "best -" if best is None else f"best {best.value:.4f} (trial {best.number})",
        ]
    facts.append(f"time left {clock(seconds_left(records, n_trials))}")
    if budget:
        facts.append(f"budget left {budget}")
    n_done = n_finished + sum(_shares(trials))
    return Group(
        Text(f"\n{title}: {'  '.join(facts)}", style="bold"),
        table if table.rows else Text("no trial is running"),
        ProgressBar(total=n_trials, completed=min(n_done, n_trials), width=60),
    )


def seconds_left(records: Sequence[StudyRecord], n_trials: int) -> float:
    """Estimate the seconds until `n_trials` trials are finished; 0 before the first epoch.

    Each trial counts as long as the finished ones were on average, at the pace so far, and the
    running trials share the work. Under halving that promotes, the epochs of a whole study follow
    from its rungs.
    """
    trials = [trial for record in records for trial in record.trials]
    seconds = [seconds_of(epoch) for trial in trials for epoch in trial.epochs]
    if not seconds:
        return 0.0
    running = [trial for trial in trials if trial.state == "RUNNING"]
    pace = sum(seconds) / len(seconds) / max(1, len(running))
    promotion = promotion_of_study(records[0])
    if promotion is not None:
        return max(0, promotion.expected_epochs(n_trials) - len(seconds)) * pace
    lengths = [len(trial.epochs) for trial in trials if trial.finished]
    expected = sum(lengths) / len(lengths) if lengths else records[0].identity["run"]["epochs"]
    epochs_done = sum(min(len(trial.epochs), expected) for trial in running)
    epochs = max(0.0, (n_trials - sum(trial.finished for trial in trials)) * expected - epochs_done)
    return epochs * pace


def watch(
    read: Callable[[], tuple[Sequence[StudyRecord], Sequence[StudyRecord]]],
    *,
    wanted: Callable[[str], int],
    console: Console,
    interval: float,
) -> tuple[Sequence[StudyRecord], Sequence[StudyRecord]]:
    """Show what other processes run until each arm has its finished trials and the comparison all
    its runs, and return both.

    Args:
        read: Reads the arms, and the studies of the comparison, from the storage; either may be
            empty.
        wanted: Arm -> finished trials wanted of it.
        console: Where to show them.
        interval: Seconds from one look to the next.

    Raises:
        NothingYetError: The storage holds nothing of the study.
    """
    printed: dict[tuple[str, int], tuple[str, int]] = {}
    # A notebook is not a terminal: its lines stay where they are, and need no widgets.
    table = Live(console=console, auto_refresh=False, transient=True)
    with table if console.is_terminal else nullcontext() as live:
        while True:
            arms, comparison = read()
            if live is not None:
                tables = [
                    live_table(_title(record), [record], wanted(record.identity["arm"]))
                    for record in arms
                ]
                if comparison:
                    title = comparison[0].identity["study"]
                    n_runs = sum(record.n_wanted for record in comparison)
                    tables.append(live_table(title, comparison, n_runs))
                live.update(Group(*tables), refresh=True)
            else:
                runs = changes(comparison, printed)
                for line in [*changes(arms, printed), *(f"comparison  {line}" for line in runs)]:
                    console.print(line, highlight=False, soft_wrap=True, markup=False)
            tuned = all(record.n_finished >= wanted(record.identity["arm"]) for record in arms)
            if tuned and all(record.n_finished >= record.n_wanted for record in comparison):
                return arms, comparison
            time.sleep(interval)


def changes(
    records: Sequence[StudyRecord], printed: dict[tuple[str, int], tuple[str, int]]
) -> Iterator[str]:
    """Yield a line for every trial that has changed since its last line.

    Args:
        records: The arms, or the studies of a comparison.
        printed: State and epochs of each trial, by name of its study and number, as in its last
            line; brought up to date.
    """
    for record in records:
        # Under other settings, a comparison has another study for the same arm.
        name, arm = record.optuna_study.study_name, record.identity["arm"]
        for trial in record.trials:
            key = name, trial.number
            state = trial.state, len(trial.epochs)
            if printed.get(key) == state:
                continue
            printed[key] = state
            line = f"{arm}  trial {named(trial)} {trial.fate}  epoch {state[1]}/{trial.horizon}"
            if trial.epochs:
                line += f"  val {record.metric} {trial.epochs[-1]['val_accuracy']:.4f}"
            yield line


def _title(record: StudyRecord) -> str:
    return f"{record.identity['study']}, arm {record.identity['arm']}"


def _running(trial: TrialRecord, low: float, high: float) -> list[str]:
    """Return the cells of one running trial."""
    curve = [epoch["val_accuracy"] for epoch in trial.epochs]
    if not curve:
        return [named(trial), "", "-", f"0/{trial.horizon}", "-", "-"]
    seconds = [seconds_of(epoch) for epoch in trial.epochs]
    time_left = (trial.horizon - len(curve)) * sum(seconds) / len(seconds)
    rate = trial.epochs[-1]["rows_trained"] / max(seconds[-1], 1e-9)
    return [
        named(trial),
        sparkline(curve, low, high),
        f"{curve[-1]:.4f}",
        f"{len(curve)}/{trial.horizon}",
        f"{rate:,.0f}",
        clock(time_left),
    ]


def _shares(trials: Sequence[TrialRecord]) -> Iterator[float]:
    for trial in trials:
        if trial.state == "RUNNING":
            yield len(trial.epochs) / trial.horizon

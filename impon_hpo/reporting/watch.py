"""Watching a study that other processes run: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

from rich.console import Console, Group
from rich.live import Live

from impon_hpo.live_table import live_table
from impon_hpo.storage.trials import StudyRecord


def watch(
    read: Callable[[], Sequence[StudyRecord]],
    *,
    n_trials: int,
    console: Console,
    interval: float,
) -> Sequence[StudyRecord]:
    """Show a study until all its arms have as many finished trials as are wanted, and return them.

    Args:
        read: Reads the arms from the storage.
        n_trials: Finished trials wanted of each arm.
        console: Where to show them.
        interval: Seconds from one look to the next.

    Raises:
        NothingYetError: The storage holds nothing of the study.
    """
    told: dict[tuple[str, int], tuple[str, int]] = {}
    # A notebook is no terminal: its lines stay where they are, and need no widgets.
    table = Live(console=console, auto_refresh=False, transient=True)
    with table if console.is_terminal else nullcontext() as live:
        while True:
            records = read()
            if live is not None:
                tables = Group(
                    *(live_table(_title(record), [record], n_trials) for record in records)
                )
                live.update(tables, refresh=True)
            else:
                for line in news(records, told):
                    console.print(line, highlight=False, soft_wrap=True, markup=False)
            if all(record.n_finished >= n_trials for record in records):
                return records
            time.sleep(interval)


def _title(record: StudyRecord) -> str:
    return f"{record.identity['study']}, arm {record.identity['arm']}"


def news(
    records: Sequence[StudyRecord], told: dict[tuple[str, int], tuple[str, int]]
) -> Iterator[str]:
    """Yield a line for every trial that is another than when it was last told of.

    Args:
        records: The arms.
        told: State and epochs of each trial by arm and number, brought up to date.
    """
    for record in records:
        arm = record.identity["arm"]
        for trial in record.trials:
            now = trial.state, len(trial.epochs)
            if told.get((arm, trial.number)) == now:
                continue
            told[arm, trial.number] = now
            said = f"{arm}  trial {trial.number} {trial.fate}  epoch {now[1]}/{trial.horizon}"
            if trial.epochs:
                said += f"  val accuracy {trial.epochs[-1]['val_accuracy']:.4f}"
            yield said

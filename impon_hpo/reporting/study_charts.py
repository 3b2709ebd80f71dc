"""The charts of a tuned study, from the records of its arms: cost, fates, and early judgement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

from impon_hpo.reporting.chart import Chart, Palette, Series
from impon_hpo.storage.trials import StudyRecord, TrialRecord

COST = "forward-equivalents"
ACCURACY = "validation accuracy (0 … 1)"
FATES = {
    "complete": "#0072B2",
    "pruned": "#E69F00",
    "diverged": "#CC79A7",
    "failed": "#D55E00",
    "running": "#009E73",
}
TRIALS_DRAWN = 200
"""The dashboard sends every graph with every refresh, so a graph has to stay small."""
TRIALS_RANKED = 3
"""From so many complete trials on there is a rank correlation to speak of."""


def study_charts(
    record: StudyRecord, records: Sequence[StudyRecord], palette: Palette
) -> list[Chart]:
    """Return the charts of one arm and those of all arms; those with nothing in them are left out.

    Args:
        record: The arm.
        records: All arms of its study.
        palette: Colours of the arms.
    """
    drawn = [
        accuracy_against_cost(record),
        pruned_when(record),
        best_so_far(records, palette),
        early_and_final(records, palette),
    ]
    return [chart for chart in drawn if chart.series]


def accuracy_against_cost(record: StudyRecord) -> Chart:
    """Return the learning curve of each trial against what it had cost, coloured by its fate."""
    trials = _drawn(record)
    left_out = sum(bool(trial.epochs) for trial in record.trials) - len(trials)
    series = []
    for fate, colour in FATES.items():
        cost: list[float] = []
        accuracy: list[float] = []
        labels: list[str] = []
        n_trials = 0
        for trial in trials:
            if trial.fate == fate:
                n_trials += 1
                cost += [*accumulate(epoch["cost"] for epoch in trial.epochs), math.nan]
                accuracy += [*_accuracies(trial), math.nan]
                labels += [f"trial {trial.number}"] * (len(trial.epochs) + 1)
        if n_trials:
            series.append(
                Series(_counted(fate, n_trials), cost, accuracy, colour=colour, labels=labels)
            )
    return Chart(
        key="accuracy-against-cost",
        title=f"Accuracy against cost, arm {record.identity['arm']}",
        x=f"cost of the trial so far ({COST})",
        y=ACCURACY,
        series=series,
        note="A line a trial, a point an epoch."
        + (f" {left_out} trials that ended early are left out." if left_out else ""),
    )


def pruned_when(record: StudyRecord) -> Chart:
    """Return after which epoch each trial ended, and how good it was by then."""
    series = []
    for fate, colour in FATES.items():
        trials = [trial for trial in _drawn(record) if trial.fate == fate]
        if trials:
            series.append(
                Series(
                    _counted(fate, len(trials)),
                    # Beside each other, or trials of equal accuracy would hide one another.
                    [len(trial.epochs) + (trial.number % 5 - 2) * 0.06 for trial in trials],
                    [_accuracies(trial)[-1] for trial in trials],
                    kind="points",
                    colour=colour,
                    labels=[f"trial {trial.number}" for trial in trials],
                )
            )
    return Chart(
        key="pruned-when",
        title=f"Who is pruned when, arm {record.identity['arm']}",
        x="epochs trained (spread a little sideways)",
        y=ACCURACY,
        series=series,
        note="A point a trial, at its last epoch.",
    )


def best_so_far(records: Sequence[StudyRecord], palette: Palette) -> Chart:
    """Return the best complete trial of each arm against what the arm had spent by then."""
    series = []
    for record in records:
        spent = float(sum(reference["cost"] for reference in record.references.values()))
        cost: list[float] = []
        best: list[float] = []
        for trial in record.trials:
            spent += trial.cost + trial.wasted_cost
            if _complete(trial):
                best.append(max([_accuracies(trial)[-1], *best[-1:]]))
            elif best:
                best.append(best[-1])
            if best:
                cost.append(spent)
        if best:
            arm = record.identity["arm"]
            series.append(Series(arm, cost, best, kind="steps", colour=palette.colour(arm)))
    return Chart(
        key="best-so-far",
        title="The arms side by side: best so far",
        x=f"cost of the study so far ({COST})",
        y=f"best {ACCURACY}",
        series=series,
        note="Of complete trials, in the order of their numbers; scoring, validation and "
        "references are charged. Left and up is better.",
    )


def early_and_final(records: Sequence[StudyRecord], palette: Palette) -> Chart:
    """Return how well the accuracies after each epoch rank the complete trials as the last do."""
    from scipy.stats import kendalltau

    series = []
    for record in records:
        trials = [trial for trial in record.trials if _complete(trial)]
        if len(trials) < TRIALS_RANKED:
            continue
        curves = [_accuracies(trial) for trial in trials]
        epochs = range(1, min(len(curve) for curve in curves))
        last = [curve[-1] for curve in curves]
        tau = [float(kendalltau([c[at - 1] for c in curves], last).statistic) for at in epochs]
        if tau:
            arm = record.identity["arm"]
            series.append(
                Series(
                    f"{arm} ({len(trials)} complete trials)",
                    list(epochs),
                    [round(value, 4) for value in tau],
                    colour=palette.colour(arm),
                )
            )
    return Chart(
        key="early-and-final",
        title="Rank correlation with the last epoch",
        x="epoch",
        y="Kendall's τ-b (-1 … 1)",
        series=series,
        limits=[("y", 0.0, "no relation")],
        note="Validation accuracy after each epoch against that after the last one. Complete "
        "trials only, which the pruner has chosen: of few trials it says little.",
    )


def _drawn(record: StudyRecord) -> list[TrialRecord]:
    """Return the trials that are drawn, the longest ones first."""
    trials = [trial for trial in record.trials if trial.epochs and trial.fate in FATES]
    return sorted(trials, key=lambda trial: (-len(trial.epochs), trial.number))[:TRIALS_DRAWN]


def _accuracies(trial: TrialRecord) -> list[float]:
    return [round(epoch["val_accuracy"], 4) for epoch in trial.epochs]


def _complete(trial: TrialRecord) -> bool:
    return trial.fate == "complete" and bool(trial.epochs)


def _counted(fate: str, count: int) -> str:
    return f"{fate} ({count})"

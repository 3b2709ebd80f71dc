"""The charts of a tuned study, from the records of its arms: cost, fates, diagnostics, picks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from impon_hpo.reporting.chart import Chart, Palette, Series
from impon_hpo.storage.trials import StudyRecord, TrialRecord

COST = "forward-equivalents"
FATES = {
    "complete": "#0072B2",
    "pruned": "#E69F00",
    "diverged": "#CC79A7",
    "failed": "#D55E00",
    "running": "#009E73",
}
TRIALS_DRAWN = 200
"""The dashboard sends every graph with every refresh, so a graph has to stay small."""
TRIALS_DIAGNOSED = 40
"""There are several charts of diagnostics, so each has fewer trials."""
TRIALS_RANKED = 3
"""With fewer complete trials a rank correlation says nothing."""
CLASSES_DRAWN = 10

Points = Sequence[tuple[float, float]]


def study_charts(
    record: StudyRecord, records: Sequence[StudyRecord], palette: Palette
) -> list[Chart]:
    """Return the charts of one arm and those of all arms; empty charts are left out.

    Args:
        record: The arm.
        records: All arms of its study.
        palette: Colours of the arms.
    """
    charts = [
        accuracy_against_cost(record),
        pruned_when(record),
        best_so_far(records, palette),
        early_and_final(records, palette),
        *diagnostics(record),
    ]
    return [chart for chart in charts if chart.series]


def accuracy_against_cost(record: StudyRecord) -> Chart:
    """Return the learning curve of each trial against what it had cost, coloured by its fate."""
    trials = _longest(record, TRIALS_DRAWN)
    n_left_out = sum(bool(trial.epochs) for trial in record.trials) - len(trials)

    def curve(trial: TrialRecord) -> Points:
        costs = accumulate(epoch["cost"] for epoch in trial.epochs)
        return list(zip(costs, _accuracies(trial), strict=True))

    return Chart(
        key="accuracy-against-cost",
        title=f"{record.metric.capitalize()} against cost, arm {record.identity['arm']}",
        x=f"cost of the trial so far ({COST})",
        y=_axis(record),
        series=_lines_by_fate(trials, curve),
        note="A line for each trial, a point for each epoch."
        + (f" {n_left_out} trials that ended early are left out." if n_left_out else ""),
    )


def diagnostics(record: StudyRecord) -> list[Chart]:
    """Return a chart for each diagnostic of the batch sampler: its value after each epoch of each
    trial."""
    trials = _longest(record, TRIALS_DIAGNOSED)
    measures = {
        trial.number: [
            {key: epoch[key] for key in ("share_seen",) if key in epoch} | epoch["diagnostics"]
            for epoch in trial.epochs
        ]
        for trial in trials
    }
    names = dict.fromkeys(
        name for epochs in measures.values() for epoch in epochs for name in epoch
    )

    def curve_of(name: str) -> Callable[[TrialRecord], Points]:
        return lambda trial: [
            (number, float(f"{epoch[name]:.4g}"))
            for number, epoch in enumerate(measures[trial.number], start=1)
            if name in epoch
        ]

    return [
        Chart(
            key=f"diagnostic-{name.replace('_', '-')}",
            title=f"Diagnostics: {name.replace('_', ' ')}, arm {record.identity['arm']}",
            x="epoch",
            y=name.replace("_", " "),
            series=_lines_by_fate(trials, curve_of(name)),
            note="A line for each trial, at most the "
            f"{TRIALS_DIAGNOSED} longest ones. The batch sampler measures it in each epoch.",
        )
        for name in names
    ]


def pruned_when(record: StudyRecord) -> Chart:
    """Return after which epoch each trial ended, and its accuracy by then."""
    series = []
    for fate, colour in FATES.items():
        trials = [trial for trial in _longest(record, TRIALS_DRAWN) if trial.fate == fate]
        if trials:
            series.append(
                Series(
                    _counted(fate, len(trials)),
                    # Beside each other: trials of equal accuracy would hide one another.
                    [len(trial.epochs) + (trial.number % 5 - 2) * 0.06 for trial in trials],
                    [_accuracies(trial)[-1] for trial in trials],
                    kind="points",
                    colour=colour,
                    labels=[f"trial {trial.number}" for trial in trials],
                )
            )
    return Chart(
        key="pruned-when",
        title=f"When each trial ended, arm {record.identity['arm']}",
        x="epochs trained (spread a little sideways)",
        y=_axis(record),
        series=series,
        note="A point for each trial, at its last epoch.",
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
            colour, dash = palette.line(arm)
            series.append(Series(arm, cost, best, kind="steps", colour=colour, dash=dash))
    return Chart(
        key="best-so-far",
        title="The arms side by side: best so far",
        x=f"cost of the study so far ({COST})",
        y=f"best {_axis(records[0])}",
        series=series,
        note="Complete trials, in the order of their numbers. Scoring, validation and references "
        "are charged. Left and up is better.",
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
            colour, dash = palette.line(arm)
            series.append(
                Series(
                    f"{arm} ({len(trials)} complete trials)",
                    list(epochs),
                    [round(value, 4) for value in tau],
                    colour=colour,
                    dash=dash,
                )
            )
    return Chart(
        key="early-and-final",
        title="Rank correlation with the last epoch",
        x="epoch",
        y="Kendall's τ-b (-1 … 1)",
        series=series,
        limits=[("y", 0.0, "no relation")],
        note=f"Validation {records[0].metric} after each epoch against that after the last one. "
        "Only complete trials, which the pruner has chosen. Few trials say little.",
    )


def class_picks(title: str, rows: Sequence[Mapping[str, str]]) -> Chart:
    """Return how often the rows of each class were picked in each epoch of one trial.

    Args:
        title: Title of the chart.
        rows: The trial's `class_picks.csv`: for each class its name (`class`), its training rows
            (`rows`), and how often they were picked in each epoch (`epoch_1`, `epoch_2` …). Of
            many classes, those picked most and least for their size are drawn.
    """
    names = [row["class"] for row in rows]
    epochs = [key for key in rows[0] if key.startswith("epoch_")]
    counts = [[int(row[epoch]) for epoch in epochs] for row in rows]
    sizes = np.array([[max(1, int(row["rows"]))] for row in rows])
    shares = np.array(counts) / sizes
    order = np.argsort(-shares.sum(axis=1), kind="stable").tolist()
    half = CLASSES_DRAWN // 2
    drawn = order if len(order) <= CLASSES_DRAWN else [*order[:half], *order[-half:]]
    palette = Palette(names)
    series = []
    for at in sorted(drawn):
        colour, dash = palette.line(names[at])
        share = [float(f"{value:.4g}") for value in shares[at]]
        numbers = list(range(1, len(share) + 1))
        series.append(Series(names[at], numbers, share, colour=colour, dash=dash))
    return Chart(
        key="class-picks",
        title=title,
        x="epoch",
        y="picks of a row of the class (mean)",
        series=series,
        note=f"Of more than {CLASSES_DRAWN} classes, those picked most and least.",
    )


def _lines_by_fate(
    trials: Sequence[TrialRecord], curve: Callable[[TrialRecord], Points]
) -> list[Series]:
    """Return for each fate one series that holds the curves of its trials."""
    series = []
    for fate, colour in FATES.items():
        x: list[float] = []
        y: list[float] = []
        labels: list[str] = []
        n_trials = 0
        for trial in trials:
            points = curve(trial) if trial.fate == fate else []
            if points:
                n_trials += 1
                x += [*(first for first, _ in points), math.nan]
                y += [*(second for _, second in points), math.nan]
                labels += [f"trial {trial.number}"] * (len(points) + 1)
        if n_trials:
            series.append(Series(_counted(fate, n_trials), x, y, colour=colour, labels=labels))
    return series


def _longest(record: StudyRecord, limit: int) -> list[TrialRecord]:
    """Return the trials that are drawn, the longest ones first."""
    trials = [trial for trial in record.trials if trial.epochs and trial.fate in FATES]
    return sorted(trials, key=lambda trial: (-len(trial.epochs), trial.number))[:limit]


def _axis(record: StudyRecord) -> str:
    return f"validation {record.metric}{'' if record.metric == 'minus loss' else ' (0 … 1)'}"


def _accuracies(trial: TrialRecord) -> list[float]:
    return [round(epoch["val_accuracy"], 4) for epoch in trial.epochs]


def _complete(trial: TrialRecord) -> bool:
    return trial.fate == "complete" and bool(trial.epochs)


def _counted(fate: str, count: int) -> str:
    return f"{fate} ({count})"

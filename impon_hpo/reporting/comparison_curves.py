"""The curves of a comparison's report, from its summary: accuracy, judgement and regret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from impon_hpo.reporting.chart import Chart, Palette, Series

EPOCHS = "epochs of uniform sampling"
UNIFORM = "uniform"
Where = Mapping[str, tuple[bool, Sequence[str]]]


def views(summary: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the arms that are drawn together, by what they have in common; those that a picture
    shows come first.

    All arms at once are too many to tell apart: a view has uniform sampling, and the arms of one
    policy at one share of an epoch, so the claim is beside its controls and rivals.
    """
    rows = {row["arm"]: row for row in summary["arms"]}
    claim = rows.get(summary["protocol"]["claim"])
    if claim is None:
        return {"all arms": set(rows)}
    found: dict[str, set[str]] = {_view(claim): set()}
    for row in rows.values():
        if row["kind"] != UNIFORM:
            found.setdefault(_view(row), set()).add(row["arm"])
    for row in rows.values():
        if row["kind"] == UNIFORM:
            for name, arms in found.items():
                if name.endswith(f"({row['policy']})"):
                    arms.add(row["arm"])
    return found


def _view(row: Mapping[str, Any]) -> str:
    share = "full epochs" if row["fraction"] == "1" else f"{row['fraction']} of an epoch"
    return f"{share} ({row['policy']})"


def drawn_in(summary: Mapping[str, Any]) -> dict[str, tuple[bool, list[str]]]:
    """Return for each arm whether it is drawn at first, and the views in which it is drawn."""
    all_views = views(summary)
    shown = {
        row["arm"]: [name for name, arms in all_views.items() if row["arm"] in arms]
        for row in summary["arms"]
    }
    first = next(iter(all_views), None)
    return {arm: (first in names, names) for arm, names in shown.items()}


def _line(row: Mapping[str, Any], palette: Palette, x: Any, values: Any, where: Where) -> Series:
    """Draw the mean over blocks with a band from the 10th to the 90th percentile."""
    numbers = np.atleast_2d(np.array(values, dtype=float))
    return Series(
        name=row["arm"],
        x=list(x),
        y=numbers.mean(0).tolist(),
        low=np.percentile(numbers, 10, axis=0).tolist(),
        high=np.percentile(numbers, 90, axis=0).tolist(),
        colour=palette.colour(row["arm"]),
        dash=palette.dash(row["fraction"]),
        main=where[row["arm"]][0],
        views=where[row["arm"]][1],
    )


BAND = "Means over blocks; bands from the 10th to the 90th percentile of the blocks."


def regret_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return how far the pick is from the best configuration, after so much has been spent."""
    where = drawn_in(summary)
    series = [
        _line(row, palette, summary["budgets"], row["study"]["regret"], where)
        for row in summary["arms"]
    ]
    return Chart(
        key="regret-against-cost",
        title="What a study has found for what it has spent",
        x=f"cost of the study so far ({EPOCHS})",
        y="regret of the pick (points of test accuracy)",
        series=series,
        x_log=True,
        note=f"Regret: truth of the best configuration minus truth of the pick so far. {BAND}",
    )


def accuracy_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return mean validation accuracy of the configurations against what a run has cost."""
    where = drawn_in(summary)
    series = [
        _line(
            row,
            palette,
            [cost / summary["unit"] for cost in row["curves"]["cost"]],
            row["curves"]["accuracy"],
            where,
        )
        for row in summary["arms"]
    ]
    return Chart(
        key="accuracy-against-cost",
        title="Accuracy against cost of a run",
        x=f"cost of a run so far ({EPOCHS})",
        y="validation accuracy, mean over configurations (points)",
        series=series,
        note=f"Scoring and validation are charged. {BAND}",
    )


def tau_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return how well the accuracies so far rank the configurations."""
    where = drawn_in(summary)
    series = [
        _line(
            row,
            palette,
            [cost / summary["unit"] for cost in row["curves"]["cost"]],
            row["curves"]["tau"],
            where,
        )
        for row in summary["arms"]
    ]
    return Chart(
        key="tau-against-cost",
        title="Early judgement: does early accuracy rank the configurations?",
        x=f"cost of a run so far ({EPOCHS})",
        y="Kendall's τ-b of validation accuracy and truth",
        series=series,
        note=f"1: the same order as the truth; 0: no relation. {BAND}",
    )


def learning_rates(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return last validation accuracy and truth against learning rate: does the optimum move?"""
    rows = [entry for entry in summary["configurations"] if "lr" in entry]
    order = sorted(range(len(rows)), key=lambda at: rows[at]["lr"])
    x = [rows[at]["lr"] for at in order]
    where = drawn_in(summary)
    series = [
        Series(
            row["arm"],
            x,
            [row["curves"]["last"][rows[at]["configuration"]] for at in order],
            colour=palette.colour(row["arm"]),
            dash=palette.dash(row["fraction"]),
            main=where[row["arm"]][0],
            views=where[row["arm"]][1],
        )
        for row in summary["arms"]
        if rows
    ]
    return Chart(
        key="learning-rates",
        title="Learning rate against outcome",
        x="learning rate",
        y="last validation accuracy (points, mean over blocks)",
        series=series,
        x_log=True,
        note="Other settings differ between the configurations, too.",
    )

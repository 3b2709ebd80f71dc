"""The curves of a comparison's report, from its summary: accuracy, judgement and regret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from impon_hpo.reporting.chart import Chart, Palette, Series

EPOCHS = "epochs of uniform sampling"


def main_arms(summary: Mapping[str, Any]) -> set[str]:
    """Return the arms that a picture shows: uniform, the claim, its controls and its rivals."""
    rows = {row["arm"]: row for row in summary["arms"]}
    claim = rows.get(summary["protocol"]["claim"])
    if claim is None:
        return set(rows)
    return {
        name
        for name, row in rows.items()
        if row["policy"] == claim["policy"]
        and (row["kind"] == "uniform" or row["fraction"] == claim["fraction"])
    }


def _line(row: Mapping[str, Any], palette: Palette, x: Any, values: Any, main: set[str]) -> Series:
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
        main=row["arm"] in main,
    )


BAND = "Means over blocks; bands from the 10th to the 90th percentile of the blocks."


def regret_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return how far the pick is from the best configuration, after so much has been spent."""
    main = main_arms(summary)
    series = [
        _line(row, palette, summary["budgets"], row["study"]["regret"], main)
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
    main = main_arms(summary)
    series = [
        _line(
            row,
            palette,
            [cost / summary["unit"] for cost in row["curves"]["cost"]],
            row["curves"]["accuracy"],
            main,
        )
        for row in summary["arms"]
    ]
    return Chart(
        key="accuracy-against-cost",
        title="Accuracy against cost of a run",
        x=f"cost of a run so far ({EPOCHS}; scoring and validation charged)",
        y="validation accuracy, mean over configurations (points)",
        series=series,
        note=BAND,
    )


def tau_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return how well the accuracies so far rank the configurations."""
    main = main_arms(summary)
    series = [
        _line(
            row,
            palette,
            [cost / summary["unit"] for cost in row["curves"]["cost"]],
            row["curves"]["tau"],
            main,
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
    main = main_arms(summary)
    series = [
        Series(
            row["arm"],
            x,
            [row["curves"]["last"][rows[at]["configuration"]] for at in order],
            colour=palette.colour(row["arm"]),
            dash=palette.dash(row["fraction"]),
            main=row["arm"] in main,
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

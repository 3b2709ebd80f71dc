"""The charts of a comparison, from its summary; here those of its studies and their picks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from impon_hpo.reporting.chart import CONTROL, OTHERS, Chart, Palette, Series
from impon_hpo.reporting.comparison_curves import (
    EPOCHS,
    accuracy_against_cost,
    drawn_in,
    learning_rates,
    regret_against_cost,
    tau_against_cost,
)


def comparison_charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Return all charts of a comparison; those for which there is nothing yet are left out."""
    palette = Palette(summary["study_arms"])
    for row in summary["arms"]:
        palette.dash(row["fraction"])
    drawn = [
        regret_against_cost(summary, palette),
        accuracy_against_cost(summary, palette),
        tau_against_cost(summary, palette),
        *forest(summary),
        pruned_when(summary, palette),
        seconds_by_phase(summary),
        learning_rates(summary, palette),
        pareto(summary, palette),
    ]
    return [chart for chart in drawn if chart.series]


def forest(summary: Mapping[str, Any]) -> list[Chart]:
    """Return cost ratio and loss of the claim, block by block and pooled, with the limits asked."""
    verdict = summary["verdict"]
    if "per_block" not in verdict:
        return []
    blocks = verdict["per_block"]
    charts = []
    for key, title, y in (
        ("cost", "cost ratio", f"cost of {verdict['arm']} ÷ cost of {verdict['control']}"),
        ("loss", "loss of quality", "truth of uniform's pick − truth of the pick (points)"),
    ):
        pooled = verdict[key]
        charts.append(
            Chart(
                key=f"forest-{key}",
                title=f"Block by block: {title}",
                x="block",
                y=y,
                series=[
                    Series(
                        "a block",
                        [f"block {block}" for block in blocks["blocks"]],
                        blocks[key],
                        kind="points",
                        colour=OTHERS[1],
                    ),
                    Series(
                        "all, with one-sided 95 % bounds",
                        ["all"],
                        [pooled["point"]],
                        [pooled["lower"]],
                        [pooled["upper"]],
                        kind="points",
                        colour=OTHERS[0],
                    ),
                ],
                limits=[("y", pooled["limit"], f"asked: at most {pooled['limit']:g}")],
            )
        )
    return charts


def pruned_when(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return for how many epochs each configuration is trained before it is pruned."""
    truth = [entry["truth"] for entry in summary["configurations"]]
    where = drawn_in(summary)
    order = np.argsort(truth).tolist()
    series = [
        Series(
            row["arm"],
            [truth[number] for number in order],
            [row["study"]["stopped"][number] for number in order],
            colour=palette.colour(row["arm"]),
            dash=palette.dash(row["fraction"]),
            main=where[row["arm"]][0],
            views=where[row["arm"]][1],
            labels=[f"configuration {number}" for number in order],
        )
        for row in summary["arms"]
    ]
    return Chart(
        key="pruned-when",
        title="Who is pruned when",
        x="truth of a configuration (points of test accuracy)",
        y="epochs that it is trained for (mean over blocks and orders)",
        series=series,
        note="A pruner that is right stops what is on the left early, and nothing on the right.",
    )


def seconds_by_phase(summary: Mapping[str, Any]) -> Chart:
    """Return the seconds of a whole run by phase."""
    phases = (
        ("stepping", "training steps", CONTROL),
        ("drawing", "choosing batches", OTHERS[0]),
        ("validating", "validation", OTHERS[1]),
    )
    claim = summary["protocol"]["claim"]
    policies = {row["policy"] for row in summary["arms"] if row["arm"] == claim}
    # Under another policy an arm takes as long.
    rows = [row for row in summary["arms"] if not policies or row["policy"] in policies]
    names = [row["arm"] for row in rows]
    series = [
        Series(
            said,
            names,
            [row["curves"]["seconds"][phase] for row in rows],
            kind="bars",
            colour=colour,
        )
        for phase, said, colour in phases
    ]
    return Chart(
        key="seconds-by-phase",
        title="Where the time of a run goes",
        x="arm",
        y="seconds of an unpruned run (mean)",
        series=series,
        note="Measured on a machine that had other things to do; the verdict counts passes.",
    )


def pareto(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return total cost against quality of the pick, one point an arm and pruner."""
    where = drawn_in(summary)
    unit = summary["unit"]
    series = [
        Series(
            row["arm"],
            [float(np.mean(row["study"]["cost"])) / unit],
            [float(np.mean(row["study"]["quality"]))],
            [float(np.percentile(row["study"]["quality"], 10))],
            [float(np.percentile(row["study"]["quality"], 90))],
            kind="points",
            colour=palette.colour(row["arm"]),
            main=where[row["arm"]][0],
            views=where[row["arm"]][1],
        )
        for row in summary["arms"]
    ]
    uniform = [row for row in summary["pruners"] if row["arm"].partition(" (")[0] == "uniform"]
    if uniform:
        series.append(
            Series(
                "uniform under other pruners",
                [row["cost"] / unit for row in uniform],
                [row["quality"] for row in uniform],
                kind="points",
                colour="#B0B0B0",
                labels=[row["pruner"] for row in uniform],
            )
        )
    return Chart(
        key="pareto",
        title="Cost of a study against quality of its pick",
        x=f"cost of the study ({EPOCHS})",
        y="truth of the pick (points of test accuracy)",
        series=series if summary["arms"] else [],
        x_log=True,
        limits=[("y", summary["random_pick"], "a blind pick")],
        note="Left and up is better. Bars from the 10th to the 90th percentile of the blocks.",
    )

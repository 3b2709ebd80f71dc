"""The charts of a comparison, from its summary: what each arm costs, finds and prunes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from impon_hpo.reporting.chart import CONTROL, OTHERS, Chart, Palette, Series

if TYPE_CHECKING:
    from impon_hpo.comparing.curves import Curves

COST_UNIT = "epochs of uniform sampling"
UNIFORM = "uniform"
BAND = "Means over blocks; bands from the 10th to the 90th percentile of the blocks."
OTHER_PRUNERS = "#B0B0B0"


def comparison_charts(summary: Mapping[str, Any]) -> list[Chart]:
    """Return all charts of a comparison; a chart with nothing to show yet is left out."""
    palette = Palette(summary["study_arms"])
    for row in summary["arms"]:
        palette.dash(row["fraction"])
    charts = [
        regret_against_cost(summary, palette),
        accuracy_against_cost(summary, palette),
        tau_against_cost(summary, palette),
        *in_hand(summary, palette),
        *forest(summary),
        pruned_when(summary, palette),
        seconds_by_phase(summary),
        learning_rates(summary, palette),
        pareto(summary, palette),
    ]
    return [chart for chart in charts if chart.series]


def views(summary: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the arms that are drawn together, by the name of the view; PNG files show the first.

    All arms at once are too many to tell apart. A view has uniform sampling and the arms of one
    policy at one share of an epoch, so the claim is beside its controls and rivals.
    """
    rows = {row["arm"]: row for row in summary["arms"]}
    claim = rows.get(summary["searching"])
    if claim is None:
        return {"all arms": set(rows)}
    arms_by_view: dict[str, set[str]] = {_view(claim): set()}
    for row in rows.values():
        if row["kind"] != UNIFORM:
            arms_by_view.setdefault(_view(row), set()).add(row["arm"])
    for row in rows.values():
        if row["kind"] == UNIFORM:
            for name, arms in arms_by_view.items():
                if name.endswith(f"({row['policy']})"):
                    arms.add(row["arm"])
    return arms_by_view


def _view(row: Mapping[str, Any]) -> str:
    share = "full epochs" if row["fraction"] == "1" else f"{row['fraction']} of an epoch"
    return f"{share} ({row['policy']})"


def _looks(summary: Mapping[str, Any], palette: Palette) -> dict[str, dict[str, Any]]:
    """Return for each arm the name, colour, `main` and `views` of its series."""
    arms_by_view = views(summary)
    first = next(iter(arms_by_view), None)
    looks = {}
    for row in summary["arms"]:
        arm = row["arm"]
        names = [name for name, arms in arms_by_view.items() if arm in arms]
        looks[arm] = {
            "name": arm,
            "colour": palette.colour(arm),
            "main": first in names,
            "views": names,
        }
    return looks


def _bands(summary: Mapping[str, Any], palette: Palette, x_of: Any, values_of: Any) -> list[Series]:
    """Return for each arm the mean over blocks with a band from the 10th to the 90th percentile.

    Args:
        summary: The comparison.
        palette: Colours of the arms.
        x_of: Takes the row of an arm and returns the (points,) x values.
        values_of: Takes the row of an arm and returns the (blocks, points) y values.
    """
    looks = _looks(summary, palette)
    series = []
    for row in summary["arms"]:
        values = np.atleast_2d(np.array(values_of(row), dtype=float))
        series.append(
            Series(
                x=list(x_of(row)),
                y=values.mean(0).tolist(),
                low=np.percentile(values, 10, axis=0).tolist(),
                high=np.percentile(values, 90, axis=0).tolist(),
                dash=palette.dash(row["fraction"]),
                **looks[row["arm"]],
            )
        )
    return series


def regret_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return how far the pick is from the best configuration at each cost of the study."""
    return Chart(
        key="regret-against-cost",
        title="How good the pick is at each cost of the study",
        x=f"cost of the study so far ({COST_UNIT})",
        y=f"regret of the pick (points of test {summary['metric']})",
        series=_bands(
            summary, palette, lambda row: summary["budgets"], lambda row: row["study"]["regret"]
        ),
        x_log=True,
        note=f"Regret: truth of the best configuration minus truth of the pick so far. {BAND}",
    )


def _run_cost(summary: Mapping[str, Any]) -> Any:
    """Return the function that gives the cost of an arm's run after each epoch."""
    return lambda row: [cost / summary["unit"] for cost in row["curves"]["cost"]]


def accuracy_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return mean validation accuracy of the configurations at each cost of a run."""
    return Chart(
        key="accuracy-against-cost",
        title=f"{summary['metric'].capitalize()} against cost of a run",
        x=f"cost of a run so far ({COST_UNIT})",
        y=f"validation {summary['metric']}, mean over configurations (points)",
        series=_bands(summary, palette, _run_cost(summary), lambda row: row["curves"]["accuracy"]),
        note=f"Scoring and validation are charged. {BAND}",
    )


def tau_against_cost(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return how well the accuracies so far rank the configurations."""
    return Chart(
        key="tau-against-cost",
        title=f"Does early {summary['metric']} rank the configurations?",
        x=f"cost of a run so far ({COST_UNIT})",
        y=f"Kendall's τ-b of validation {summary['metric']} and truth",
        series=_bands(summary, palette, _run_cost(summary), lambda row: row["curves"]["tau"]),
        note=f"1: the same order as the truth; 0: no relation. {BAND}",
    )


def learning_rates(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return last validation accuracy against learning rate: does the best one differ by arm?"""
    rows = [entry for entry in summary["configurations"] if "lr" in entry]
    rows.sort(key=lambda entry: float(entry["lr"]))
    looks = _looks(summary, palette)
    series = [
        Series(
            x=[entry["lr"] for entry in rows],
            y=[row["curves"]["last"][entry["configuration"]] for entry in rows],
            dash=palette.dash(row["fraction"]),
            **looks[row["arm"]],
        )
        for row in summary["arms"]
        if rows
    ]
    return Chart(
        key="learning-rates",
        title="Learning rate against outcome",
        x="learning rate",
        y=f"last validation {summary['metric']} (points, mean over blocks)",
        series=series,
        x_log=True,
        note="The configurations also differ in their other settings.",
    )


def forest(summary: Mapping[str, Any]) -> list[Chart]:
    """Return cost ratio and loss of the claim, block by block and pooled, with their limits."""
    verdict = summary["verdict"]
    if "per_block" not in verdict:
        return []
    blocks = verdict["per_block"]
    charts = []
    parts = [
        ("cost", "cost ratio", f"cost of {verdict['arm']} ÷ cost of {verdict['control']}"),
        ("loss", "loss of quality", "truth of uniform's pick − truth of the pick (points)"),
    ]
    if "gain" in verdict:
        parts = [("gain", "gain in hand", f"points ahead of {verdict['control']} at equal cost")]
    for key, title, y in parts:
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
                limits=[("y", pooled["limit"], f"limit: {_side(key)} {pooled['limit']:g}")],
            )
        )
    return charts


def _side(key: str) -> str:
    return "more than" if key == "gain" else "at most"


def in_hand(summary: Mapping[str, Any], palette: Palette) -> list[Chart]:
    """Return how good the model in hand is for all that was spent: uniform sampling, the claim, and
    what it is held against; empty where that was not asked."""
    verdict = summary["verdict"]
    if "gain" not in verdict:
        return []
    drawn = [verdict["control"], *(entry["way"] for entry in verdict["controls"]), verdict["arm"]]
    rows = {row["way"]: row for row in summary["in_hand"]}
    series = [
        Series(
            name=way,
            x=rows[way]["shares"],
            y=rows[way]["accuracies"],
            colour=palette.colour(way),
            dash=palette.dash(way.partition("@")[2].partition(" ")[0] or "1"),
        )
        for way in dict.fromkeys(drawn)
    ]
    return [
        Chart(
            key="in-hand",
            title="What one holds in the end, for all that was spent",
            x="total cost (1: the study of uniform sampling)",
            y="hidden-test accuracy of the model in hand (points)",
            series=series,
            note="A point for each number of trials, from one to all configurations; means over "
            "blocks and orders. Where another arm trains the pick, that is charged.",
        )
    ]


def pruned_when(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return for how many epochs each configuration is trained before it is pruned."""
    truth = [entry["truth"] for entry in summary["configurations"]]
    order = np.argsort(truth).tolist()
    looks = _looks(summary, palette)
    series = [
        Series(
            x=[truth[number] for number in order],
            y=[row["study"]["stopped"][number] for number in order],
            dash=palette.dash(row["fraction"]),
            labels=[f"configuration {number}" for number in order],
            **looks[row["arm"]],
        )
        for row in summary["arms"]
    ]
    return Chart(
        key="pruned-when",
        title="When each configuration is pruned",
        x=f"truth of a configuration (points of test {summary['metric']})",
        y="epochs that it is trained for (mean over blocks and orders)",
        series=series,
        note="A good pruner stops the configurations on the left early and those on the right "
        "never.",
    )


def seconds_by_phase(summary: Mapping[str, Any]) -> Chart:
    """Return the seconds of a whole run by phase."""
    phases = (
        ("stepping", "training steps", CONTROL),
        ("drawing", "choosing batches", OTHERS[0]),
        ("validating", "validation", OTHERS[1]),
    )
    claim = summary["searching"]
    policies = {row["policy"] for row in summary["arms"] if row["arm"] == claim}
    # Under another policy an arm takes as long.
    rows = [row for row in summary["arms"] if not policies or row["policy"] in policies]
    series = [
        Series(
            name,
            [row["arm"] for row in rows],
            [row["curves"]["seconds"][phase] for row in rows],
            kind="bars",
            colour=colour,
        )
        for phase, name, colour in phases
    ]
    return Chart(
        key="seconds-by-phase",
        title="Where the time of a run goes",
        x="arm",
        y="seconds of an unpruned run (mean)",
        series=series,
        note="The machine may have run other things at the same time. The verdict counts passes, "
        "not seconds.",
    )


def pareto(summary: Mapping[str, Any], palette: Palette) -> Chart:
    """Return total cost against quality of the pick, one point for each arm and pruner."""
    unit = summary["unit"]
    looks = _looks(summary, palette)
    series = [
        Series(
            x=[float(np.mean(row["study"]["cost"])) / unit],
            y=[float(np.mean(row["study"]["quality"]))],
            low=[float(np.percentile(row["study"]["quality"], 10))],
            high=[float(np.percentile(row["study"]["quality"], 90))],
            kind="points",
            **looks[row["arm"]],
        )
        for row in summary["arms"]
    ]
    uniform = [row for row in summary["pruners"] if row["arm"].partition(" (")[0] == UNIFORM]
    if uniform:
        series.append(
            Series(
                "uniform under other pruners",
                [row["cost"] / unit for row in uniform],
                [row["quality"] for row in uniform],
                kind="points",
                colour=OTHER_PRUNERS,
                labels=[row["pruner"] for row in uniform],
            )
        )
    return Chart(
        key="pareto",
        title="Cost of a study against quality of its pick",
        x=f"cost of the study ({COST_UNIT})",
        y=f"truth of the pick (points of test {summary['metric']})",
        series=series if summary["arms"] else [],
        x_log=True,
        limits=[("y", summary["random_pick"], "a random pick")],
        note="Left and up is better. Bars from the 10th to the 90th percentile of the blocks.",
    )


def curves_chart(curves: Mapping[str, Curves], *, control: str, metric: str) -> Chart:
    """Return mean accuracy against cost of the arms of `compare-samplers`, with 95 % intervals of
    the mean over runs.

    Args:
        curves: The curves of each arm, the control among them.
        control: The arm whose first epoch is the unit of cost.
        metric: What the accuracies are, in words.
    """
    unit = float(curves[control].cost[0])
    palette = Palette([arm for arm in curves if arm != control])
    series = []
    for arm in curves.values():
        mean = arm.accuracy.mean(axis=0)
        n_runs = len(arm.accuracy)
        half = (
            1.96 * arm.accuracy.std(axis=0, ddof=1) / math.sqrt(n_runs) if n_runs > 1 else 0 * mean
        )
        colour, dash = (CONTROL, "solid") if arm.arm == control else palette.line(arm.arm)
        series.append(
            Series(
                arm.arm,
                (arm.cost / unit).tolist(),
                mean.tolist(),
                (mean - half).tolist(),
                (mean + half).tolist(),
                colour=colour,
                dash=dash,
            )
        )
    return Chart(
        key="accuracy-against-cost",
        title=f"{metric.capitalize()} against cost of a run",
        x=f"cost (epochs of {control}; scoring and validation charged)",
        y=f"validation {metric} (mean over configurations and seeds)",
        series=series,
        note="Bands: 95 % intervals of the mean over runs.",
    )

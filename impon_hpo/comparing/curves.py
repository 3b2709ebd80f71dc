"""The curves of a grid: mean accuracy by epoch and by cost, each arm beside the control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impon_hpo.errors import ConfigError
from impon_hpo.storage.trials import flat_epoch

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """What one arm reached in its runs, which are the same configurations and seeds in all arms.

    Args:
        arm: Name of the arm.
        accuracy: (runs, epochs) validation accuracy; a run that diverged keeps its last one, and
            chance where there is none.
        cost: (epochs,) mean forward-equivalents up to each epoch, without the reference.
        reference_cost: Forward-equivalents of the reference; paid once a study.
        step_seconds: Median seconds of drawing and stepping a row.
        rank_correlation: Mean of the epochs' rank correlations of predicted and observed loss (or
            reducible loss, for `impon-memory`); nan where nothing is predicted.
        n_ended: Runs that diverged.
    """

    arm: str
    accuracy: Numbers
    cost: Numbers
    reference_cost: float
    step_seconds: float
    rank_correlation: float
    n_ended: int


def curves_of(results: Sequence[dict[str, Any]], *, chance: float) -> dict[str, Curves]:
    """Return the curves of each arm, in the order in which the arms appear.

    Args:
        results: The results of a whole grid, or of a part of it.
        chance: Accuracy of guessing.
    """
    arms: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        arms.setdefault(result["arm"], []).append(result)
    return {arm: _curves(arm, runs, chance) for arm, runs in arms.items()}


def _curves(arm: str, runs: list[dict[str, Any]], chance: float) -> Curves:
    horizon = runs[0]["horizon"]
    accuracy = np.array([_filled(run, horizon, chance) for run in runs])
    whole = [run for run in runs if len(run["epochs"]) == horizon]
    costs = [np.cumsum([epoch["cost"] for epoch in run["epochs"]]) for run in whole]
    seconds = [
        (epoch["seconds_drawing"] + epoch["seconds_stepping"]) / epoch["rows_trained"]
        for run in runs
        for epoch in run["epochs"]
    ]
    ranks = [
        epoch["diagnostics"]["rank_correlation"]
        for run in runs
        for epoch in run["epochs"]
        if "rank_correlation" in epoch["diagnostics"]
    ]
    return Curves(
        arm=arm,
        accuracy=accuracy,
        cost=np.mean(costs, axis=0) if costs else np.full(horizon, math.nan),
        reference_cost=float(np.mean([run["reference_cost"] for run in runs])),
        step_seconds=float(np.median(seconds)) if seconds else math.nan,
        rank_correlation=float(np.mean(ranks)) if ranks else math.nan,
        n_ended=sum(bool(run["ended"]) for run in runs),
    )


def _filled(run: dict[str, Any], horizon: int, chance: float) -> list[float]:
    reached = [epoch["val_accuracy"] for epoch in run["epochs"]]
    return reached + [reached[-1] if reached else chance] * (horizon - len(reached))


def cost_to_reach(accuracy: Numbers, cost: Numbers, target: float) -> float:
    """Return the cost at which an accuracy is reached first; inf where it never is.

    Between two epochs accuracy counts as growing linearly with cost; within the first one, not.

    Args:
        accuracy: (epochs,) mean accuracy after each epoch.
        cost: (epochs,) cost up to each epoch.
        target: The accuracy asked for.
    """
    above = np.flatnonzero(accuracy >= target)
    if len(above) == 0:
        return math.inf
    after = int(above[0])
    if after == 0:
        return float(cost[0])
    share = (target - accuracy[after - 1]) / (accuracy[after] - accuracy[after - 1])
    return float(cost[after - 1] + share * (cost[after] - cost[after - 1]))


def cost_ratio(arm: Curves, control: Curves, epoch: int) -> float:
    """Return the cost at which `arm` reaches the control's mean accuracy of `epoch`, as a share of
    what the control paid for it; inf where it never does."""
    target = float(control.accuracy[:, epoch - 1].mean())
    reached = cost_to_reach(arm.accuracy.mean(axis=0), arm.cost, target)
    return float(reached / control.cost[epoch - 1])


def table(
    curves: dict[str, Curves], *, control: str, epochs: Sequence[int], targets: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a row for each arm: mean accuracy after `epochs`, the last one's difference to the
    control with its standard error over paired runs, and cost to reach the control's accuracies.

    Raises:
        ConfigError: The control is not among the arms.
    """
    if control not in curves:
        raise ConfigError(f"The control '{control}' is not among the arms: {', '.join(curves)}.")
    base = curves[control]
    rows = []
    for arm in curves.values():
        row: dict[str, Any] = {"arm": arm.arm, "runs": len(arm.accuracy)}
        for epoch in epochs:
            row[f"epoch_{epoch}"] = round(float(arm.accuracy[:, epoch - 1].mean()), 4)
        if len(arm.accuracy) == len(base.accuracy):
            difference = 100 * (arm.accuracy[:, -1] - base.accuracy[:, -1])
            spread = float(difference.std(ddof=1)) if len(difference) > 1 else math.nan
            row["last_minus_control_points"] = round(float(difference.mean()), 2)
            row["standard_error"] = round(spread / math.sqrt(len(difference)), 2)
        for epoch in targets:
            row[f"cost_to_control_epoch_{epoch}"] = round(cost_ratio(arm, base, epoch), 2)
        row["step_cost"] = round(float(arm.cost[-1] / base.cost[-1]), 2)
        row["step_seconds"] = round(arm.step_seconds / base.step_seconds, 2)
        row["rank_correlation"] = round(arm.rank_correlation, 2)
        row["reference_cost"] = round(arm.reference_cost)
        row["diverged"] = arm.n_ended
        rows.append(row)
    return rows


def epoch_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for every epoch of every run: arm, seed, configuration and all its fields."""
    return [
        {"arm": result["arm"], "seed": result["seed"]} | result["params"] | flat_epoch(epoch)
        for result in results
        for epoch in result["epochs"]
    ]

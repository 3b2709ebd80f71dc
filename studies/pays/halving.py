"""Replays halvings over the recordings of a comparison: Optuna's, and the one that promotes.

uv run python studies/pays/halving.py [--recordings FOLDER] [--trials N]…

Every arm and control under the cosine schedule, with both kinds of weights, is replayed under
Optuna's `SuccessiveHalvingPruner` and under "promote", async and sync, at several reduction
factors and sizes of study. A study of each size is replayed on its own. It writes halving.csv into
the folder of recordings: a row for each, with one-sided 95 % bounds over the blocks; and
halving-places.csv: how often the best configuration is pruned, by when it comes.

It was written after the recordings were made, so what it says are leads, not findings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from impon_hpo.cli.app import main
from impon_hpo.comparing.arms import UNIFORM, Arm, arms_of, uniform_of
from impon_hpo.comparing.outcomes import (
    Outcome,
    Truth,
    complete_blocks,
    curves_of_arm,
    outcome,
    replay_study,
)
from impon_hpo.comparing.outcomes import orders as random_orders
from impon_hpo.comparing.recordings_table import Recordings, read_recordings
from impon_hpo.comparing.verdict import estimate
from impon_hpo.console import print_line, print_table
from impon_hpo.errors import ConfigError
from impon_hpo.files import write_csv
from impon_hpo.tuning.study_file import read_study_file

HERE = Path(__file__).parent
SCHEDULE = "cosine"
FACTORS = (2, 3, 4)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclasses.dataclass(frozen=True)
class Halving:
    """A halving that is replayed.

    Args:
        name: How the table calls it.
        factor: Its reduction factor.
        pruner: `[pruner]` of a study file.
    """

    name: str
    factor: int
    pruner: dict[str, Any]


def halvings() -> Iterator[Halving]:
    """Yield the halvings, Optuna's first."""
    for factor in FACTORS:
        optuna = {"name": "SuccessiveHalvingPruner", "min_resource": 1}
        yield Halving("Optuna's", factor, optuna | {"reduction_factor": factor})
    for mode in ("async", "sync"):
        for factor in FACTORS:
            promote = {"name": "promote", "mode": mode, "reduction_factor": factor}
            yield Halving(f"promote, {mode}", factor, promote)


@app.command()
def halving(
    study: Annotated[str, typer.Argument(metavar="STUDY")] = str(HERE),
    recordings: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Default: the study's folder.")
    ] = None,
    trials: Annotated[
        list[int] | None, typer.Option(min=2, help="Size of a study; may be repeated.")
    ] = None,
    orders: Annotated[int, typer.Option(min=1, help="Random orders a block.")] = 50,
) -> None:
    """Replay halvings over the recordings of a comparison: Optuna's, and the one that promotes."""
    study_file = read_study_file(study, check_samplers=False)
    folder = recordings or study_file.folder
    recorded = read_recordings(folder)
    n = study_file.protocol.n_configurations
    sizes = trials or [8, 11]
    if max(sizes) > n:
        raise ConfigError(f"--trials must be at most {n}, the configurations of the recordings.")
    arms = [arm for arm in arms_of(study_file) if arm.policy.schedule == SCHEDULE]
    truth = Truth(recorded, arms_of(study_file)[0], n)
    rows: list[dict[str, Any]] = []
    for size in sizes:
        rows += rows_of_size(recorded, arms, truth, size, orders)
    write_csv(folder / "halving.csv", rows)
    print_table(f"{study_file.name}: halvings", rows)
    uniform = [arm for arm in arms if arm.kind == UNIFORM]
    places = [
        row
        for size in sizes
        for arm in uniform
        for row in rows_by_place(recorded, arm, truth, size, orders)
    ]
    write_csv(folder / "halving-places.csv", places)
    print_table("how often the best configuration is pruned, by when it comes", places)
    print_line(f"these tables: {folder / 'halving.csv'}, {folder / 'halving-places.csv'}")


def rows_of_size(
    recordings: Recordings, arms: list[Arm], truth: Truth, n_trials: int, orders: int
) -> list[dict[str, Any]]:
    """Return the rows of all halvings and arms for studies of `n_trials` trials.

    Costs are ratios to uniform sampling's under Optuna's halving at η = 3 and the first policy; and
    to the same arm's with the same weights under Optuna's halving at η = 3.
    """
    outcomes: dict[tuple[str, int], dict[str, Outcome]] = {}
    for entry in halvings():
        outcomes[entry.name, entry.factor] = {
            arm.name: outcome(
                recordings,
                arm,
                truth,
                entry.pruner,
                n_trials=n_trials,
                n_orders=orders,
                budgets={},
                budget_grid=(),
            )
            for arm in arms
        }
    unit = outcomes["Optuna's", 3][arms[0].name].cost
    best = np.array([truth.of(block).max() for block in truth.blocks])
    rows = []
    for (name, factor), by_arm in outcomes.items():
        for arm in arms:
            mine, uniform = by_arm[arm.name], by_arm[uniform_of(arm, arms).name]
            optunas = outcomes["Optuna's", 3][arm.name]
            if mine.blocks != uniform.blocks or len(mine.blocks) < 2:
                continue
            rows.append(
                {
                    "halving": name,
                    "η": factor,
                    "trials": n_trials,
                    "weights": arm.policy.weights,
                    "arm": arm.name.partition(" (")[0],
                    "epochs": f"{mine.epochs.mean():.1f}",
                    "cost ratio": _interval(np.log(mine.cost / unit), exponential=True),
                    "regret (points)": _interval(best - mine.quality),
                    "best lost": f"{mine.lost_best.mean():.0%}",
                    "cost to Optuna's": _interval(
                        np.log(mine.cost / optunas.cost), exponential=True
                    ),
                    "regret minus Optuna's": _against(optunas.quality - mine.quality),
                    "in hand minus Optuna's": _against(mine.own - optunas.own),
                    "regret minus uniform's": _against(uniform.quality - mine.quality),
                    "in hand minus uniform's": _against(mine.own - uniform.own),
                }
            )
    return rows


def rows_by_place(
    recordings: Recordings, arm: Arm, truth: Truth, n_trials: int, n_orders: int
) -> list[dict[str, Any]]:
    """Return in how many of the studies the best of the configurations that are tried was pruned,
    by its place in their order, at η = 3: a row for each halving."""
    n = truth.by_block.shape[1]
    rows = []
    for entry in halvings():
        if entry.factor != 3:
            continue
        lost: list[list[bool]] = [[] for _ in range(n_trials)]
        for block in complete_blocks(recordings, arm, n):
            curves = curves_of_arm(recordings, arm, block, n)
            worth = truth.of(block)
            for order in random_orders(n, n_orders, block):
                tried = order[:n_trials]
                study = replay_study(curves, tried, entry.pruner)
                best = max(tried, key=lambda number: worth[number])
                lost[tried.index(best)].append(study.stopped[best] < curves[best].horizon)
        # Configuration 0 is always the first, so that place says nothing of the others.
        shares = {
            f"comes {place + 1}.": f"{np.mean(told):.0%}" if told else ""
            for place, told in enumerate(lost)
            if place
        }
        row = {"halving": entry.name, "trials": n_trials, "weights": arm.policy.weights}
        rows.append(row | shares)
    return rows


def _against(difference: NDArray[np.float64]) -> str:
    """Return a difference with its bounds, and in how many blocks it is above 0."""
    if not difference.any():
        return "0"
    return f"{_interval(difference, signed=True)}, above 0 in {(difference > 0).sum()}"


def _interval(
    values: NDArray[np.float64], *, exponential: bool = False, signed: bool = False
) -> str:
    """Return a mean over blocks with its one-sided 95 % bounds."""
    mean = estimate(values, 0.0)
    numbers = (mean.point, mean.lower, mean.upper)
    if exponential:
        numbers = tuple(float(np.exp(number)) for number in numbers)  # type: ignore[assignment]
    point, lower, upper = (f"{number:+.2f}" if signed else f"{number:.2f}" for number in numbers)
    return f"{point} [{lower}, {upper}]"


if __name__ == "__main__":
    main(app)

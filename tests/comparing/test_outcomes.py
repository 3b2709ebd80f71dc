"""Outcomes: cost, truth and quality of picks on recordings that can be worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from impon_hpo.comparing.arms import Arm, arms_of
from impon_hpo.comparing.outcomes import (
    FINISH_BEST,
    Truth,
    complete_blocks,
    curves_of_arm,
    orders,
    outcome,
)
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.errors import ConfigError
from tests.comparing.comparisons import compared_study

NOTHING: dict[str, Any] = {"name": "NopPruner"}
N = 4


def arms() -> dict[str, Arm]:
    study_file = compared_study("run.epochs=2", f"compare.configurations={N}")
    return {arm.name: arm for arm in arms_of(study_file)}


def rows(
    training: str,
    block: int,
    tests: list[float],
    *,
    validation: list[float] | None = None,
    cost: float = 10.0,
    skip_first: bool = False,
) -> list[dict[str, Any]]:
    """Return two epochs of each configuration, with the same accuracies after both."""
    return [
        {
            "training": training,
            "block": block,
            "configuration": number,
            "epoch": epoch,
            "val_accuracy_last": (validation or tests)[number] / 100,
            "test_accuracy_last": tests[number] / 100,
            "cost": cost,
            "reference_cost": 0,
        }
        for number in range(int(skip_first), len(tests))
        for epoch in (1, 2)
    ]


UNIFORM = [
    *rows("uniform cosine", 0, [10.0, 20.0, 30.0, 40.0]),
    *rows("uniform cosine", 1, [20.0, 30.0, 50.0, 40.0]),
    *rows("uniform cosine", 2, [30.0, 40.0, 20.0, 60.0]),
]


def made(extra: list[dict[str, Any]]) -> Recordings:
    return Recordings([*UNIFORM, *extra], {})


def replayed(recordings: Recordings, arm: Arm, **given: Any) -> Any:
    truth = Truth(recordings, arms()["uniform"], N)
    settings: dict[str, Any] = {
        "pruner": NOTHING,
        "n_trials": N,
        "n_orders": 3,
        "budgets": {},
        "budget_grid": (),
    }
    settings |= given
    return outcome(recordings, arm, truth, settings.pop("pruner"), **settings)


def test_truth_leaves_the_judged_block_out() -> None:
    truth = Truth(made([]), arms()["uniform"], N)
    assert truth.of(0).tolist() == [25.0, 35.0, 35.0, 50.0]
    assert truth.of(2).tolist() == [15.0, 25.0, 40.0, 40.0]


def test_run_that_diverged_is_worth_nothing() -> None:
    recordings = made([])
    broken = [row for row in recordings.rows if not (row["block"] == 1 and row["epoch"] == 2)]
    lost = {"training": "uniform cosine", "block": 1, "epoch": 2, "cost": 3, "ended": "nan"}
    ended = [lost | {"configuration": number} for number in range(N)]
    truth = Truth(Recordings([*broken, *ended], {}), arms()["uniform"], N)
    assert truth.of(0).tolist() == [15.0, 20.0, 10.0, 30.0]


def test_one_block_is_no_comparison() -> None:
    with pytest.raises(ConfigError, match=r"at least 2 blocks.* but 1 are recorded"):
        Truth(Recordings(rows("uniform cosine", 0, [1.0] * N), {}), arms()["uniform"], N)


def test_quality_is_the_truth_of_the_pick_and_not_what_the_arm_saw() -> None:
    # This arm sees the first configuration ahead, which others know to be the worst.
    extra = rows("impon cosine", 0, [15.0, 2.0, 3.0, 4.0], validation=[99.0, 2.0, 3.0, 4.0])
    found = replayed(made(extra), arms()["impon"])
    assert found.blocks == (0,)
    assert found.quality.tolist() == [25.0]
    assert found.own.tolist() == [15.0]
    assert found.cost.tolist() == [80.0]
    assert found.lost_best.tolist() == [0.0]


def test_arm_that_is_taught_has_its_teacher_s_first_run() -> None:
    arm = arms()["memory"]
    extra = rows("memory cosine", 1, [0.0, 31.0, 32.0, 33.0], skip_first=True, cost=7.0)
    recordings = made(extra)
    curves = curves_of_arm(recordings, arm, 1, N)
    assert curves[0].accuracy == (0.2, 0.2)
    assert curves[0].cost == (10.0, 10.0)
    assert curves[3].accuracy == (0.33, 0.33)
    assert complete_blocks(recordings, arm, N) == [1]
    found = replayed(recordings, arm)
    assert found.cost.tolist() == [20 + 3 * 14]


def test_block_that_is_not_complete_is_left_out() -> None:
    extra = rows("impon cosine", 0, [1.0] * N) + rows("impon cosine", 1, [1.0] * (N - 1))
    assert replayed(made(extra), arms()["impon"]).blocks == (0,)


def test_reference_is_charged_once_a_study() -> None:
    extra = [row | {"reference_cost": 1000} for row in rows("impon cosine", 0, [1.0] * N)]
    found = replayed(made(extra), arms()["impon"], budget_grid=(999.0, 1200.0))
    assert found.cost.tolist() == [1080.0]
    # Before it is paid there is no pick: as good as a blind one.
    assert found.regret[0].tolist() == [50 - 36.25, 25.0]


def test_budget_buys_more_trials_than_a_study_has() -> None:
    found = replayed(
        made([]), arms()["uniform"], n_trials=2, budgets={0: 80.0, 1: 20.0, 2: 0.0}, n_orders=20
    )
    assert found.cost.tolist() == [40.0] * 3
    assert found.budget_quality[0] == 50.0  # all four, the best among them
    assert found.budget_quality[1] == Truth(made([]), arms()["uniform"], N).of(1)[0]  # the first
    assert found.budget_quality[2] == 30.0  # none: a blind pick
    assert found.quality[0] < 50.0


def test_best_that_is_pruned_is_counted_among_those_tried() -> None:
    halving = {"name": "SuccessiveHalvingPruner", "reduction_factor": 2}
    # What is best in truth looks worst after every epoch.
    extra = rows("impon cosine", 0, [40.0, 30.0, 20.0, 10.0])
    found = replayed(made(extra), arms()["impon"], pruner=halving, n_orders=8)
    assert found.lost_best.tolist() == [1.0]
    assert found.stopped[0] == 2.0
    assert found.stopped[3] == 1.0
    assert found.epochs[0] == found.stopped.sum()
    assert found.n_complete < N


PROMOTE: dict[str, Any] = {"name": "promote", "reduction_factor": 2, "mode": "sync"}


def test_each_size_of_a_study_that_promotes_is_a_study_of_its_own() -> None:
    found = replayed(made([]), arms()["uniform"], pruner=PROMOTE, n_trials=3, n_orders=1)
    # Three train one epoch, and the best of them one more.
    assert found.epochs.tolist() == [4.0] * 3
    assert found.cost.tolist() == [40.0] * 3
    assert found.n_complete == 1
    # A budget buys the largest study that it pays for whole: of one, two or three trials.
    truth = Truth(made([]), arms()["uniform"], N)
    order = orders(N, 1, 0)[0]
    worth = truth.of(0)
    for budget, size in ((20, 1), (30, 2), (39, 2), (40, 3)):
        bought = replayed(
            made([]), arms()["uniform"], pruner=PROMOTE, n_orders=1, budgets={0: budget}
        )
        best = max(order[:size], key=lambda number: [10, 20, 30, 40][number])
        assert bought.budget_quality[0] == worth[best]


def test_arm_too_short_for_a_rung_trains_to_its_end() -> None:
    promote = PROMOTE | {"min_resource": 2}
    found = replayed(made([]), arms()["uniform"], pruner=promote)
    assert found.epochs.tolist() == [2.0 * N] * 3


def test_teacher_is_charged_to_its_end_where_trials_wait() -> None:
    extra = rows("memory cosine", 0, [0.0, 90.0, 20.0, 30.0], skip_first=True)
    arm = arms()["memory"]
    assert arm.taught
    found = replayed(made(extra), arm, pruner=PROMOTE, n_orders=1)
    # The teacher trains two epochs, the others one, and the two best of four go on.
    assert found.epochs.tolist() == [2.0 + 3 + 2]


def test_baseline_without_pruner_finishes_a_quarter() -> None:
    found = replayed(made([]), arms()["uniform"], pruner={"name": FINISH_BEST})
    assert found.cost.tolist() == [50.0] * 3
    assert found.quality.tolist() == [50.0, 25.0, 40.0]


def test_orders_are_the_same_for_all_arms_and_begin_with_the_teacher() -> None:
    found = orders(N, 5, block=2)
    assert found == orders(N, 5, block=2)
    assert found != orders(N, 5, block=3)
    assert all(order[0] == 0 and sorted(order) == list(range(N)) for order in found)
    assert len({tuple(order) for order in found}) > 1


def test_horizon_of_a_short_arm_is_its_own() -> None:
    short = arms()["uniform-short@1/2"]
    extra = [row for row in rows(short.training, 0, [1.0, 2.0, 3.0, 4.0]) if row["epoch"] == 1]
    found = replayed(made(extra), short)
    assert found.epochs.tolist() == [4.0]
    assert found.quality.tolist() == [50.0]
    assert dataclasses.asdict(found)["n_complete"] == N
    assert np.all(found.stopped == 1)

"""Fidelity: rank correlation, overlap and regret, worked by hand on recordings made up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from impon_hpo.comparing.arms import Arm
from impon_hpo.comparing.fidelity import Fidelity, fidelity
from impon_hpo.comparing.outcomes import Truth
from impon_hpo.comparing.recordings_table import Recordings
from tests.comparing.comparisons import compared_study
from tests.comparing.tiny import arms_by_name
from tests.comparing.worlds import Effect, World

WORTH = [10.0, 40.0, 30.0, 20.0]
"""Truth of four configurations, the same in every block."""


def arms(n: int = len(WORTH)) -> dict[str, Arm]:
    return arms_by_name(compared_study("run.epochs=2", f"compare.configurations={n}"))


def rows(
    training: str, seen: list[list[float]], *, block: int = 0, cost: float = 10.0
) -> list[dict[str, Any]]:
    """Return the rows of configurations that have these validation accuracies, epoch by epoch;
    those of one epoch fewer ended in the next."""
    found: list[dict[str, Any]] = []
    for number, points in enumerate(seen):
        head = {"training": training, "block": block, "configuration": number}
        for epoch in (1, 2):
            if epoch <= len(points):
                here = head | {"epoch": epoch, "cost": cost * (number + 1)}
                here |= {"val_accuracy_last": points[epoch - 1] / 100}
                here |= {f"seconds_{phase}": 2.0 for phase in ("drawing", "validating")}
                found.append(here | {"seconds_stepping": float(number)})
            elif epoch == len(points) + 1:
                found.append(head | {"epoch": epoch, "cost": cost, "ended": "nan"})
    return found


def uniform(worth: list[float], block: int) -> list[dict[str, Any]]:
    """Return uniform runs that are worth so much, and look it."""
    points = dict(enumerate(worth))
    return [
        row | {"test_accuracy_last": points[row["configuration"]] / 100}
        for row in rows("uniform cosine", [[value] * 2 for value in worth], block=block)
    ]


TRUTH = [*uniform(WORTH, 0), *uniform(WORTH, 1), *uniform(WORTH, 2)]


def measured(seen: list[list[float]], **given: Any) -> Fidelity:
    found = Recordings([*TRUTH, *rows("impon cosine", seen, **given)], {})
    result = fidelity(found, arms()["impon"], Truth(found, arms()["uniform"], len(WORTH)))
    assert result is not None
    return result


def of(first: list[float], last: list[float] | None = None) -> list[list[float]]:
    """Return the curves of configurations with these accuracies after the two epochs."""
    return [list(pair) for pair in zip(first, last or first, strict=True)]


@pytest.mark.parametrize(
    ("seen", "tau"),
    [
        ([1.0, 4.0, 3.0, 2.0], 1.0),
        ([4.0, 1.0, 2.0, 3.0], -1.0),
        ([1.0, 3.0, 4.0, 2.0], 2 / 3),  # one of six pairs the wrong way round
        ([1.0, 3.0, 3.0, 2.0], 5 / math.sqrt(5 * 6)),  # one pair tied
        ([2.0, 2.0, 1.0, 1.0], 0.0),  # C = D = 2
        ([5.0, 5.0, 5.0, 5.0], 0.0),  # nothing is ranked
    ],
)
def test_tau_b(seen: list[float], tau: float) -> None:
    assert measured(of(seen)).tau == pytest.approx(np.full((1, 2), tau))


@pytest.mark.parametrize(
    ("seen", "overlap", "regret", "regret_of_3"),
    [
        ([1.0, 4.0, 3.0, 2.0], 1.0, 0.0, 0.0),
        ([4.0, 1.0, 2.0, 3.0], 2 / 3, 30.0, 10.0),  # the worst is seen best, the best is not seen
        ([2.0, 3.0, 1.0, 4.0], 2 / 3, 20.0, 0.0),
        ([1.0, 2.0, 4.0, 3.0], 1.0, 10.0, 0.0),
    ],
)
def test_overlap_and_regret(
    seen: list[float], overlap: float, regret: float, regret_of_3: float
) -> None:
    found = measured(of(seen))
    assert found.overlap == pytest.approx(np.full((1, 2), overlap))
    assert found.regret == pytest.approx(np.full((1, 2), regret))
    assert found.regret_of_3 == pytest.approx(np.full((1, 2), regret_of_3))


def test_each_epoch_is_judged_by_what_is_seen_after_it() -> None:
    found = measured(of([4.0, 1.0, 2.0, 3.0], [1.0, 4.0, 3.0, 2.0]))
    assert found.tau.tolist() == [[-1.0, 1.0]]
    assert found.regret.tolist() == pytest.approx(np.array([[30.0, 0.0]]))
    assert found.accuracy == pytest.approx(np.array([[2.5, 2.5]]))
    assert found.last == pytest.approx(np.array([1.0, 4.0, 3.0, 2.0]))


def test_block_is_judged_by_the_truth_of_the_others() -> None:
    turned = [40.0, 10.0, 20.0, 30.0]
    found = Recordings(
        [
            *uniform(turned, 0),
            *uniform(WORTH, 1),
            *uniform(WORTH, 2),
            *rows("impon cosine", of(turned), block=0),
        ],
        {},
    )
    result = fidelity(found, arms()["impon"], Truth(found, arms()["uniform"], 4))
    assert result is not None
    assert result.tau[0, -1] == -1.0  # 1, if the block's own truth had been looked at
    assert result.regret[0, -1] == pytest.approx(30.0)


def test_diverged_run_keeps_its_last_accuracy_and_one_without_has_none() -> None:
    found = measured([[10.0], [40.0, 40.0], [30.0, 30.0], [50.0]])
    assert found.last == pytest.approx(np.array([10.0, 40.0, 30.0, 50.0]))
    assert found.regret[0, 1] == pytest.approx(20.0)
    without = measured([[10.0, 10.0], [40.0, 40.0], [30.0, 30.0], []])
    assert without.last == pytest.approx(np.array([10.0, 40.0, 30.0, 0.0]))
    assert without.tau[0, 0] == pytest.approx(4 / 6)  # below configuration 0, which is worse


def test_cost_is_the_mean_of_runs_that_came_to_their_end() -> None:
    """Without the first, which may be another arm's."""
    whole = measured(of(WORTH), cost=10.0)
    assert whole.cost.tolist() == [30.0, 60.0]  # of 20, 30 and 40 an epoch
    part = measured([[1.0, 1.0], [1.0, 1.0], [1.0], [1.0, 1.0]], cost=10.0)
    assert part.cost.tolist() == [30.0, 60.0]  # of 20 and 40
    none = measured([[1.0, 1.0], [1.0], [1.0], []])
    assert np.isnan(none.cost).tolist() == [True, True]


def test_seconds_are_those_of_a_whole_run() -> None:
    found = measured(of(WORTH))
    assert found.seconds == {"drawing": 4.0, "stepping": 4.0, "validating": 4.0}


def test_taught_arm_is_seen_with_its_teacher_s_first_run() -> None:
    study = arms()
    taught = rows("memory cosine", of([0.0, 4.0, 3.0, 2.0]))
    found = Recordings([*TRUTH, *(row for row in taught if row["configuration"] > 0)], {})
    result = fidelity(found, study["memory"], Truth(found, study["uniform"], 4))
    assert result is not None
    assert result.last == pytest.approx(np.array([10.0, 4.0, 3.0, 2.0]))
    assert result.cost.tolist() == [30.0, 60.0]


def test_blocks_are_those_that_arm_and_truth_have() -> None:
    more = [*rows("impon cosine", of(WORTH), block=2), *rows("impon cosine", of(WORTH), block=7)]
    half = [row for row in rows("impon cosine", of(WORTH), block=1) if row["configuration"] != 2]
    found = Recordings([*TRUTH, *more, *half], {})
    truth = Truth(found, arms()["uniform"], 4)
    result = fidelity(found, arms()["impon"], truth)
    assert result is not None
    assert result.blocks == (2,)
    assert result.tau.shape == result.regret.shape == (1, 2)
    assert fidelity(found, arms()["memory"], truth) is None


def test_last_is_the_mean_over_blocks() -> None:
    extra = rows("impon cosine", of([30.0, 20.0, 10.0, 0.0]), block=1)
    first = rows("impon cosine", of([10.0, 40.0, 30.0, 20.0]), block=0)
    found = Recordings([*TRUTH, *first, *extra], {})
    result = fidelity(found, arms()["impon"], Truth(found, arms()["uniform"], 4))
    assert result is not None
    assert result.last == pytest.approx(np.array([20.0, 30.0, 20.0, 10.0]))
    assert result.accuracy[:, 0] == pytest.approx(np.array([25.0, 15.0]))


def test_both_of_two_configurations_are_the_best_three() -> None:
    worth = [10.0, 20.0]
    seen = rows("impon cosine", of([2.0, 1.0]))
    found = Recordings([*uniform(worth, 0), *uniform(worth, 1), *seen], {})
    result = fidelity(found, arms(2)["impon"], Truth(found, arms(2)["uniform"], 2))
    assert result is not None
    assert result.overlap.tolist() == [[1.0, 1.0]]


def test_arm_that_judges_by_something_else_is_less_faithful() -> None:
    study = compared_study("run.epochs=9", "compare.configurations=12", 'compare.arms=["impon"]')
    named = arms_by_name(study)
    found = World({"importance": Effect(distortion=12.0)}).recordings(
        [named["uniform"], named["impon"]], n_blocks=4, seed=0
    )
    truth = Truth(found, named["uniform"], 12)
    plain, distorted = (fidelity(found, named[name], truth) for name in ("uniform", "impon"))
    assert plain is not None
    assert distorted is not None
    assert plain.tau[:, -1].mean() > distorted.tau[:, -1].mean() + 0.2
    assert plain.regret[:, -1].mean() < distorted.regret[:, -1].mean()
    assert plain.tau[:, -1].mean() > plain.tau[:, 0].mean()  # a run shows its worth by and by

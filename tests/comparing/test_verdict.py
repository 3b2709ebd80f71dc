"""The verdict: bounds, exact test, and what is said when neither side is shown."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.comparing.outcomes import Outcome
from impon_hpo.comparing.verdict import (
    INCONCLUSIVE,
    REFUTED,
    SUPPORTED,
    estimate,
    judge,
    sign_flip_p,
)

SPREAD = np.array([-0.2, 0.1, 0.0, 0.15, -0.1, 0.05])


def outcome(
    cost: float | list[float],
    quality: list[float],
    *,
    arm: str = "arm",
    blocks: tuple[int, ...] | None = None,
    budget: list[float] | None = None,
) -> Outcome:
    n = len(quality)
    nothing = np.zeros(n)
    return Outcome(
        arm=arm,
        blocks=tuple(range(n)) if blocks is None else blocks,
        cost=np.full(n, cost) if isinstance(cost, float) else np.array(cost),
        quality=np.array(quality),
        own=nothing,
        budget_quality=np.array(quality if budget is None else budget),
        regret=np.zeros((n, 0)),
        epochs=nothing,
        lost_best=nothing,
        lost_top=nothing,
        stopped=nothing,
        size_costs=np.zeros((n, 1, 0)),
        size_picks=np.zeros((n, 1, 0), dtype=np.int64),
        n_complete=1.0,
    )


UNIFORM = outcome(100.0, [50.0] * 6, arm="uniform")


@pytest.mark.parametrize(
    ("cost", "loss", "word"),
    [
        (40.0, 0.0, SUPPORTED),
        (49.9, 0.0, SUPPORTED),
        (50.0, 0.0, INCONCLUSIVE),  # not shown to lie on either side
        (40.0, 5.0, REFUTED),
        (60.0, 0.0, REFUTED),
        (40.0, 1.0, INCONCLUSIVE),
        (60.0, 1.0, REFUTED),
    ],
)
def test_word(cost: float, loss: float, word: str) -> None:
    arm = outcome(cost, (50 - loss + SPREAD).tolist())
    found = judge(arm, UNIFORM, cost_ratio=0.5, margin=1.0)
    assert found is not None
    assert found.word == word
    assert found.cost.point == pytest.approx(cost / 100)
    assert found.loss.point == pytest.approx(loss)
    assert (found.more_blocks == 0) == (word != INCONCLUSIVE)


def test_pairs_are_of_the_same_block() -> None:
    uniform = outcome([100.0, 200.0, 400.0], [50.0, 60.0, 70.0], blocks=(1, 2, 5))
    arm = outcome([800.0, 100.0], [69.0, 59.0], blocks=(5, 2))
    found = judge(arm, uniform, cost_ratio=0.5, margin=1.0)
    assert found is not None
    assert found.blocks == (5, 2)
    assert found.loss.point == pytest.approx(1.0)
    assert found.cost.point == pytest.approx(1.0)  # of geometric means: 2 and 1/2
    assert judge(outcome(1.0, [1.0], blocks=(5,)), uniform, cost_ratio=0.5, margin=1.0) is None


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_than_five_blocks_decide_nothing(n: int) -> None:
    arm, uniform = outcome(10.0, [50.0] * n), outcome(100.0, [50.0] * n)
    found = judge(arm, uniform, cost_ratio=0.5, margin=1.0)
    assert found is not None
    assert found.word == INCONCLUSIVE
    assert found.more_blocks == 5 - n


def test_sign_flips_are_counted_exactly() -> None:
    values = np.array([-1.0, -2.0, -3.0, 0.5, -0.25])
    sums = [
        sum(sign * value for sign, value in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    assert sign_flip_p(values, -1) == sum(total <= values.sum() + 1e-9 for total in sums) / 32
    assert sign_flip_p(values, 1) == sum(total >= values.sum() - 1e-9 for total in sums) / 32
    assert sign_flip_p(np.full(6, -0.3), -1) == 1 / 64


def test_many_blocks_are_flipped_at_random_but_never_to_nothing() -> None:
    values = np.full(20, -1.0)
    assert 0 < sign_flip_p(values, -1) <= 0.001
    assert sign_flip_p(values, 1) == 1.0


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=12), st.floats(-3, 3))
def test_bounds_enclose_the_mean_and_are_the_same_every_time(
    values: list[float], limit: float
) -> None:
    found = estimate(values, limit)
    assert found == estimate(values, limit)
    slack = 1e-9 * max(1.0, abs(found.point))
    assert found.lower - slack <= found.point <= found.upper + slack
    assert found.careful_lower <= found.point <= found.careful_upper
    assert 0 < found.p_below <= 1
    assert not (found.below and found.above)


def test_a_rare_great_loss_is_not_taken_for_none() -> None:
    """Four of five blocks as good and one far worse: bootstrap alone would call it supported."""
    found = estimate([0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 2.0], 0.75)
    assert found.upper <= 0.75
    assert found.p_below <= 0.05
    assert not found.below


def test_more_blocks_make_the_difference() -> None:
    found = estimate([0.9, 0.4, 1.2, 0.2, 0.8, 0.7], 1.0)
    assert not found.below
    assert found.more_blocks is not None
    more = estimate([0.9, 0.4, 1.2, 0.2, 0.8, 0.7] * (1 + math.ceil(found.more_blocks / 6)), 1.0)
    assert more.below
    assert estimate([0.0, 2.0, 1.0, 1.0, 3.0, -1.0], 1.0).more_blocks is None


@pytest.mark.parametrize(
    ("cost", "gain", "beats"),
    [
        (100.0, 2.0, True),  # better at the same budget
        (60.0, 0.0, True),  # as good for less
        (100.0, 0.0, False),
        (60.0, -2.0, False),
        (150.0, 0.0, False),
    ],
)
def test_what_beats_a_control(cost: float, gain: float, beats: bool) -> None:
    arm = outcome(cost, (50 + gain + SPREAD).tolist())
    found = judge(arm, UNIFORM, cost_ratio=0.5, margin=1.0)
    assert found is not None
    assert found.beats is beats


def test_verdict_does_not_depend_on_the_order_of_blocks() -> None:
    arm = outcome([30.0, 40.0, 50.0, 60.0, 45.0, 35.0], (50 - 0.4 + SPREAD).tolist())
    order = [3, 1, 5, 0, 2, 4]
    turned = dataclasses.replace(
        arm,
        blocks=tuple(order),
        cost=arm.cost[order],
        quality=arm.quality[order],
        budget_quality=arm.budget_quality[order],
    )
    first = judge(arm, UNIFORM, cost_ratio=0.5, margin=1.0)
    second = judge(turned, UNIFORM, cost_ratio=0.5, margin=1.0)
    assert first is not None
    assert second is not None
    assert first.word == second.word
    assert first.loss.p_below == second.loss.p_below
    assert first.cost.upper == pytest.approx(second.cost.upper, rel=0.02)

"""Ways to a model: an arm that searches, one that trains its pick, and what one holds for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from impon_hpo.comparing.arms import IMPORTANCE, PLACEBO, Arm
from impon_hpo.comparing.outcomes import Outcome, complete_blocks, curves_of_arm, own_quality
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.training.config import wants_reference
from impon_hpo.tuning.protocol import THEN, Policy

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """A way to a model: an arm that searches, and the arm that trains its pick in full.

    Args:
        name: Such as "paced" or "uniform-short@1/3 then paced".
        search: The arm that searches.
        final: The arm that trains the pick in full; None: the picked trial's model is kept.
    """

    name: str
    search: Arm
    final: Arm | None

    @property
    def arms(self) -> list[Arm]:
        """Its one or two arms."""
        return [self.search] if self.final is None else [self.search, self.final]

    @property
    def importance(self) -> bool:
        """Whether importance has a part in it."""
        return any(arm.kind == IMPORTANCE for arm in self.arms)


def ways_of(arms: Sequence[Arm], policy: Policy, first: Policy) -> list[Way]:
    """Return the ways to a model under a policy, uniform sampling first.

    Args:
        arms: What is recorded.
        policy: The policy.
        first: The policy of the truth, which is not named.
    """
    of_policy = [arm for arm in arms if arm.policy == policy]
    full = [arm for arm in of_policy if arm.fraction == 1]
    ways = []
    for search in of_policy:
        ways.append(Way(search.name, search, None))
        for final in full:
            kinds = {search.kind, final.kind}
            # Without importance, a search that trains all rows to the end has its model already;
            # and a placebo is no part of a way with importance.
            idle = search in full and IMPORTANCE not in kinds
            if final is not search and not idle and not {IMPORTANCE, PLACEBO} <= kinds:
                name = THEN.join(arm.name.partition(" (")[0] for arm in (search, final))
                ways.append(Way(policy.name(name, first), search, final))
    return ways


@dataclass(frozen=True)
class Holding:
    """What one holds on a way after a study of 1, 2, 3 … trials; means over the random orders.

    Args:
        way: The way.
        blocks: The numbers of the blocks.
        cost: (blocks, trials) forward-equivalents, everything charged; never falling.
        accuracy: (blocks, trials) hidden-test accuracy of the model, in points.
    """

    way: Way
    blocks: tuple[int, ...]
    cost: Numbers
    accuracy: Numbers

    def at(self, block: int, budget: float) -> float:
        """Return the accuracy of a block for a budget: between two numbers of trials in proportion,
        below the cost of one trial falling to 0, and beyond the last what that one holds."""
        index = self.blocks.index(block)
        cost, accuracy = self.cost[index], self.accuracy[index]
        return float(np.interp(budget, [0.0, *cost], [0.0, *accuracy]))


def holding(way: Way, study: Outcome, recordings: Recordings) -> Holding:
    """Return what one holds on a way.

    Args:
        way: The way.
        study: The outcome of its search.
        recordings: The recordings, which have the runs of the arm that trains the pick.
    """
    n = study.size_picks.shape[2]
    keeper = way.final or way.search
    blocks = study.blocks
    if way.final is not None:
        whole = complete_blocks(recordings, way.final, n)
        blocks = tuple(block for block in blocks if block in whole)
    costs, accuracies = [], []
    for block in blocks:
        at = study.blocks.index(block)
        # Nothing came to its end: a blind choice, whose worth and cost are the means.
        worth = _with_mean(own_quality(recordings, keeper, block, n))
        price = _run_costs(recordings, keeper, block, n)
        fixed = 0.0
        if way.final is not None:
            if way.final.taught:
                price[0] = 0  # that run is the teacher's, which is paid below or by the search
            fixed = _reference_cost(recordings, way, block, n)
        price = _with_mean(price)
        if way.final is None:
            price[:n] = 0  # the search has trained its pick to the end
        picks = study.size_picks[at]
        cost = (study.size_costs[at] + price[picks]).mean(0) + fixed
        costs.append(np.maximum.accumulate(cost))
        accuracies.append(worth[picks].mean(0))
    shape = (len(blocks), n)
    return Holding(way, blocks, np.array(costs).reshape(shape), np.array(accuracies).reshape(shape))


def _with_mean(values: Numbers) -> Numbers:
    """Append the mean, so that `NO_PICK` (-1) reads it."""
    return np.append(values, values.mean())


def _run_costs(recordings: Recordings, arm: Arm, block: int, n: int) -> Numbers:
    curves = curves_of_arm(recordings, arm, block, n)
    return np.array([sum(curves[number].cost) + curves[number].ended_cost for number in range(n)])


def _reference_cost(recordings: Recordings, way: Way, block: int, n: int) -> float:
    """Return what the reference of the arm that trains the pick costs, unless its search has paid
    for the same one: a teacher's whole run, or what was made for the study alone."""
    final, search = way.final, way.search
    assert final is not None
    if final.taught:
        if search.taught and search.teacher == final.teacher:
            return 0.0
        teacher = recordings.runs[final.teacher, block, 0]
        return float(sum(teacher.cost) + teacher.ended_cost)
    paid = (search.config.reference, search.config.reference_options)
    if wants_reference(search.config) and paid == (
        final.config.reference,
        final.config.reference_options,
    ):
        return 0.0
    return float(recordings.runs[final.training, block, n - 1].reference_cost)

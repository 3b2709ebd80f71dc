"""The outcomes of an arm under a pruner: what its studies cost, and how good their picks are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impon_hpo.comparing.arms import Arm
from impon_hpo.comparing.recordings_table import Recordings, Run
from impon_hpo.comparing.replay import (
    Curve,
    Replayed,
    finish_best,
    replay,
    replay_promotion,
)
from impon_hpo.errors import ConfigError, StorageError, as_typed
from impon_hpo.tuning.algorithms import make_pruner
from impon_hpo.tuning.promotion import PROMOTE, promotion_of

Numbers = NDArray[np.float64]

NO_PICK = -1

FINISH_BEST = "one-epoch"
"""The baseline in place of a pruner: all for one epoch, then the best quarter to the end."""


@dataclass(frozen=True)
class Outcome:
    """What came of an arm under a pruner, block by block; means over the random orders.

    Accuracies are in points (0 … 100). Blocks are those that the arm has completely.

    Args:
        arm: Name of the arm.
        blocks: Their numbers.
        cost: (blocks,) forward-equivalents of a study, all charged.
        quality: (blocks,) truth of the pick: see `Truth`.
        own: (blocks,) hidden-test accuracy of the pick as this arm trained it.
        budget_quality: (blocks,) truth of the pick of a study that goes on through all
            configurations until it has spent the block's budget.
        regret: (blocks, budgets) truth of the best minus truth of the pick at each budget asked.
        epochs: (blocks,) epochs trained.
        lost_best: (blocks,) share of the studies in which the truly best of their configurations
            was pruned.
        lost_top: (blocks,) share of the truly best three that was pruned.
        stopped: (configurations,) mean epochs that a configuration was trained for.
        size_costs: (blocks, orders, configurations) cost of the study of the first 1, 2, 3 …
            configurations of each order.
        size_picks: (blocks, orders, configurations) what it picks; `NO_PICK` where nothing came to
            its end.
        n_complete: Mean number of trials that came to their end.
    """

    arm: str
    blocks: tuple[int, ...]
    cost: Numbers
    quality: Numbers
    own: Numbers
    budget_quality: Numbers
    regret: Numbers
    epochs: Numbers
    lost_best: Numbers
    lost_top: Numbers
    stopped: Numbers
    size_costs: Numbers
    size_picks: NDArray[np.int64]
    n_complete: float


class Truth:
    """What a configuration is worth: its mean hidden-test accuracy after full-length uniform
    training under the first policy, over all blocks but the one that is judged.

    A run that diverged is worth 0.

    Args:
        recordings: The recordings.
        uniform: Uniform sampling under the first policy.
        n_configurations: Configurations.

    Raises:
        ConfigError: Fewer than two blocks are recorded.
    """

    def __init__(self, recordings: Recordings, uniform: Arm, n_configurations: int) -> None:
        self.blocks = recordings.blocks_of(uniform.training, n_configurations, taught=False)
        if len(self.blocks) < 2:
            raise ConfigError(
                "A comparison needs at least 2 blocks, since the truth of one comes from the "
                f"others, but {len(self.blocks)} are recorded completely for '{uniform.name}'. "
                f"Run `{as_typed('impon-hpo compare')}` until there are more."
            )
        points = np.zeros((len(self.blocks), n_configurations))
        for index, block in enumerate(self.blocks):
            for number in range(n_configurations):
                run = recordings.runs[uniform.training, block, number]
                if not run.ended:
                    points[index, number] = 100 * run.accuracy("test", uniform.policy.weights)[-1]
        self.by_block = points

    def of(self, block: int) -> Numbers:
        """Return the truth (configurations,) in points for judging `block`."""
        others = [index for index, other in enumerate(self.blocks) if other != block]
        mean: Numbers = self.by_block[others].mean(0)
        return mean


def curves_of_arm(
    recordings: Recordings, arm: Arm, block: int, n_configurations: int
) -> dict[int, Curve]:
    """Return the learning curves of an arm's configurations in a block; where it is taught, the
    first one is its teacher's."""
    curves = {}
    for number in range(n_configurations):
        training = arm.teacher if arm.taught and number == 0 else arm.training
        run = recordings.runs[training, block, number]
        curves[number] = _curve(run, arm)
    return curves


def _curve(run: Run, arm: Arm) -> Curve:
    weights, cost = arm.policy.weights, run.cost
    if arm.signal.extra_weights(arm.config) is not None:  # each epoch is looked at once more
        cost = tuple(epoch["cost"] + epoch["rows_validated"] for epoch in run.epochs)
    try:
        reported = arm.signal.reported(run.as_recorded(weights))
    except KeyError as missing:
        raise StorageError(
            f"The recordings cannot be replayed with report = '{arm.signal.report}': they have no "
            f"column {missing} of '{arm.name}'. Record into another --storage, or replay with "
            "another report."
        ) from None
    return Curve(
        run.accuracy("val", weights),
        cost,
        run.ended_cost,
        arm.config.epochs,
        tuple(reported),
    )


def complete_blocks(recordings: Recordings, arm: Arm, n_configurations: int) -> list[int]:
    """Return the blocks in which an arm can be replayed."""
    blocks = recordings.blocks_of(arm.training, n_configurations, taught=arm.taught)
    if not arm.taught:
        return blocks
    return [block for block in blocks if (arm.teacher, block, 0) in recordings.runs]


def orders(n_configurations: int, n_orders: int, block: int) -> list[list[int]]:
    """Return random orders of the configurations, the same for all arms: the first one stays first,
    since others may learn from it."""
    generator = np.random.default_rng([n_orders, block])
    return [
        [0, *(1 + generator.permutation(n_configurations - 1)).tolist()] for _ in range(n_orders)
    ]


def outcome(
    recordings: Recordings,
    arm: Arm,
    truth: Truth,
    pruner: Mapping[str, Any],
    *,
    n_trials: int,
    n_orders: int,
    budgets: Mapping[int, float],
    budget_grid: Sequence[float],
) -> Outcome:
    """Replay an arm under a pruner in all its blocks and orders.

    Args:
        recordings: The recordings.
        arm: The arm.
        truth: What its picks are worth.
        pruner: `[pruner]` of a study file, or the name `FINISH_BEST`.
        n_trials: Trials of a study: the first ones of each order.
        n_orders: Random orders a block.
        budgets: Block → forward-equivalents for `budget_quality`.
        budget_grid: Forward-equivalents for `regret`.
    """
    n = truth.by_block.shape[1]
    blocks = [b for b in complete_blocks(recordings, arm, n) if b in truth.blocks]
    per_block, sizes_of_block, n_complete = [], [], []
    stopped, n_tried = np.zeros(n), np.zeros(n)
    for block in blocks:
        curves = curves_of_arm(recordings, arm, block, n)
        worth = truth.of(block)
        own = own_quality(recordings, arm, block, n)
        reference = recordings.runs[arm.training, block, n - 1].reference_cost
        replayed = functools.partial(
            replay_study, curves, pruner=pruner, cost=reference, taught=arm.taught
        )
        measured, sized = [], []
        for order in orders(n, n_orders, block):
            tried = order[:n_trials]
            sizes = _sizes(replayed, order, pruner)
            sized.append(
                [(size.cost, NO_PICK if size.pick is None else size.pick) for size in sizes]
            )
            study = sizes[n_trials - 1]
            cost, pick = study.cost, study.pick
            lost = {number: study.stopped[number] < curves[number].horizon for number in tried}
            best, *others = sorted(tried, key=lambda number: -worth[number])[:3]
            n_complete.append(n_trials - sum(lost.values()))
            stopped[tried] += [study.stopped[number] for number in tried]
            n_tried[tried] += 1
            measured.append(
                [
                    cost,
                    _worth(pick, worth),
                    _worth(pick, own),
                    _worth_at(sizes, budgets.get(block, 0.0), worth),
                    sum(study.stopped[number] for number in tried),
                    lost[best],
                    np.mean([lost[number] for number in (best, *others)]),
                    *(worth.max() - _worth_at(sizes, budget, worth) for budget in budget_grid),
                ]
            )
        sizes_of_block.append(sized)
        per_block.append(np.mean(np.array(measured, dtype=np.float64), axis=0))
    every_size = np.array(sizes_of_block, dtype=np.float64).reshape(len(blocks), n_orders, n, 2)
    columns = np.array(per_block).reshape(len(blocks), 7 + len(budget_grid))
    return Outcome(
        arm=arm.name,
        blocks=tuple(blocks),
        cost=columns[:, 0],
        quality=columns[:, 1],
        own=columns[:, 2],
        budget_quality=columns[:, 3],
        epochs=columns[:, 4],
        lost_best=columns[:, 5],
        lost_top=columns[:, 6],
        regret=columns[:, 7:],
        stopped=stopped / np.maximum(n_tried, 1),
        size_costs=every_size[..., 0],
        size_picks=every_size[..., 1].astype(np.int64),
        n_complete=float(np.mean(n_complete)) if n_complete else float("nan"),
    )


def replay_study(
    curves: Mapping[int, Curve],
    order: Sequence[int],
    pruner: Mapping[str, Any],
    *,
    cost: float = 0.0,
    taught: bool = False,
) -> Replayed:
    """Return what a study does that tries the configurations in this order.

    Args:
        curves: By configuration.
        order: Configurations in the order of their trials.
        pruner: `[pruner]` of a study file, or the name `FINISH_BEST`.
        cost: Spent before the first trial, on a reference.
        taught: Whether the first trial is the teacher of the others.
    """
    horizon = curves[order[-1]].horizon
    promotion = promotion_of(pruner, epochs=horizon)
    if promotion is not None:
        return replay_promotion(curves, order, promotion, cost=cost, taught=taught)
    if pruner["name"] == FINISH_BEST:
        return finish_best(curves, order, max(1, len(order) // 4), cost=cost)
    return replay(curves, order, make_pruner(pruner, epochs=horizon), cost=cost)


def _sizes(
    replayed: Callable[[Sequence[int]], Replayed], order: list[int], pruner: Mapping[str, Any]
) -> list[Replayed]:
    """Return the studies of the first 1, 2, 3 … configurations of an order."""
    if pruner["name"] in (PROMOTE, FINISH_BEST):  # a short one is not the beginning of a longer one
        return [replayed(order[:n]) for n in range(1, len(order) + 1)]
    # Pruners look back only, so a study of fewer trials is the beginning of a longer one.
    whole = replayed(order)
    return [
        Replayed({number: whole.stopped[number] for number in order[:n]}, cost, pick, ())
        for n, (cost, pick) in enumerate(whole.picks, start=1)
    ]


def own_quality(recordings: Recordings, arm: Arm, block: int, n: int) -> Numbers:
    """Return the hidden-test accuracy (n,) of each configuration as an arm trained it, in points; 0
    where its loss was no longer finite."""
    quality = np.zeros(n)
    for number in range(n):
        training = arm.teacher if arm.taught and number == 0 else arm.training
        run = recordings.runs[training, block, number]
        if not run.ended:
            quality[number] = 100 * run.accuracy("test", arm.policy.weights)[-1]
    return quality


def _worth(pick: int | None, worth: Numbers) -> float:
    """A study without a complete trial has no pick: it is worth what a blind choice is."""
    return float(worth.mean() if pick is None else worth[pick])


def _worth_at(sizes: Sequence[Replayed], budget: float, worth: Numbers) -> float:
    pick = None
    for study in sizes:
        if study.cost > budget:
            break
        pick = study.pick
    return _worth(pick, worth)

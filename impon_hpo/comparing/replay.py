"""Replay over recorded learning curves: Optuna's own pruners, asked about studies in memory;
halving that promotes, by the rule that decides in a study that runs; and a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from impon_hpo.storage.connect import quiet_studies
from impon_hpo.tuning.promotion import Promotion, Standing

STUDY_NAME = "replay"
"""The same for all: Hyperband takes a trial's bracket from the study's name."""


@dataclass(frozen=True)
class Curve:
    """What one trial reports, and what it pays.

    Args:
        accuracy: Validation accuracy after each epoch.
        cost: Forward-equivalents of each epoch.
        ended_cost: Those of an epoch after the last one whose loss was not finite; 0 if none.
        horizon: Epochs of a run that comes to its end.
        reported: What is reported after each epoch; default: the accuracy.
    """

    accuracy: tuple[float, ...]
    cost: tuple[float, ...]
    ended_cost: float
    horizon: int
    reported: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reported", self.reported or self.accuracy)


@dataclass(frozen=True)
class Replayed:
    """What a study would have done.

    Args:
        stopped: Configuration → epochs that it was trained for.
        cost: Forward-equivalents of all of it.
        pick: The configuration of the complete trial with the highest last accuracy, or None.
        picks: (cost, pick) after each step of it, in order; under a pruner: of the studies of the
            first 1, 2, 3 … trials.
    """

    stopped: dict[int, int]
    cost: float
    pick: int | None
    picks: tuple[tuple[float, int | None], ...]


def replay(
    curves: Mapping[int, Curve], order: Sequence[int], pruner: BasePruner, *, cost: float = 0.0
) -> Replayed:
    """Return what a study does that tries the configurations in this order under this pruner.

    It is the sequence of `Objective` and `study.optimize`: report after every epoch from 1, ask
    after all but the last, and a run whose loss is not finite is pruned. The storage is called as
    `Trial` does, without its copies, which take longer than all the rest.

    Args:
        curves: By configuration.
        order: Configurations in the order of their trials.
        pruner: Optuna's, or one of the user's; unused before.
        cost: Spent before the first trial, on a reference.
    """
    with quiet_studies():
        study = optuna.create_study(
            study_name=STUDY_NAME,
            direction="maximize",
            pruner=pruner,
            sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: all is given
        )
    storage = study._storage
    stopped: dict[int, int] = {}
    best: tuple[float, int] | None = None
    picks = []
    for configuration in order:
        curve = curves[configuration]
        trial_id = storage.create_new_trial(study._study_id)
        epoch, pruned = 0, False
        for epoch, reported in enumerate(curve.reported, start=1):
            storage.set_trial_intermediate_value(trial_id, epoch, reported)
            cost += curve.cost[epoch - 1]
            if epoch < curve.horizon and pruner.prune(study, storage.get_trial(trial_id)):
                pruned = True
                break
        if not pruned and len(curve.accuracy) < curve.horizon:
            cost += curve.ended_cost
            pruned = True
        if pruned:
            storage.set_trial_state_values(trial_id, TrialState.PRUNED)
        else:
            storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [curve.accuracy[-1]])
            if best is None or curve.accuracy[-1] > best[0]:
                best = (curve.accuracy[-1], configuration)
        stopped[configuration] = epoch
        picks.append((cost, None if best is None else best[1]))
    return Replayed(stopped, cost, picks[-1][1], tuple(picks))


def replay_promotion(
    curves: Mapping[int, Curve],
    order: Sequence[int],
    promotion: Promotion,
    *,
    cost: float = 0.0,
    taught: bool = False,
) -> Replayed:
    """Return what a study does that tries the configurations in this order, with one worker, under
    halving that promotes.

    Args:
        curves: By configuration.
        order: Configurations in the order of their trials.
        promotion: The halving.
        cost: Spent before the first trial, on a reference.
        taught: Whether the first trial is the teacher of the others: it trains to its end before
            they begin.
    """
    standings: dict[int, Standing] = {}
    best: tuple[float, int] | None = None
    picks = []
    trained = dict.fromkeys(range(len(order)), 0)
    while True:
        moves = promotion.moves(standings, len(order), untaught=taught and not standings)
        if moves.claims:
            number, until = moves.claims[0]
        elif moves.begin:
            number, until = len(standings), moves.begin
        else:
            break
        curve = curves[order[number]]
        reached = min(until, len(curve.accuracy))
        cost += sum(curve.cost[trained[number] : reached])
        trained[number] = reached
        values = {rung: curve.reported[rung - 1] for rung in promotion.rungs if rung <= reached}
        state = TrialState.WAITING
        if reached < until:
            cost += curve.ended_cost
            state = TrialState.PRUNED
        elif until == curve.horizon:
            state = TrialState.COMPLETE
            accuracy = curve.accuracy[-1]
            if best is None or accuracy > best[0]:
                best = (accuracy, order[number])
        standings[number] = Standing(state, until, values)
        picks.append((cost, None if best is None else best[1]))
    stopped = {order[number]: epochs for number, epochs in trained.items()}
    return Replayed(stopped, cost, None if best is None else best[1], tuple(picks))


def finish_best(
    curves: Mapping[int, Curve], order: Sequence[int], n_best: int, *, cost: float = 0.0
) -> Replayed:
    """Return what the baseline without a pruner does: train all for one epoch, then finish the best
    `n_best` of them (Egele et al., 2024, "i-Epoch")."""
    stopped = {}
    first: dict[int, float] = {}
    for configuration in order:
        curve = curves[configuration]
        stopped[configuration] = min(1, len(curve.accuracy))
        cost += curve.cost[0] if curve.cost else curve.ended_cost
        first[configuration] = curve.reported[0] if curve.reported else -math.inf
    finalists = sorted(order, key=lambda configuration: -first[configuration])[:n_best]
    best: tuple[float, int] | None = None
    picks: list[tuple[float, int | None]] = [(cost, finalists[0])]
    for configuration in finalists:
        curve = curves[configuration]
        cost += sum(curve.cost[1:]) + (curve.ended_cost if curve.accuracy else 0)
        stopped[configuration] = len(curve.accuracy)
        complete = len(curve.accuracy) == curve.horizon
        if complete and (best is None or curve.accuracy[-1] > best[0]):
            best = (curve.accuracy[-1], configuration)
        picks.append((cost, None if best is None else best[1]))
    return Replayed(stopped, cost, picks[-1][1], tuple(picks))

"""Halving that promotes: trials wait at a rung, and the best of them go on from their checkpoint.

Optuna's `SuccessiveHalvingPruner` decides about a trial the moment it comes to a rung, and for
good: the first ones always go on, and a good one that comes at the wrong moment is gone. Here a
trial that comes to a rung waits. It goes on once it is among the best 1/η of all that have come to
that rung, however late that is.

Rungs are the epochs r, r·η, r·η² … below the horizon. Of n trials that have come to a rung,
⌊n/η⌋ are promoted; once no more can come, at least one is, so that someone finishes.

- "async" promotes as soon as a trial is among the best so far (ASHA: Li et al., 2018, "A System for
  Massively Parallel Hyperparameter Tuning").
- "sync" promotes when all that can come to a rung are there (Jamieson and Talwalkar, 2016,
  "Non-stochastic Best Arm Identification and Hyperparameter Optimization").

All of it follows from what the trials have reported, by the same code for a study that runs and for
one that is replayed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.trial import TrialState
from pydantic import Field

from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.settings import Settings
from impon_hpo.storage.trials import StudyRecord, TrialRecord

PROMOTE = "promote"
"""The name of this halving in `[pruner]`."""


@dataclass(frozen=True)
class Standing:
    """Where a trial stands.

    Args:
        state: Optuna's state of it.
        until: The epoch that it may train to; 0: it has not begun.
        values: What it has reported at each rung that it has come to, by epoch.
    """

    state: TrialState
    until: int = 0
    values: Mapping[int, float] = field(default_factory=dict)

    @property
    def paused(self) -> bool:
        """Whether it waits at a rung."""
        return self.state == TrialState.WAITING and self.until in self.values

    @property
    def interrupted(self) -> bool:
        """Whether it waits between two rungs: it was stopped, or has lost its worker."""
        return self.state == TrialState.WAITING and self.until > 0 and not self.paused

    @property
    def under_way(self) -> bool:
        """Whether it is on its way to its next rung."""
        return self.state == TrialState.RUNNING or self.interrupted

    @property
    def left_behind(self) -> bool:
        """Whether it was pruned at its rung, since the study was at its end."""
        return self.state == TrialState.PRUNED and self.until in self.values

    @property
    def gave_up(self) -> bool:
        """Whether it ended for another reason, without having come to its end: it competes no more,
        so that the next best has its place."""
        pruned = self.state == TrialState.PRUNED and not self.left_behind
        return pruned or self.state == TrialState.FAIL


@dataclass(frozen=True)
class Moves:
    """What may happen next in a study.

    Args:
        claims: (trial number, the epoch that it may train to) of waiting trials that may go on, in
            the order in which they should be tried.
        begin: The epoch that a new trial may train to, where none of those is to be had; 0: no new
            trial may begin.
        leave: Numbers of paused trials that nothing can promote any more: they are to be pruned.
    """

    claims: tuple[tuple[int, int], ...] = ()
    begin: int = 0
    leave: tuple[int, ...] = ()


class Promotion(Settings):
    """`[pruner] name = "promote"`: when waiting trials go on.

    Args:
        name: "promote".
        reduction_factor: η: one of so many trials at a rung goes on; at least 2.
        min_resource: r: the first rung, in epochs; below the horizon.
        mode: "async" promotes as trials come, "sync" when all have come.
        epochs: The horizon; not a key of the file.

    Example:
        >>> from optuna.trial import TrialState
        >>> from impon_hpo.tuning.promotion import Promotion, Standing
        >>> halving = Promotion(reduction_factor=3, epochs=9)
        >>> halving.rungs
        (1, 3)
        >>> waiting = {
        ...     number: Standing(TrialState.WAITING, until=1, values={1: value})
        ...     for number, value in enumerate([0.4, 0.6, 0.5])
        ... }
        >>> halving.moves(waiting, n_trials=4).claims  # the best of three trains to epoch 3
        ((1, 3),)
    """

    name: Literal["promote"] = "promote"
    reduction_factor: int = Field(default=3, ge=2)
    min_resource: int = Field(default=1, ge=1)
    mode: Literal["async", "sync"] = "async"
    epochs: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials wait."""
        rungs, rung = [], self.min_resource
        while rung < self.epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return tuple(rungs)

    def after(self, rung: int) -> int:
        """Return the rung after `rung`, or the horizon; the first rung after 0."""
        return next((later for later in self.rungs if later > rung), self.epochs)

    def ranking(self, standings: Mapping[int, Standing], rung: int) -> list[int]:
        """Return the numbers of the trials that have come to a rung and compete there, the best
        first; of equal ones, the one with the lower number."""
        competing = {
            number: standing.values[rung]
            for number, standing in standings.items()
            if rung in standing.values and not standing.gave_up
        }
        return sorted(competing, key=lambda number: (_descending(competing[number]), number))

    def expected_epochs(self, n_trials: int) -> int:
        """Return about how many epochs a study of so many trials trains."""
        total, before, n_there = 0, 0, n_trials
        for epoch in (*self.rungs, self.epochs):
            total += n_there * (epoch - before)
            before, n_there = epoch, max(1, n_there // self.reduction_factor)
        return total

    def places(self, standings: Mapping[int, Standing]) -> dict[int, tuple[int, int]]:
        """Return of each paused trial its rank at its rung, from 1, and how many compete there."""
        places = {}
        for rung in self.rungs:
            ranking = self.ranking(standings, rung)
            for rank, number in enumerate(ranking, start=1):
                if standings[number].paused and standings[number].until == rung:
                    places[number] = (rank, len(ranking))
        return places

    def moves(
        self, standings: Mapping[int, Standing], n_trials: int, *, untaught: bool = False
    ) -> Moves:
        """Return what may happen next.

        Args:
            standings: Of the trials that there are, by number.
            n_trials: Trials that the study is to have in all.
            untaught: Whether trials wait for what one that trains to its end learns about the
                rows. Then one at a time does.

        Raises:
            StorageError: The study has come to its end with fewer trials.
        """
        interrupted = [
            (number, standing.until)
            for number, standing in standings.items()
            if standing.interrupted
        ]
        fresh = [
            number
            for number, standing in standings.items()
            if standing.state == TrialState.WAITING and standing.until == 0
        ]
        new = len(standings) < n_trials
        if new or fresh:
            _check_open(standings.values(), n_trials)
        until = self.after(0)
        if untaught and (new or fresh or interrupted):
            if any(standing.state == TrialState.RUNNING for standing in standings.values()):
                return Moves()
            if interrupted:
                return Moves(claims=tuple(interrupted[:1]))
            until = self.epochs
            claims = tuple((number, until) for number in fresh[:1])
            return Moves(claims, begin=until if new and not fresh else 0)
        promoted = self._promotable(standings, all_begun=not new and not fresh)
        claims = (*interrupted, *promoted, *((number, until) for number in fresh))
        leave: list[int] = []
        if not claims and not new and not any(s.under_way for s in standings.values()):
            leave = [number for number, standing in standings.items() if standing.paused]
        return Moves(claims, begin=until if new else 0, leave=tuple(leave))

    def _promotable(
        self, standings: Mapping[int, Standing], *, all_begun: bool
    ) -> list[tuple[int, int]]:
        """Return (number, epoch it may train to) of paused trials that are promoted, from the
        highest rung down, the best first."""
        by_rung: list[list[tuple[int, int]]] = []
        under_way = [standing.until for standing in standings.values() if standing.under_way]
        for rung in self.rungs:
            ranking = self.ranking(standings, rung)
            complete = (
                all_begun and not any(by_rung) and not any(until <= rung for until in under_way)
            )
            n_come = sum(rung in standing.values for standing in standings.values())
            n_best = n_come // self.reduction_factor
            if complete:
                n_best = max(1, n_best)
            elif self.mode == "sync":
                n_best = 0
            by_rung.append(
                [
                    (number, self.after(rung))
                    for number in ranking[:n_best]
                    if standings[number].paused and standings[number].until == rung
                ]
            )
        return [claim for claims in reversed(by_rung) for claim in claims]


def promotion_of(table: Mapping[str, Any], *, epochs: int) -> Promotion | None:
    """Return the halving that `[pruner]` describes, or None if it names one of Optuna's pruners.

    Args:
        table: `[pruner]`.
        epochs: The horizon.

    Raises:
        ConfigError: An argument is unknown or does not fit.
    """
    if table.get("name") != PROMOTE:
        return None
    if "epochs" in table:
        raise ConfigError("Unknown key 'pruner.epochs'. The horizon is that of [run].")
    return Promotion.checked({**table, "epochs": epochs}, prefix="pruner.")


@dataclass(frozen=True)
class Waiting:
    """A trial that waits at a rung.

    Args:
        trial: The trial.
        place: Its rank among those that have come to its rung, from 1.
        n_come: How many those are.
    """

    trial: TrialRecord
    place: int
    n_come: int


def waiting_trials(record: StudyRecord) -> list[Waiting]:
    """Return the trials of a study that wait at a rung: those of the highest rung first, and of a
    rung the best."""
    promotion = promotion_of_study(record)
    if promotion is None:
        return []
    standings = {trial.number: _standing(trial, promotion) for trial in record.trials}
    places = promotion.places(standings)
    waiting = [
        Waiting(trial, *places[trial.number]) for trial in record.trials if trial.number in places
    ]
    return sorted(waiting, key=lambda entry: (-entry.trial.until, entry.place))


def promotion_of_study(record: StudyRecord) -> Promotion | None:
    """Return the halving that a study in a storage was begun with, or None."""
    identity = record.identity
    return promotion_of(identity.get("pruner", {}), epochs=identity["run"]["epochs"])


def check_growth(record: StudyRecord, n_trials: int) -> None:
    """Raise `StorageError` if a study has come to its end with fewer than `n_trials` trials."""
    promotion = promotion_of_study(record)
    if promotion is not None and len(record.trials) < n_trials:
        _check_open([_standing(trial, promotion) for trial in record.trials], n_trials)


def _standing(trial: TrialRecord, promotion: Promotion) -> Standing:
    values = {rung: trial.reported[rung] for rung in promotion.rungs if rung in trial.reported}
    return Standing(TrialState[trial.state], trial.until, values)


def _check_open(standings: Collection[Standing], n_trials: int) -> None:
    """Refuse more trials in a study that has ended: those that waited are pruned."""
    if any(standing.left_behind for standing in standings):
        n_ended = sum(standing.state.is_finished() for standing in standings)
        raise StorageError(
            f"This study has ended with {n_ended} trials: those that waited were pruned, and "
            f"cannot be promoted beside new ones. It cannot grow to {n_trials}. Use another "
            "--storage for a larger study."
        )


def _descending(value: float) -> float:
    return math.inf if math.isnan(value) else -value

"""`bench.py claims`: what halving that promotes asks of a storage, beside Optuna's halving."""

from __future__ import annotations

import itertools
import random
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from benchmarks.filled_study import recorded_epochs, storage_kind
from benchmarks.measure import Measurement, check_rounds, ratios, seconds_of, spread, surroundings
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage, quiet_studies
from impon_hpo.storage.trials import COST, UNTIL
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.promotion import Promotion
from impon_hpo.tuning.standings import Standings

PROMOTION = Promotion(reduction_factor=3, epochs=27)
SPACE = {name: FloatDistribution(0, 1) for name in ("lr", "weight_decay", "momentum", "smoothing")}
BESIDE = "Optuna's should_prune"


def measure_claims(*, storages: Sequence[str], n_paused: Sequence[int], rounds: int) -> Measurement:
    """Time the decisions of a study in which so many trials wait at the rungs 1, 3 and 9 of 27.

    "decision" is from the short attributes of the study (`Standings.read`, `Promotion.moves`),
    "decision, all trials" from the trials (`get_trials`, `Standings.look`, `Promotion.moves`),
    "claim and pause" all that a worker asks of the storage for one promotion, or one new trial,
    beside training. "Optuna's should_prune" is `SuccessiveHalvingPruner` at its first rung, in
    another study of the same storage with as many trials, which it has pruned: a process reads
    those once. All of them are timed in turn.

    Args:
        storages: Addresses; a relative file is in a temporary folder; empty: SQLite and a journal
            there. The studies are new ones, and deleted afterwards.
        n_paused: Trials that wait, at least 27.
        rounds: Times that each counts.

    Raises:
        ConfigError: A number is too small.
        StorageError: A storage cannot be opened.
    """
    if min(n_paused, default=0) < PROMOTION.epochs:
        raise ConfigError(
            f"At least {PROMOTION.epochs} trials must wait, so that some do at each rung, but got "
            f"{list(n_paused)}."
        )
    check_rounds(rounds)
    around = surroundings("cpu")
    rows: list[dict[str, Any]] = []
    with quiet_studies(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = storages or [f"sqlite:///{folder / 'claims.db'}", str(folder / "claims.journal")]
        for address in given:
            for n in n_paused:
                seconds = time_sides(open_storage(address, create=True), n, rounds)
                rows += [
                    {"storage": storage_kind(address), "paused": n, "what": what}
                    | spread(taken).scaled(1e3).columns("ms")
                    | ratios(taken, seconds[BESIDE]).columns("over_should_prune")
                    for what, taken in seconds.items()
                ]
    return Measurement("claims", {"rounds": rounds}, around, rows)


def time_sides(storage: BaseStorage, n_paused: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds (rounds,) of each side with so many paused trials, after one more round
    that does not count; the studies are deleted again."""
    ours, optunas = (
        optuna.create_study(
            storage=storage,
            study_name=f"claims-{uuid.uuid4().hex[:8]}",
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        )
        for _ in range(2)
    )
    try:
        paused = made_trials(n_paused)
        ours.add_trials(paused)
        optunas.add_trials([_as_pruned(trial) for trial in paused])
        with tempfile.TemporaryDirectory() as name:
            sides = _Sides(ours, optunas, Checkpoints(Path(name)))
            timed = [sides.round() for _ in range(rounds + 1)]
        return {what: [seconds[what] for seconds in timed[1:]] for what in timed[0]}
    finally:
        for study in (ours, optunas):
            optuna.delete_study(study_name=study.study_name, storage=storage)


def made_trials(n_paused: int) -> list[FrozenTrial]:
    """Return trials that wait at rungs, and those that have finished beside them, as a study of
    halving that promotes leaves them when all promotions are made."""
    sizes = [n_paused]  # how many have come to each rung
    for n in itertools.count(n_paused):
        sizes = [n // PROMOTION.reduction_factor**power for power in range(4)]
        if n - sizes[-1] == n_paused:
            break
    draws = random.Random(0)
    trials = []
    for place in range(sizes[0]):  # the best first
        n_rungs = sum(place < size for size in sizes)
        until = (*PROMOTION.rungs, PROMOTION.epochs)[n_rungs - 1]
        complete = until == PROMOTION.epochs
        accuracies = [0.9 - 0.8 * place / sizes[0]] * until
        trials.append(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if complete else TrialState.WAITING,
                value=accuracies[-1] if complete else None,
                params={name: draws.random() for name in SPACE},
                distributions=dict(SPACE),
                intermediate_values=dict(enumerate(accuracies, start=1)),
                user_attrs=recorded_epochs(draws, accuracies)
                | {UNTIL: until}
                | ({COST: 276 * until} if complete else {}),
            )
        )
    return trials


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as Optuna's halving would have ended it."""
    values = trial.intermediate_values
    rungs = [epoch for epoch in PROMOTION.rungs if epoch in values]
    return optuna.trial.create_trial(
        state=TrialState.PRUNED if trial.value is None else TrialState.COMPLETE,
        value=values[max(values)],
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=values,
        user_attrs=trial.user_attrs | {COST: 276 * len(values)},
        system_attrs={f"completed_rung_{i}": values[epoch] for i, epoch in enumerate(rungs)},
    )


class _Sides:
    """What is timed in turn.

    Args:
        ours: A study of halving that promotes.
        optunas: One of Optuna's halving.
        checkpoints: An empty folder.
    """

    def __init__(self, ours: optuna.Study, optunas: optuna.Study, checkpoints: Checkpoints) -> None:
        self._study, self._optunas = ours, optunas
        self._standings = Standings(ours, PROMOTION, checkpoints)
        self._standings.look(ours.get_trials(deepcopy=False))  # which writes the short attributes
        self._n_trials = 2 * len(ours.get_trials(deepcopy=False))
        self._draws = random.Random(1)

    def round(self) -> dict[str, float]:
        """Return the seconds of each side."""
        study, standings, seconds = self._study, self._standings, {}
        seconds["decision"] = seconds_of(lambda: PROMOTION.moves(standings.read(), self._n_trials))
        seconds["decision, all trials"] = seconds_of(
            lambda: PROMOTION.moves(
                standings.look(study.get_trials(deepcopy=False)), self._n_trials
            )
        )
        claimed: list[tuple[int, int] | None] = []
        taken = seconds_of(
            lambda: claimed.append(standings.claim(standings.read(), self._n_trials))
        )
        assert claimed[0] is not None
        trial = optuna.Trial(study, claimed[0][0])
        reported = trial._cached_frozen_trial.intermediate_values
        until = study._storage.get_trial(trial._trial_id).user_attrs[UNTIL]
        for epoch in range(max(reported, default=0) + 1, until + 1):
            trial.report(self._draws.uniform(0.1, 0.8), step=epoch)
        seconds["claim and pause"] = taken + seconds_of(lambda: standings.pause(trial))
        pruned = self._optunas.ask()
        pruned.report(self._draws.uniform(0.1, 0.8), step=1)
        seconds[BESIDE] = seconds_of(pruned.should_prune)
        self._optunas.tell(pruned, state=TrialState.PRUNED)
        return seconds

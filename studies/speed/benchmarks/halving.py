"""`bench.py halving`: halving at scale, with made-up trials, in virtual time."""

from __future__ import annotations

import functools
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from benchmarks.measure import Measurement, surroundings
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import quiet_studies
from impon_hpo.tuning.promotion import Promotion, Standing


@dataclass(frozen=True)
class World:
    """Made-up learning curves of so many configurations.

    Args:
        reported: Accuracy that each reports after each epoch, (configurations, epochs).
        durations: What each epoch takes, in average epochs, (configurations, epochs).
        quality: The true accuracy of each after its last epoch, (configurations,).
    """

    reported: np.ndarray
    durations: np.ndarray
    quality: np.ndarray

    @property
    def epochs(self) -> int:
        """The horizon."""
        return int(self.reported.shape[1])


@dataclass(frozen=True)
class Simulated:
    """What a study came to.

    Args:
        wall: Time from its begin to its end, in average epochs.
        epochs: Epochs trained, in all.
        busy: Time in which workers trained, summed over them, in average epochs.
        complete: Of each configuration that finished, the accuracy that it reported last, and when.
        n_decisions: How often the rule was asked.
        seconds_deciding: Real time that it took to answer.
    """

    wall: float
    epochs: int
    busy: float
    complete: Mapping[int, tuple[float, float]]
    n_decisions: int
    seconds_deciding: float

    @property
    def pick(self) -> int:
        """The configuration that the study hands over."""
        return max(self.complete, key=lambda number: self.complete[number])


class Rule(Protocol):
    """What decides in a study who trains what."""

    n_decisions: int
    seconds_deciding: float

    def next(self) -> int | None:
        """Return the number of a trial that a free worker is to train; None: nothing to do now."""

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Return whether a trial goes on at once after an epoch; its worker is free otherwise."""


class Promoting:
    """Halving that promotes: `Promotion.moves`, which decides in studies that run.

    Args:
        promotion: The halving.
        n_trials: Trials of the study.
    """

    def __init__(self, promotion: Promotion, n_trials: int) -> None:
        self.n_decisions, self.seconds_deciding = 0, 0.0
        self.standings: dict[int, Standing] = {}
        self._promotion = promotion
        self._n_trials = n_trials

    def next(self) -> int | None:
        begun = time.perf_counter()
        moves = self._promotion.moves(self.standings, self._n_trials)
        self.seconds_deciding += time.perf_counter() - begun
        self.n_decisions += 1
        if moves.claims:
            number, until = moves.claims[0]
        elif moves.begin:
            number, until = len(self.standings), moves.begin
        else:
            return None
        values = self.standings[number].values if number in self.standings else {}
        self.standings[number] = Standing(TrialState.RUNNING, until, values)
        return number

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        standing = self.standings[number]
        if epoch < standing.until:
            return True
        ended = epoch == self._promotion.epochs
        self.standings[number] = Standing(
            TrialState.COMPLETE if ended else TrialState.WAITING,
            epoch,
            standing.values if ended else {**standing.values, epoch: value},
        )
        return False


class Pruning:
    """Optuna's own pruner, asked after every epoch as `study.optimize` does.

    Args:
        pruner: The pruner.
        n_trials: Trials of the study.
        epochs: The horizon.
    """

    def __init__(self, pruner: BasePruner, n_trials: int, epochs: int) -> None:
        self.n_decisions, self.seconds_deciding = 0, 0.0
        with quiet_studies():
            self._study = optuna.create_study(
                direction="maximize",
                pruner=pruner,
                sampler=optuna.samplers.RandomSampler(seed=0),  # never asked
            )
        self._trials: list[optuna.Trial] = []
        self._n_trials = n_trials
        self._epochs = epochs

    def next(self) -> int | None:
        if len(self._trials) == self._n_trials:
            return None
        self._trials.append(self._study.ask())
        return len(self._trials) - 1

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        trial = self._trials[number]
        trial.report(value, step=epoch)
        if epoch == self._epochs:
            self._study.tell(trial, value)
            return False
        begun = time.perf_counter()
        prunes = trial.should_prune()
        self.seconds_deciding += time.perf_counter() - begun
        self.n_decisions += 1
        if prunes:
            self._study.tell(trial, state=TrialState.PRUNED)
        return not prunes


def make_world(n: int, epochs: int, *, seed: int) -> World:
    """Make up learning curves: the same ones for the same seed.

    Accuracy rises from 0.1 to its final level, of which 0.95 is the most and 0.68 the mean, and has
    covered half of the way after about 2 epochs (lognormal: two thirds of the configurations need
    1 to 4). A report after epoch e is off by 0.03 / √e (standard deviation). An epoch takes
    a configuration lognormally more or less than the average (σ = 0.5), and varies by a tenth.

    Args:
        n: Configurations.
        epochs: The horizon.
        seed: Seed.
    """
    draws = np.random.default_rng(seed)
    epoch = np.arange(1, epochs + 1)
    level = 0.95 * draws.beta(5, 2, size=(n, 1))
    half_way = 2 * np.exp(0.7 * draws.standard_normal((n, 1)))
    curves = level + (0.1 - level) * 0.5 ** (epoch / half_way)
    noise = 0.03 / np.sqrt(epoch) * draws.standard_normal((n, epochs))
    pace = np.exp(0.5 * draws.standard_normal((n, 1)) - 0.5**2 / 2)
    wobble = np.exp(0.1 * draws.standard_normal((n, epochs)) - 0.1**2 / 2)
    return World(reported=curves + noise, durations=pace * wobble, quality=curves[:, -1])


def simulate(world: World, rule: Rule, n_workers: int) -> Simulated:
    """Run a study in virtual time: free workers ask the rule, and train epoch by epoch.

    Args:
        world: The learning curves.
        rule: What decides.
        n_workers: Workers.
    """
    free = list(range(n_workers))
    events: list[tuple[float, int, int, int]] = []  # when, worker, trial, its epoch that ends then
    n_trained = np.zeros(len(world.quality), dtype=np.int64)
    now, busy = 0.0, 0.0
    complete: dict[int, tuple[float, float]] = {}

    def train(worker: int, number: int) -> None:
        nonlocal busy
        duration = float(world.durations[number, n_trained[number]])
        n_trained[number] += 1
        busy += duration
        heapq.heappush(events, (now + duration, worker, number, int(n_trained[number])))

    while True:
        while free and (number := rule.next()) is not None:
            train(free.pop(), number)
        if not events:
            break
        now, worker, number, epoch = heapq.heappop(events)
        value = float(world.reported[number, epoch - 1])
        if rule.goes_on(number, epoch, value):
            train(worker, number)
            continue
        free.append(worker)
        if epoch == world.epochs:
            complete[number] = (value, now)
    return Simulated(
        wall=now,
        epochs=int(n_trained.sum()),
        busy=busy,
        complete=complete,
        n_decisions=rule.n_decisions,
        seconds_deciding=rule.seconds_deciding,
    )


def measure_halving(
    *,
    n_configurations: int,
    n_workers: int,
    epochs: int,
    reduction_factor: int,
    min_resource: int,
    seeds: int,
) -> Measurement:
    """Compare halving that promotes, Optuna's halving and no pruner on made-up learning curves.

    Times are in average epochs; `picked_at` is when the pick had finished. The regret is the true
    final accuracy of the best configuration of all less that of the pick, in points.

    Args:
        n_configurations: Configurations, each of them one trial.
        n_workers: Workers.
        epochs: The horizon.
        reduction_factor: η.
        min_resource: The first rung.
        seeds: Worlds; each method is run once in each.

    Raises:
        ConfigError: A number is too small, or no rung is below the horizon.
    """
    if min(n_configurations, n_workers, seeds) < 1 or not 0 < min_resource < epochs:
        raise ConfigError(
            "There must be at least 1 configuration, 1 worker and 1 seed, and the first rung must "
            f"be below the horizon, but got {n_configurations}, {n_workers}, {seeds}, and "
            f"{min_resource} of {epochs}."
        )
    around = surroundings("cpu")
    n = n_configurations
    halving = {"reduction_factor": reduction_factor, "min_resource": min_resource}
    rules: dict[str, Callable[[], Rule]] = {}
    for mode in ("async", "sync"):
        promotion = Promotion.checked({"mode": mode, "epochs": epochs} | halving, prefix="")
        rules[f"promote, {mode}"] = functools.partial(Promoting, promotion, n)
    for name, pruner in {
        "Optuna's halving": SuccessiveHalvingPruner(**halving),
        "no pruner": NopPruner(),
    }.items():
        rules[name] = functools.partial(Pruning, pruner, n, epochs)
    studies: dict[str, list[Simulated]] = {name: [] for name in rules}
    worlds = [make_world(n_configurations, epochs, seed=seed) for seed in range(seeds)]
    for world in worlds:
        for name, rule in rules.items():
            studies[name].append(simulate(world, rule(), n_workers))
    rows = [_row(name, worlds, studies[name], n_workers) for name in rules]
    settings = {
        "configurations": n_configurations,
        "workers": n_workers,
        "epochs": epochs,
        "reduction_factor": reduction_factor,
        "min_resource": min_resource,
        "seeds": seeds,
    }
    return Measurement("halving", settings, around, rows)


def _row(
    name: str, worlds: Sequence[World], studies: Sequence[Simulated], n_workers: int
) -> dict[str, Any]:
    pairs = list(zip(worlds, studies, strict=True))
    regrets = [100 * (world.quality.max() - world.quality[study.pick]) for world, study in pairs]
    n_decisions = sum(study.n_decisions for study in studies)
    return (
        {"method": name}
        | _mean("wall_epochs", [study.wall for study in studies])
        | _mean("trained_epochs", [study.epochs for study in studies])
        | _mean("picked_at", [study.complete[study.pick][1] for study in studies])
        | _mean(
            "idle_percent", [100 * (1 - study.busy / study.wall / n_workers) for study in studies]
        )
        | _mean("regret_points", regrets)
        | {
            "best_finished_percent": round(
                100 * sum(int(world.quality.argmax()) in study.complete for world, study in pairs)
                / len(pairs),
                1,
            ),
            "finished": float(np.mean([len(study.complete) for study in studies])),
            "decisions_per_second": round(
                n_decisions / sum(study.seconds_deciding for study in studies)
            ),
        }
    )  # fmt: skip


def _mean(name: str, figures: Sequence[float]) -> dict[str, float]:
    """Return mean and standard deviation of a figure over the worlds; 0 for a single one."""
    deviation = float(np.std(figures, ddof=1)) if len(figures) > 1 else 0.0
    return {name: float(f"{np.mean(figures):.4g}"), f"{name}_sd": float(f"{deviation:.3g}")}

"""Tests of the halving benchmark: virtual workers decide as studies that run do, and add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from optuna.pruners import NopPruner, SuccessiveHalvingPruner

from benchmarks.halving import Promoting, Pruning, make_world, measure_halving, simulate
from impon_hpo.comparing.replay import Curve, replay, replay_promotion
from impon_hpo.errors import ConfigError
from impon_hpo.tuning.promotion import Promotion

N, EPOCHS = 30, 9
WORLD = make_world(N, EPOCHS, seed=0)
CURVES = {
    number: Curve(tuple(map(float, reported)), (1.0,) * EPOCHS, 0.0, EPOCHS)
    for number, reported in enumerate(WORLD.reported)
}


def test_a_world_is_its_seed_and_as_it_is_described() -> None:
    again, other = make_world(N, EPOCHS, seed=0), make_world(N, EPOCHS, seed=1)
    assert (again.reported == WORLD.reported).all()
    assert (other.reported != WORLD.reported).all()
    large = make_world(4000, EPOCHS, seed=0)
    assert large.epochs == EPOCHS
    assert large.durations.mean() == pytest.approx(1, rel=0.05)
    off = large.reported[:, -1] - large.quality
    assert off.std() == pytest.approx(0.03 / np.sqrt(EPOCHS), rel=0.05)
    assert 0.1 < large.quality.min() < large.quality.max() < 0.95


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_one_virtual_worker_promotes_what_a_replay_promotes(mode: str) -> None:
    halving = Promotion.checked({"mode": mode, "epochs": EPOCHS}, prefix="")
    simulated = simulate(WORLD, Promoting(halving, N), 1)
    replayed = replay_promotion(CURVES, range(N), halving)
    assert (simulated.epochs, simulated.pick) == (replayed.cost, replayed.pick)
    finished = {number for number, epochs in replayed.stopped.items() if epochs == EPOCHS}
    assert set(simulated.complete) == finished


def test_one_virtual_worker_prunes_what_a_replay_prunes() -> None:
    def pruner() -> SuccessiveHalvingPruner:
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)

    simulated = simulate(WORLD, Pruning(pruner(), N, EPOCHS), 1)
    replayed = replay(CURVES, range(N), pruner())
    assert (simulated.epochs, simulated.pick) == (replayed.cost, replayed.pick)


def test_time_passes_as_the_epochs_take_it() -> None:
    alone = simulate(WORLD, Pruning(NopPruner(), N, EPOCHS), 1)
    assert (alone.epochs, len(alone.complete)) == (N * EPOCHS, N)
    assert alone.wall == pytest.approx(WORLD.durations.sum())
    assert alone.busy == pytest.approx(alone.wall)
    # With a worker for each, it takes what the slowest takes.
    crowd = simulate(WORLD, Pruning(NopPruner(), N, EPOCHS), N + 5)
    assert crowd.wall == pytest.approx(WORLD.durations.sum(1).max())
    assert crowd.busy == pytest.approx(alone.busy)


def test_a_worker_that_is_free_waits_for_the_others_where_all_must_have_come() -> None:
    slow = WORLD.durations.copy()
    slow[0] = 100
    world = dataclasses.replace(WORLD, durations=slow)
    walls = {}
    for mode in ("async", "sync"):
        halving = Promotion.checked({"mode": mode, "epochs": EPOCHS}, prefix="")
        study = simulate(world, Promoting(halving, N), 4)
        walls[mode] = study.complete[study.pick][1]
    assert walls["async"] < 100 < walls["sync"]


def test_the_table_has_a_row_a_method() -> None:
    measured = measure_halving(
        n_configurations=N,
        n_workers=4,
        epochs=EPOCHS,
        reduction_factor=3,
        min_resource=1,
        seeds=2,
    )
    rows = {row["method"]: row for row in measured.rows}
    assert list(rows) == ["promote, async", "promote, sync", "Optuna's halving", "no pruner"]
    halving = Promotion(epochs=EPOCHS)
    sync, whole = rows["promote, sync"], rows["no pruner"]
    assert sync["trained_epochs"] == halving.expected_epochs(N)
    assert sync["trained_epochs_sd"] == 0
    assert (whole["trained_epochs"], whole["best_finished_percent"]) == (N * EPOCHS, 100)
    for row in rows.values():
        assert 0 < row["picked_at"] <= row["wall_epochs"] <= whole["wall_epochs"]
        assert row["regret_points"] >= 0
        assert 0 <= row["idle_percent"] < 100
        assert row["decisions_per_second"] > 0
    assert measured.settings["seeds"] == 2


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match="first rung must be below the horizon"):
        measure_halving(
            n_configurations=N,
            n_workers=4,
            epochs=EPOCHS,
            reduction_factor=3,
            min_resource=EPOCHS,
            seeds=1,
        )

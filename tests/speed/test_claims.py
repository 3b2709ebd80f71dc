"""Tests of the claims benchmark, and of standings while many workers look and claim at once."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from benchmarks.claims import BESIDE, PROMOTION, made_trials, measure_claims, time_sides
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import epochs_of
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.promotion import Promotion
from impon_hpo.tuning.standings import Standings

N = 40
HALVING = Promotion(reduction_factor=3, epochs=3)


def test_trials_are_as_a_study_leaves_them_whose_promotions_are_all_made() -> None:
    trials = made_trials(N)
    paused = [trial for trial in trials if trial.state == TrialState.WAITING]
    assert len(paused) == N
    assert len(trials) == N + 1  # the best of 41 has finished
    for trial in trials:
        assert list(epochs_of(trial.user_attrs)) == list(trial.intermediate_values)
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    standings = Standings(study, PROMOTION, Checkpoints(Path("checkpoints")))
    where = standings.look(study.get_trials())
    assert {standing.until for standing in where.values()} == {1, 3, 9, 27}
    assert all(s.paused or s.state == TrialState.COMPLETE for s in where.values())
    assert PROMOTION.moves(where, 2 * N).claims == ()


def test_all_sides_are_timed_in_turn_and_leave_nothing_behind() -> None:
    storage = open_storage("claims.journal", create=True)
    seconds = time_sides(storage, N, 4)
    assert list(seconds) == ["decision", "decision, all trials", "claim and pause", BESIDE]
    assert all(len(taken) == 4 and min(taken) > 0 for taken in seconds.values())
    assert not storage.get_all_studies()


def test_the_table_compares_with_optunas_halving() -> None:
    measured = measure_claims(storages=["sqlite:///claims.db"], n_paused=[27], rounds=1)
    assert [row["paused"] for row in measured.rows] == [27] * 4
    assert {row["storage"] for row in measured.rows} == {"sqlite"}
    assert measured.rows[-1]["what"] == BESIDE
    assert measured.rows[-1]["over_should_prune"] == 1


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="At least 27 trials must wait"):
        measure_claims(storages=[], n_paused=[10], rounds=1)
    with pytest.raises(ConfigError, match="rounds must be at least 1"):
        measure_claims(storages=[], n_paused=[27], rounds=0)

"""Tests of the claims benchmark, and of standings while many workers look and claim at once."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from benchmarks.claims import BESIDE, PROMOTION, made_trials, measure_claims, time_sides
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import PRUNED, epochs_of
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.promotion import Promotion, Standing
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


def halved(study: optuna.Study, values: list[float]) -> Standings:
    """Standings of a study in which trials of these values wait at the first rung."""
    standings = Standings(study, HALVING, Checkpoints(Path("checkpoints")))
    for value in values:
        trial = claim(standings)
        trial.report(value, 1)
        standings.pause(trial)
    return standings


def claim(standings: Standings, n_trials: int = 9) -> optuna.Trial:
    claimed = standings.claim(standings.read(), n_trials)
    assert claimed is not None
    return optuna.Trial(standings.study, claimed[0])


def test_a_slow_look_does_not_undo_what_others_have_written_meanwhile() -> None:
    study = optuna.create_study(direction="maximize")
    standings = halved(study, [0.5, 0.4, 0.3])
    looked = study.get_trials()
    promoted = claim(standings)
    standings.look(looked)
    assert standings.read()[promoted.number] == Standing(TrialState.RUNNING, 3, {1: 0.5})


def test_what_a_worker_left_half_written_is_corrected_while_its_trial_still_counts_as_held() -> (
    None
):
    study = optuna.create_study(direction="maximize")
    standings = halved(study, [0.5, 0.4, 0.3])
    before = study._storage.get_study_system_attrs(study._study_id)["impon:standing:0"]
    promoted = claim(standings)
    # It died before it wrote that.
    study._storage.set_study_system_attr(study._study_id, "impon:standing:0", before)
    assert standings.read()[promoted.number].paused
    standings.look(study.get_trials())
    assert standings.read()[promoted.number].under_way


def test_trials_that_nothing_can_promote_end_side_by_side() -> None:
    study = optuna.create_study(direction="maximize")
    standings = halved(study, [0.5, 0.4, 0.3])
    best = claim(standings, 3)
    study.tell(best, 0.6)
    standings.ended(study.get_trials()[best.number])
    first, second = claim(standings, 3), claim(standings, 3)
    assert {first.number, second.number} == {1, 2}
    assert [trial.user_attrs[PRUNED] for trial in (first, second)] == [
        "not promoted from epoch 1: place 2 of 3",
        "not promoted from epoch 1: place 3 of 3",
    ]
    # Also for who looks at the trials themselves, and puts their attributes right.
    assert standings.look(study.get_trials()) == standings.read()
    assert standings.claim(standings.read(), 3) is None


def test_a_trial_that_somebody_ends_while_it_is_claimed_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study(direction="maximize")
    standings = halved(study, [0.5, 0.4, 0.3])
    storage = study._storage
    get_trial = storage.get_trial

    def ended(trial_id: int) -> optuna.trial.FrozenTrial:
        monkeypatch.setattr(storage, "get_trial", get_trial)
        trial = get_trial(trial_id)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
        return trial

    monkeypatch.setattr(storage, "get_trial", ended)
    assert claim(standings).number == 3  # a new one instead of the promoted one

"""Where trials stand in a storage: claimed once, put back as they are, read in short."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from impon_hpo.errors import StorageError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import PRUNED, UNTIL, WORKER
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.lease import put_back
from impon_hpo.tuning.promotion import Promotion, Standing
from impon_hpo.tuning.standings import Standings

HALVING = Promotion(reduction_factor=3, epochs=9)
STORAGES = [
    *("sqlite", "journal", "postgres", "mysql"),
    pytest.param("proxy", marks=pytest.mark.slow),
]


@pytest.fixture
def proxy() -> Iterator[str]:
    """The address of a gRPC server in front of an empty database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "impon_hpo", "proxy", "--storage", "sqlite:///behind.db"]
    server = subprocess.Popen([*command, "--port", port], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.terminate()
    server.communicate()


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest) -> BaseStorage:
    """An empty storage of each kind."""
    addresses: dict[str, Callable[[], str]] = {
        "sqlite": lambda: "sqlite:///study.db",
        "journal": lambda: "study.journal",
    }
    kind: str = request.param
    address = addresses[kind]() if kind in addresses else str(request.getfixturevalue(kind))
    return open_storage(address, create=True)


def standings_in(
    storage: BaseStorage, *, halving: Promotion = HALVING, budget: float | None = None
) -> Standings:
    study = optuna.create_study(
        storage=storage, study_name="halved", direction="maximize", load_if_exists=True
    )
    return Standings(study, halving, Checkpoints(Path("checkpoints"), budget=budget))


def claim(standings: Standings, n_trials: int = 9) -> optuna.Trial | None:
    """Claim the next trial after a look at all trials."""
    trials = standings.study.get_trials(deepcopy=False)
    claimed = standings.claim(standings.look(trials), n_trials)
    return None if claimed is None else optuna.Trial(standings.study, claimed[0])


def train(standings: Standings, trial: optuna.Trial, value: float) -> None:
    """Report `value` up to the rung of a trial, and let it wait there or end."""
    frozen = standings.study._storage.get_trial(trial._trial_id)
    for epoch in range(len(frozen.intermediate_values) + 1, frozen.user_attrs[UNTIL] + 1):
        trial.report(value, epoch)
    trial.set_user_attr(WORKER, {})
    if frozen.user_attrs.get(PRUNED):
        standings.study.tell(trial, state=TrialState.PRUNED)
    elif frozen.user_attrs[UNTIL] == standings.promotion.epochs:
        standings.study.tell(trial, value)
    else:
        standings.pause(trial)
        return
    standings.ended(standings.study._storage.get_trial(trial._trial_id))


def test_study_goes_through_its_rungs_on_every_storage(storage: BaseStorage) -> None:
    standings = standings_in(storage)
    values = [0.5, 0.6, 0.4, 0.1, 0.7, 0.2]
    course = []
    while (trial := claim(standings, len(values))) is not None:
        until = storage.get_trial(trial._trial_id).user_attrs[UNTIL]
        course.append((trial.number, until))
        train(standings, trial, values[trial.number])
    # 1 is the best of the first three; 4 comes to its rung later, and is better.
    assert course[:6] == [(0, 1), (1, 1), (2, 1), (1, 3), (3, 1), (4, 1)]
    assert course[6:9] == [(4, 3), (5, 1), (4, 9)]
    trials = standings.study.get_trials()
    assert [t.number for t in trials if t.state == TrialState.COMPLETE] == [4]
    assert {t.user_attrs.get(PRUNED) for t in trials if t.state == TrialState.PRUNED} == {
        "not promoted from epoch 3: place 2 of 2",
        "not promoted from epoch 1: place 3 of 6",
        "not promoted from epoch 1: place 4 of 6",
        "not promoted from epoch 1: place 5 of 6",
        "not promoted from epoch 1: place 6 of 6",
    }
    # What is read in short is what the trials say, to the end.
    short = standings.read()
    assert short == standings.look(trials)
    assert sum(standing.left_behind for standing in short.values()) == 5


def test_trial_is_claimed_once_and_not_by_who_has_looked_too_early(storage: BaseStorage) -> None:
    mine, theirs = standings_in(storage), standings_in(storage)
    for value in (0.5, 0.6, 0.4):
        trial = claim(mine)
        assert trial is not None
        train(mine, trial, value)
    looked = theirs.look(theirs.study.get_trials(deepcopy=False))
    promoted = claim(mine)
    assert promoted is not None
    assert promoted.number == 1
    # It is held: the other worker begins a new one instead.
    claimed = theirs.claim(looked, 9)
    assert claimed is not None
    assert claimed[1] == 3
    train(mine, promoted, 0.6)  # now it waits again, but at another rung
    claimed = theirs.claim(looked, 9)
    assert claimed is not None
    assert claimed[1] == 4
    trial_1 = mine.study.get_trials()[1]
    assert (trial_1.state, trial_1.user_attrs[UNTIL]) == (TrialState.WAITING, 3)


def test_interrupted_then_promoted_then_enqueued_then_new(storage: BaseStorage) -> None:
    standings = standings_in(storage)
    for value in (0.5, 0.6, 0.4):
        trial = claim(standings)
        assert trial is not None
        train(standings, trial, value)
    interrupted = claim(standings)
    assert interrupted is not None
    assert interrupted.number == 1
    interrupted.report(0.6, 2)
    put_back(standings.study, interrupted._trial_id)
    standings.study.enqueue_trial({"x": 1.0})
    again = claim(standings)
    assert again is not None
    assert again.number == 1
    assert storage.get_trial(again._trial_id).user_attrs[UNTIL] == 3
    enqueued = claim(standings)
    assert enqueued is not None
    assert enqueued.number == 3
    assert enqueued.suggest_float("x", 0, 2) == 1.0
    new = claim(standings)
    assert new is not None
    assert new.number == 4


def test_short_attributes_are_corrected_after_a_worker_was_lost(storage: BaseStorage) -> None:
    standings = standings_in(storage)
    trial = claim(standings)
    assert trial is not None
    train(standings, trial, 0.5)
    # Killed between the end of a trial and what is noted of it.
    lost = claim(standings)
    assert lost is not None
    standings.study.tell(lost, state=TrialState.FAIL)
    assert standings.read()[1].state == TrialState.RUNNING
    standings.look(standings.study.get_trials(deepcopy=False))
    assert standings.read()[1].state == TrialState.FAIL
    # Killed between the making of a trial and what is noted of it.
    storage.create_new_trial(standings.study._study_id)
    assert 2 not in standings.read()
    standings.look(standings.study.get_trials(deepcopy=False))
    assert standings.read()[2].state == TrialState.RUNNING


def test_teacher_is_alone_until_it_has_taught(storage: BaseStorage) -> None:
    untaught = True
    study = standings_in(storage).study
    standings = Standings(
        study, HALVING, Checkpoints(Path("checkpoints")), untaught=lambda: untaught
    )
    teacher = claim(standings)
    assert teacher is not None
    assert storage.get_trial(teacher._trial_id).user_attrs[UNTIL] == 9
    assert claim(standings) is None
    train(standings, teacher, 0.5)
    untaught = False
    second = claim(standings)
    assert second is not None
    assert storage.get_trial(second._trial_id).user_attrs[UNTIL] == 1


def test_study_that_has_ended_refuses_more_trials() -> None:
    standings = standings_in(open_storage("study.journal", create=True))
    while (trial := claim(standings, 3)) is not None:
        train(standings, trial, 0.1 * trial.number)
    before = standings.study.get_trials()
    with pytest.raises(StorageError, match="cannot grow to 4"):
        claim(standings, 4)
    assert standings.study.get_trials() == before


def test_study_sampler_sees_paused_trials_as_pruned() -> None:
    standings = standings_in(open_storage("study.journal", create=True))
    for value in (0.5, 0.6):
        trial = claim(standings)
        assert trial is not None
        trial.suggest_float("x", 0, 1)
        train(standings, trial, value)
    seen = standings.seen_by_samplers().get_trials(states=(TrialState.PRUNED,))
    assert [(trial.number, trial.value, trial.last_step) for trial in seen] == [
        (0, 0.5, 1),
        (1, 0.6, 1),
    ]
    assert standings.study.get_trials(states=(TrialState.PRUNED,)) == []
    # So one that learns from what was tried knows the space, and proposes near the better one.
    new = storage_trial(standings)
    for study, space in (
        (standings.seen_by_samplers(), {"x": FloatDistribution(0, 1)}),
        (standings.study, {}),
    ):
        sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=0)
        assert sampler.infer_relative_search_space(study, new) == space


def storage_trial(standings: Standings) -> optuna.trial.FrozenTrial:
    storage, study = standings.study._storage, standings.study
    return storage.get_trial(storage.create_new_trial(study._study_id))


def write_checkpoint(standings: Standings, number: int, size: int) -> None:
    path = standings._checkpoints.of(standings.study, number).path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)


def test_checkpoints_of_those_that_are_the_furthest_from_going_on_make_room() -> None:
    standings = standings_in(open_storage("study.journal", create=True), budget=250)
    for value in (0.5, 0.6, 0.4, 0.6, 0.3):
        trial = claim(standings)
        assert trial is not None
        train(standings, trial, value)  # the fourth is 1 again, which waits at epoch 3 then
        write_checkpoint(standings, trial.number, 100)
    assert standings.read()[1].until == 3
    assert standings._checkpoints.numbers(standings.study) == {0, 1, 2, 3}
    held = 3  # another worker has just taken it up: it is not touched
    storage = standings.study._storage
    trial_id = standings.study.get_trials()[held]._trial_id
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    assert standings.delete_checkpoints() == [2, 0]
    assert standings._checkpoints.numbers(standings.study) == {1, held}
    states = [trial.state for trial in standings.study.get_trials()]
    assert states == [TrialState.WAITING] * 3 + [TrialState.RUNNING]
    assert standings.delete_checkpoints() == []


def test_those_whose_checkpoint_is_here_go_first_within_a_rung() -> None:
    halving = Promotion(reduction_factor=2, epochs=9)
    standings = standings_in(open_storage("study.journal", create=True), halving=halving)
    for value in (0.5, 0.6, 0.7, 0.8):
        trial_id = standings.study._storage.create_new_trial(standings.study._study_id)
        trial = optuna.Trial(standings.study, trial_id)
        trial.set_user_attr(UNTIL, 1)
        trial.report(value, 1)
        put_back(standings.study, trial_id)
    write_checkpoint(standings, 2, 1)
    first = claim(standings)
    assert first is not None
    assert first.number == 2
    second = claim(standings)
    assert second is not None
    assert second.number == 3


def three_waiting() -> Standings:
    """Standings of a study in which three trials wait at the last rung; 0 is the best."""
    halving = Promotion(reduction_factor=3, epochs=3)
    standings = standings_in(optuna.storages.InMemoryStorage(), halving=halving)
    for value in (0.5, 0.4, 0.3):
        train(standings, claimed(standings), value)
    return standings


def claimed(standings: Standings, n_trials: int = 9) -> optuna.Trial:
    """Claim the next trial after a short look."""
    trial = standings.claim(standings.read(), n_trials)
    assert trial is not None
    return optuna.Trial(standings.study, trial[0])


def test_a_slow_look_does_not_undo_what_others_have_written_meanwhile() -> None:
    standings = three_waiting()
    study = standings.study
    looked = study.get_trials()
    promoted = claimed(standings)
    standings.look(looked)
    assert standings.read()[promoted.number] == Standing(TrialState.RUNNING, 3, {1: 0.5})


def test_what_a_worker_left_half_written_is_corrected_while_its_trial_still_counts_as_held() -> (
    None
):
    standings = three_waiting()
    study = standings.study
    before = study._storage.get_study_system_attrs(study._study_id)["impon:standing:0"]
    promoted = claimed(standings)
    # It died before it wrote that.
    study._storage.set_study_system_attr(study._study_id, "impon:standing:0", before)
    assert standings.read()[promoted.number].paused
    standings.look(study.get_trials())
    assert standings.read()[promoted.number].under_way


def test_trials_that_nothing_can_promote_end_side_by_side() -> None:
    standings = three_waiting()
    study = standings.study
    best = claimed(standings, 3)
    study.tell(best, 0.6)
    standings.ended(study.get_trials()[best.number])
    first, second = claimed(standings, 3), claimed(standings, 3)
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
    standings = three_waiting()
    study = standings.study
    storage = study._storage
    get_trial = storage.get_trial

    def ended(trial_id: int) -> optuna.trial.FrozenTrial:
        monkeypatch.setattr(storage, "get_trial", get_trial)
        trial = get_trial(trial_id)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
        return trial

    monkeypatch.setattr(storage, "get_trial", ended)
    assert claimed(standings).number == 3  # a new one instead of the promoted one

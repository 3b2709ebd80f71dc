"""The lease: whose trial it is, who is gone, and that one trial has one worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.patience import PatientStorage
from impon_hpo.storage.trials import WORKER
from impon_hpo.tuning.lease import Lease, TakenOverError, Watch, claim, put_back, this_worker

STORAGES = ["sqlite:///study.db", "study.journal", "memory", "postgres", "mysql"]
ELSEWHERE = {"place": "another machine", "pid": 1, "began": "1", "beat": 0}


@pytest.fixture(params=STORAGES)
def study(request: pytest.FixtureRequest) -> optuna.Study:
    storage: BaseStorage = optuna.storages.InMemoryStorage()
    if request.param in {"postgres", "mysql"}:
        storage = open_storage(request.getfixturevalue(request.param), create=True)
    elif request.param != "memory":
        storage = open_storage(request.param, create=True)
    return optuna.create_study(storage=storage, direction="maximize")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def frozen(study: optuna.Study, number: int = 0) -> optuna.trial.FrozenTrial:
    return study.get_trials(deepcopy=False)[number]


def test_this_process_is_not_gone_and_an_ended_one_is(study: optuna.Study) -> None:
    trial = study.ask()
    Lease(study, trial, beat_seconds=15)
    assert not Watch().lost(frozen(study))
    code = "import json, impon_hpo.tuning.lease as l; print(json.dumps(l.this_worker()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    other = json.loads(said.stdout)
    assert other["place"] == this_worker()["place"]
    assert other["pid"] != os.getpid()
    trial.set_user_attr(WORKER, other)
    assert Watch().lost(frozen(study))


def test_process_that_got_an_old_number_is_not_taken_for_the_old_one(study: optuna.Study) -> None:
    trial = study.ask()
    trial.set_user_attr(WORKER, this_worker() | {"began": "before", "beat": 3})
    assert Watch().lost(frozen(study))


def test_worker_elsewhere_is_gone_when_it_is_silent_for_long(study: optuna.Study) -> None:
    clock = Clock()
    watch = Watch(grace=100, clock=clock)
    trial = study.ask()
    trial.set_user_attr(WORKER, ELSEWHERE)
    assert not watch.lost(frozen(study))
    clock.now = 99
    assert not watch.lost(frozen(study))
    trial.set_user_attr(WORKER, ELSEWHERE | {"beat": 1})
    clock.now = 150
    assert not watch.lost(frozen(study))
    clock.now = 251
    assert watch.lost(frozen(study))


def test_worker_that_takes_up_a_trial_again_has_not_been_silent_since(study: optuna.Study) -> None:
    clock = Clock()
    watch = Watch(grace=100, clock=clock)
    trial = study.ask()

    def beats_elsewhere() -> None:  # as this process does, on another machine
        Lease(study, trial, beat_seconds=15)
        worker = frozen(study).user_attrs[WORKER]
        trial.set_user_attr(WORKER, worker | {"place": "another machine"})

    beats_elsewhere()
    assert watch.take_back(study, study.trials) == []
    put_back(study, trial._trial_id)
    clock.now = 600
    assert claim(study, trial._trial_id)
    beats_elsewhere()
    assert watch.take_back(study, study.trials) == []
    clock.now = 701
    assert watch.take_back(study, study.trials) == [0]


def test_trial_without_a_worker_is_nobody_s_for_a_while_only(study: optuna.Study) -> None:
    clock = Clock()
    watch = Watch(grace=100, clock=clock)
    study.ask()
    assert watch.take_back(study, study.trials) == []
    clock.now = 101
    assert watch.take_back(study, study.trials) == [0]
    assert frozen(study).state == TrialState.WAITING


def test_lost_trial_goes_on_as_it_is(study: optuna.Study) -> None:
    trial = study.ask()
    value = trial.suggest_float("x", 0, 1)
    trial.report(0.5, step=1)
    trial.set_user_attr(WORKER, this_worker() | {"began": "before", "beat": 0})
    assert Watch().take_back(study, study.trials) == [0]
    again = study.ask()
    assert again.number == 0
    assert again.suggest_float("x", 0, 1) == value
    assert frozen(study).intermediate_values == {1: 0.5}
    Lease(study, again, beat_seconds=15)
    assert Watch().take_back(study, study.trials) == []
    study.tell(again, 0.7)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE]


def test_finished_trial_is_not_put_back(study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)
    assert not put_back(study, trial._trial_id)
    assert frozen(study).state == TrialState.COMPLETE


def test_worker_whose_trial_was_taken_over_is_told(study: optuna.Study) -> None:
    trial = study.ask()
    lease = Lease(study, trial, beat_seconds=15)
    lease.check()
    trial.set_user_attr(WORKER, ELSEWHERE)
    with pytest.raises(TakenOverError, match="another machine"):
        lease.check()


def wait_for(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_it_beats_while_it_is_held_and_not_after(study: optuna.Study) -> None:
    trial = study.ask()
    lease = Lease(study, trial, beat_seconds=0.01)

    def beat() -> int:
        return int(frozen(study).user_attrs[WORKER]["beat"])

    with lease.held():
        wait_for(lambda: beat() >= 3)
    after = beat()
    assert not [t for t in threading.enumerate() if t.name.startswith("lease")]
    time.sleep(0.05)
    assert beat() == after


class AwayForAWhile(PatientStorage):
    """A storage that cannot be written to the next `n_away` times."""

    n_away = 0

    def set_trial_user_attr(self, *arguments: Any) -> None:
        if self.n_away:
            self.n_away -= 1
            raise OSError("the storage is away")
        super().set_trial_user_attr(*arguments)


def test_beat_survives_a_storage_that_is_away_and_ends_when_it_is_taken_over(
    study: optuna.Study,
) -> None:
    storage = AwayForAWhile(study._storage, "x")
    through = optuna.load_study(study_name=study.study_name, storage=storage)
    trial = through.ask()
    lease = Lease(through, trial, beat_seconds=0.01)
    storage.n_away = 3
    with lease.held():
        first = frozen(study).user_attrs[WORKER]["beat"]
        wait_for(lambda: frozen(study).user_attrs[WORKER]["beat"] > first)
        assert storage.n_away == 0

        def left_alone() -> bool:  # a beat that was under way may come after it once
            study._storage.set_trial_user_attr(trial._trial_id, WORKER, ELSEWHERE)
            time.sleep(0.05)
            return bool(frozen(study).user_attrs[WORKER] == ELSEWHERE)

        wait_for(left_alone)

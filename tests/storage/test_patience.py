"""A storage whose server is away for a while."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from impon_hpo.errors import StorageError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.patience import PatientStorage


class Away(InMemoryStorage):
    """A storage whose server breaks the connection now and then, before or after doing its work."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.pattern = pattern
        self.calls = 0
        self.inside = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in vars(BaseStorage) or name.startswith("_") or not callable(found):
            return found
        return self._broken(found)

    def _broken(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*arguments: Any, **named: Any) -> Any:
            if self.inside:  # its own methods call each other
                return method(*arguments, **named)
            at = self.calls % len(self.pattern)
            self.calls += 1
            if self.pattern[at] == "b":
                raise gone()
            self.inside = True
            try:
                found = method(*arguments, **named)
            finally:
                self.inside = False
            if self.pattern[at] == "a":
                raise gone()
            return found

        broken.__name__ = method.__name__
        return broken


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impon_hpo.storage.patience.LONGEST_PAUSE", 0.05)


def gone() -> Exception:
    cause = sqlalchemy.exc.OperationalError("SELECT secret", {}, Exception("server closed"))
    error = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("pattern", ["b.", "bb..", "b....b."])
def test_what_did_not_come_through_is_said_again(pattern: str) -> None:
    study = optuna.create_study(storage=PatientStorage(Away(pattern), "x"), direction="maximize")
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(0.5, step=1)
        trial.set_user_attr("key", number)
        study.tell(trial, number)
    assert [trial.value for trial in study.trials] == [0, 1, 2]
    assert [trial.user_attrs["key"] for trial in study.trials] == [0, 1, 2]
    assert study.best_trial.number == 2


def test_end_whose_answer_was_lost_counts_once() -> None:
    away = Away(".")
    study = optuna.create_study(storage=PatientStorage(away, "x"))
    trial = study.ask()
    away.pattern, away.calls = "a....", 0
    assert study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert [one.value for one in study.trials] == [1.0]


def test_trial_finished_by_another_worker_is_still_refused() -> None:
    study = optuna.create_study(storage=PatientStorage(Away("."), "x"))
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [2.0])


def test_it_gives_up_in_the_end_and_says_what_to_do() -> None:
    away = Away(".")
    storage = PatientStorage(away, "postgresql://me:***@host/db", patience=0.3)
    study = optuna.create_study(storage=storage)
    away.pattern = "b"
    with pytest.raises(StorageError) as caught:
        study.ask()
    said = str(caught.value)
    assert "'postgresql://me:***@host/db' cannot be reached: server closed." in said
    assert "Then run the same command again. It was waited for 0 seconds." in said
    assert "secret" not in said
    begun = away.calls
    with pytest.raises(StorageError):  # what is left to do does not wait again
        study.ask()
    assert away.calls == begun + 1


def test_other_errors_are_not_waited_for() -> None:
    storage = PatientStorage(InMemoryStorage(), "x")
    study = optuna.create_study(storage=storage, study_name="one")
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(storage=storage, study_name="one")
    with pytest.raises(KeyError):
        storage.get_trial(12345)
    assert study.trials == []


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_real_server_that_is_restarted_is_waited_for(
    kind: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(kind)
    server = request.getfixturevalue(f"{kind}_server")
    study = optuna.create_study(storage=open_storage(address, create=True))
    trial = study.ask()
    server.stop()

    def start() -> None:
        time.sleep(1)
        server.ensure_postgres_running() if kind == "postgres" else server.start()

    thread = threading.Thread(target=start)
    thread.start()
    trial.report(0.5, step=1)
    study.tell(trial, 1.0)
    thread.join()
    assert [(one.value, one.intermediate_values) for one in study.trials] == [(1.0, {1: 0.5})]


class Interrupted(InMemoryStorage):
    """Ctrl-C is pressed in the middle of every call that makes a study."""

    def create_new_study(self, *given: Any, **named: Any) -> int:
        signal.raise_signal(signal.SIGINT)
        return super().create_new_study(*given, **named)


def test_call_comes_to_its_end_before_a_stop_is_heeded() -> None:
    inner = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        PatientStorage(inner, "here").create_new_study([StudyDirection.MAXIMIZE], "one")
    assert [study.study_name for study in inner.get_all_studies()] == ["one"]

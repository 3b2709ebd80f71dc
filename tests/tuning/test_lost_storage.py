"""A storage that fails under a worker, and a study or trial that is taken away: no trial pays."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from impon_hpo.storage.connect import open_storage
from tests.studies import write_study
from tests.tuning.forks import Forked, start
from tests.tuning.test_recovery import STUDY, outcome, record, tune, undisturbed

__all__ = ["undisturbed"]

FILES = {"study.db": "sqlite:///study.db", "study.journal": "study.journal"}
MANY = ("--trials", "1000")  # a slow test must find the worker at work


@pytest.fixture(autouse=True)
def _study() -> None:
    write_study(STUDY)


def worker(address: str, *arguments: str) -> Forked:
    """Start a worker, and return it when it trains."""
    started = start("tune", "small", "--arm", "impon", "--storage", address, *arguments)
    started.wait_until(lambda: "epoch 1/" in started.said)
    return started


def study_in(address: str) -> optuna.Study:
    return optuna.load_study(study_name="small-impon", storage=open_storage(address, create=False))


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    """The address of a storage of the kind that the test names."""
    kind = request.param
    return FILES[kind] if kind in FILES else str(request.getfixturevalue(kind))


KINDS = pytest.mark.parametrize("address", [*FILES, "postgres", "mysql"], indirect=True)


def refused(lost: Forked) -> str:
    """Wait for a worker that is to end with a sentence, and return what it said."""
    assert lost.wait() == 2, lost.said
    assert "Traceback" not in lost.said
    return lost.said


def delete_study_in(address: str) -> None:
    """Delete the study; a server's Optuna leaves it where a worker writes at the same moment."""
    storage = study_in(address)._storage
    while "small-impon" in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name="small-impon", storage=storage)


@KINDS
def test_worker_whose_study_is_deleted_ends_with_a_sentence_and_the_next_begins_anew(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = worker(address, *MANY)
    delete_study_in(address)
    said = refused(lost)
    assert "no longer holds the study or trial that this is about: it was deleted" in said
    assert tune(monkeypatch, "--storage", address, "--trials", "1") == 0
    assert record(address).n_finished == 1


@pytest.mark.slow
def test_worker_whose_study_is_deleted_behind_a_proxy_ends_with_a_sentence() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # In processes of their own: gRPC does not survive a fork.
    command = [sys.executable, "-m", "impon_hpo"]
    before = [*command, "proxy", "--storage", FILES["study.db"], "--port", str(port)]
    with subprocess.Popen(before, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        address = proxy.stdout.readline().strip()
        tuned = [*command, "tune", "small", "--arm", "impon", "--storage", address, *MANY]
        with subprocess.Popen(tuned, stderr=subprocess.PIPE, text=True) as lost:
            assert lost.stderr is not None
            while "epoch 1/" not in (line := lost.stderr.readline()):
                assert line, "the worker ended"
            delete_study_in(FILES["study.db"])
            said = lost.stderr.read()
            assert lost.wait(60) == 2, said
        proxy.kill()
    assert f"Storage '{address}' no longer holds the study or trial" in said
    assert "Traceback" not in said


@KINDS
def test_trial_that_is_failed_by_hand_is_left_and_the_worker_goes_on(address: str) -> None:
    going = worker(address, *MANY)
    study = study_in(address)
    number = len(study.trials)
    going.wait_until(lambda: len(study.trials) > number)
    study.tell(number, state=TrialState.FAIL)
    going.wait_until(lambda: len(study.trials) > number + 2)
    os.kill(going.pid, signal.SIGTERM)
    assert going.wait() == 143, going.said
    assert "Traceback" not in going.said
    assert study.trials[number].state == TrialState.FAIL


def worker_on_full_disk(name: str) -> Forked:
    """Start a worker, and return it when it waits for room on the disk of its storage."""
    other = optuna.create_study(storage=open_storage(FILES[name], create=True))
    other.set_user_attr("larger than a checkpoint", "x" * 3_000_000)
    going = worker(FILES[name])
    # No file grows beyond this: as if the storage's disk were full, and no other.
    full = Path(name).stat().st_size
    resource.prlimit(going.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    going.wait_until(lambda: "it is waited for, and no trial is lost" in going.said)
    return going


@pytest.mark.parametrize(
    "name", [pytest.param("study.db", marks=pytest.mark.slow), "study.journal"]
)
def test_study_goes_on_when_the_full_disk_of_its_storage_has_room_again(
    name: str, undisturbed: list[dict[str, object]]
) -> None:
    going = worker_on_full_disk(name)
    resource.prlimit(going.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert going.wait() == 0, going.said
    assert going.said.count("it is waited for") == 1
    assert outcome(record(FILES[name])) == undisturbed


def test_worker_that_waits_for_its_storage_is_stopped_by_one_ctrl_c() -> None:
    going = worker_on_full_disk("study.journal")
    os.kill(going.pid, signal.SIGINT)
    assert going.wait(seconds=20) in (2, 130), going.said
    assert "Traceback" not in going.said
    assert record(FILES["study.journal"]).count("FAIL") == 0


@pytest.mark.parametrize("name", FILES)
def test_trial_whose_storage_is_moved_away_is_continued_when_it_is_back(
    name: str, undisturbed: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = worker(FILES[name])
    Path(name).rename("elsewhere")
    assert "was deleted, moved or replaced while it was in use" in refused(lost)
    assert not Path(name).exists()
    Path("elsewhere").rename(name)
    assert record(FILES[name]).count("FAIL") == 0
    assert tune(monkeypatch, "--storage", FILES[name]) == 0
    assert outcome(record(FILES[name])) == undisturbed

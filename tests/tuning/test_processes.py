"""Several workers: threads and devices shared out, all of them heard, stopped and ended."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import read_studies
from impon_hpo.tuning import processes
from impon_hpo.tuning.processes import Orders, run_workers
from tests.studies import SMALL, write_study
from tests.tuning.forks import start

# Stands in for `python -m impon_hpo`: says what it was given, and ends as its arguments say.
STAND_IN = """
import json, os, signal, sys, time
def stop(number, frame):
    print("stopped", file=sys.stderr, flush=True)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
orders = json.loads(sys.argv[2])
said = [sys.argv[1], orders["study"], orders["device"], os.environ.get("IMPON_HPO_STORAGE")]
print(*said, "threads", os.environ["OMP_NUM_THREADS"], file=sys.stderr, flush=True)
if orders["study"] == "sleep":
    time.sleep(60)
if orders["study"] == "die" and orders["device"] == "cuda:1":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(3 if orders["study"] == "fail" else 0)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stand-in" / "impon_hpo"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.mark.usefixtures("stand_in")
def test_devices_and_threads_are_shared_out(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    orders = Orders("tune", "mine", storage="sqlite:///secret.db")
    assert run_workers(orders, ["cuda:0", "cuda:1"], n=3) == 0
    assert sorted(said) == [
        "[0] worker mine cuda:0 sqlite:///secret.db threads 2",
        "[1] worker mine cuda:1 sqlite:///secret.db threads 2",
        "[2] worker mine cuda:0 sqlite:///secret.db threads 2",
    ]


def test_orders_are_the_same_on_the_other_side_but_for_the_storage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders = Orders(
        "compare",
        "studies/a study",
        settings=["lr=0.1", 'question="Why?"'],
        storage="postgresql+psycopg://me:secret@host/db",
        arms=["memory@1/3"],
        max_cost=1e6,
        command="impon-hpo compare 'studies/a study'",
    )
    assert "secret" not in orders.to_json()
    monkeypatch.setenv("IMPON_HPO_STORAGE", str(orders.storage))
    assert Orders.from_json(orders.to_json()) == orders


@pytest.mark.usefixtures("stand_in")
def test_mistake_of_all_is_the_exit_code_and_death_of_one_is_told(said: list[str]) -> None:
    assert run_workers(Orders("tune", "fail"), [], n=2) == 3
    assert run_workers(Orders("tune", "die"), ["cuda:0", "cuda:1"], n=2) == 0
    assert "[1] was killed by SIGKILL; its trial is continued" in said


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_reaches_all(number: signal.Signals, said: list[str]) -> None:
    before = signal.getsignal(number)
    lines = itertools.count(1)  # two threads log

    def stop(record: logging.LogRecord) -> bool:
        if next(lines) == 2:  # both have begun
            os.kill(os.getpid(), number)
        return True

    log = logging.getLogger("impon_hpo")
    log.addFilter(stop)
    try:
        assert run_workers(Orders("tune", "sleep"), [], n=2) == 128 + number
    finally:
        log.removeFilter(stop)
    if number == signal.SIGTERM:
        assert sorted(said[2:]) == ["[0] stopped", "[1] stopped"]
    assert signal.getsignal(number) is before


def test_worker_ends_when_its_parent_is_killed() -> None:
    code = (
        "import os, subprocess, sys, time\n"
        f"os.environ['{processes.PARENT}'] = str(os.getpid())\n"
        "child = 'import time; from impon_hpo.tuning.processes import end_with_parent; '\n"
        "child += \"end_with_parent(); print('here', flush=True); time.sleep(60)\"\n"
        "worker = subprocess.Popen([sys.executable, '-c', child])\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "here\n"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["sqlite:///shared.db", "shared.journal"])
def test_two_workers_do_a_study_once(address: str) -> None:
    write_study(SMALL.replace("n_trials = 3", "n_trials = 6"))
    tune = ["tune", "small", "--arm", "uniform", "--storage", address]
    process = start(*tune, "--workers", "2", "--format", "json")
    assert process.wait() == 0, process.said
    assert "[0] " in process.said
    assert "[1] " in process.said
    (record,) = read_studies(open_storage(address, create=False), "small")
    trials = [trial for trial in record.trials if trial.finished]
    assert [trial.number for trial in trials] == list(range(6))
    assert len({trial.params["lr"] for trial in trials}) == 6
    # Both may have asked for the last one at once: the one too many waits for a greater n_trials.
    assert {trial.state for trial in record.trials[6:]} <= {"WAITING"}
    assert not any(trial.epochs for trial in record.trials[6:])
    for trial in trials:
        assert [epoch["epoch"] for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
        assert trial.cost == sum(epoch["cost"] for epoch in trial.epochs)
    assert isinstance(record.optuna_study, optuna.Study)

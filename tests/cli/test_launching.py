"""Workers handed on: to devices, to a cluster, through a proxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from impon_hpo.cli.app import app
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import StudyRecord, read_comparison, read_studies
from impon_hpo.tuning.processes import _parameters
from tests.comparing.tiny import ONLY_IMPON, TINY, gathered, tiny_study, without_seconds
from tests.comparing.tiny import record as record_comparison
from tests.studies import SMALL, write_study
from tests.tuning.test_recovery import outcome

IMPON_HPO = [sys.executable, "-m", "impon_hpo"]
LONGER = SMALL.replace("epochs = 3", "epochs = 27").replace("subset = 240", "subset = 1200")


def wait_for(what: Callable[[], bool], *, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "it does not come to that"
        time.sleep(0.2)


def record(address: str) -> StudyRecord | None:
    try:
        (found,) = read_studies(open_storage(address, create=False), "small")
    except Exception:
        return None
    return found


def n_epochs(address: str) -> int:
    found = record(address)
    return 0 if found is None else sum(len(trial.epochs) for trial in found.trials)


def undisturbed() -> StudyRecord:
    subprocess.run([*IMPON_HPO, "tune", "small", "--storage", "whole.journal"], check=True)
    found = record("whole.journal")
    assert found is not None
    return found


@pytest.mark.slow
def test_preempted_job_saves_and_continues(capfd: pytest.CaptureFixture[str]) -> None:
    write_study(LONGER)
    address = "sqlite:///cluster.db"
    command = [*IMPON_HPO, "tune", "small", "--storage", address, "--launcher", "local"]
    with Path("job").open("w") as said:  # no pipe, which the job would keep open
        subprocess.run([*command, "--job", "timeout_min=5"], check=True, stdout=said)
    (job,) = Path("job").read_text().split()
    wait_for(lambda: n_epochs(address) >= 2)
    asked = subprocess.run(["pgrep", "-P", job], check=False, capture_output=True, text=True)
    children = asked.stdout.split()
    assert children
    for child in children:  # as Slurm does when it takes the machine away
        os.kill(int(child), signal.SIGUSR2)
    wait_for(lambda: (found := record(address)) is not None and found.n_finished == 3)
    found = record(address)
    assert found is not None
    assert outcome(found) == outcome(undisturbed())
    log = "".join(path.read_text() for path in Path("runs/small/jobs", job).glob("*log.*"))
    assert "preempted" in log
    assert "Interrupted. The same command continues." in log


def test_cluster_that_is_not_there_is_a_clear_mistake() -> None:
    write_study()
    done = CliRunner().invoke(
        app, ["tune", "small", "--launcher", "slurm", "--storage", "x.journal"]
    )
    assert isinstance(done.exception, ConfigError)
    assert "cannot be submitted to 'slurm'" in str(done.exception)


def test_parameters_of_jobs() -> None:
    given = ["timeout_min=60", "slurm_partition=gpu", "slurm_account=1a"]
    assert _parameters(given) == {
        "timeout_min": 60,
        "slurm_partition": "gpu",
        "slurm_account": "1a",
    }
    with pytest.raises(ConfigError, match="--job takes key=value, but got 'gpu'"):
        _parameters(["gpu"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def proxy(port: int) -> Iterator[str]:
    """Run a proxy in front of behind.db, and kill it at the end."""
    started = subprocess.Popen(
        [*IMPON_HPO, "proxy", "--storage", "sqlite:///behind.db", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert started.stdout is not None
    address = started.stdout.readline().strip()
    try:
        assert address == f"grpc://127.0.0.1:{port}"
        yield address
    finally:
        started.kill()
        started.communicate()


@pytest.mark.slow
def test_study_goes_on_through_a_proxy_that_is_restarted() -> None:
    write_study(LONGER)
    port = free_port()
    with proxy(port) as address:
        worker = subprocess.Popen([*IMPON_HPO, "tune", "small", "--storage", address])
        wait_for(lambda: n_epochs("sqlite:///behind.db") >= 2)
    time.sleep(1)
    with proxy(port):
        assert worker.wait(timeout=120) == 0
    found = record("sqlite:///behind.db")
    assert found is not None
    assert outcome(found) == outcome(undisturbed())


# The same of a comparison: what is recorded does not depend on who trains where.

SETTINGS = [part for setting in (*TINY, *ONLY_IMPON) for part in ("--set", setting)]
COMPARE = [*IMPON_HPO, "compare", "small", *SETTINGS]


@pytest.fixture(scope="module")
def recorded_here(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The table of the tiny comparison that this process records alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        return without_seconds(record_comparison(tiny_study(*ONLY_IMPON)).rows)


def recorded(address: str) -> list[dict[str, Any]]:
    return without_seconds(gathered(tiny_study(*ONLY_IMPON), address).rows)


@pytest.mark.slow
def test_comparison_on_devices_given_out_to_workers(recorded_here: list[dict[str, Any]]) -> None:
    tiny_study(*ONLY_IMPON)
    shared = ["--storage", "shared.journal", "--devices", "cpu,cpu", "--workers", "2"]
    done = subprocess.run([*COMPARE, *shared], check=True, capture_output=True, text=True)
    assert "[0] " in done.stderr
    assert "[1] " in done.stderr
    assert "report: runs/small/report/index.html" in done.stdout
    assert recorded("shared.journal") == recorded_here


@pytest.mark.slow
def test_comparison_by_jobs_of_a_cluster(recorded_here: list[dict[str, Any]]) -> None:
    tiny_study(*ONLY_IMPON)
    address = "sqlite:///cluster.db"
    command = [*COMPARE, "--storage", address, "--launcher", "local", "--workers", "2"]
    with Path("jobs").open("w") as printed:  # no pipe, which the jobs would keep open
        subprocess.run([*command, "--job", "timeout_min=5"], check=True, stdout=printed)
    assert len(Path("jobs").read_text().split()) == 2

    def all_recorded() -> bool:
        records = read_comparison(open_storage(address, create=False), "small")
        n_wanted, n = (sum(r.n_wanted for r in records), sum(r.n_finished for r in records))
        return 0 < n_wanted == n

    wait_for(all_recorded)
    assert recorded(address) == recorded_here


@pytest.mark.slow
def test_comparison_through_a_proxy(recorded_here: list[dict[str, Any]]) -> None:
    tiny_study(*ONLY_IMPON)
    with proxy(free_port()) as address:
        command = [*COMPARE, "--storage", address]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "report: runs/small/report/index.html" in done.stdout
    assert recorded("sqlite:///behind.db") == recorded_here


def test_taken_port_is_a_clear_mistake() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["proxy", "--storage", "x.journal", "--port", port])
    assert isinstance(done.exception, ConfigError)
    assert f"Port {port} of 127.0.0.1 cannot be used" in str(done.exception)

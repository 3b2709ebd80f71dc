"""`bench.py scale --simulate`: hundreds of workers on one storage, with sleep for training."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.filled_study import (
    ARM,
    add_others,
    check_finished,
    open_filled,
    storage_kind,
    write_study_file,
)
from benchmarks.measure import (
    SERVERS,
    Measurement,
    SideProcess,
    machine_seconds,
    metered,
    named_seconds,
    surroundings,
)
from benchmarks.stand_in import Shift, WorkerTimes, build_workers
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.storage.connect import open_storage, quiet_studies
from impon_hpo.storage.trials import REASON
from impon_hpo.tuning.study import study_name
from impon_hpo.tuning.study_file import StudyFile


def measure_crowd(
    *,
    storage: str,
    n_workers: Sequence[int],
    epoch_seconds: float,
    trials_each: int,
    n_others: int = 0,
) -> Measurement:
    """Time what many workers do beside training on one storage, and whether it keeps up.

    Each worker is a thread with a storage of its own, in as many processes as there are cores,
    and runs `tune` with an objective that sleeps. All storages are open before the clock starts.
    Rates and shares are of the time in which all workers have something to train, without start
    and end. The simulation needs processors, too, and more than the server does. Where
    `cpu_percent` comes near 100, this machine is the limit, and only `server_ms_per_epoch` shows
    what the storage can bear: the processor time of a PostgreSQL or MySQL server on this machine,
    for all requests, divided by the epochs.

    Args:
        storage: An address; a relative file is in a temporary folder. For each number of workers,
            a study is made in it and deleted.
        n_workers: Numbers of workers, each at least 1.
        epoch_seconds: What an epoch takes, on average.
        trials_each: Trials a worker, on average.
        n_others: Running trials in the study of other workers, who do nothing: every worker reads
            them as it would read those of a crowd that this machine has no room for.

    Raises:
        ConfigError: A number is too small.
        StorageError: The storage cannot be opened by any worker.
        ImponHpoError: A trial is not accounted for, or a process was lost.
    """
    if min(n_workers, default=0) < 1 or trials_each < 1 or not epoch_seconds > 0:
        raise ConfigError(
            f"There must be at least 1 worker, 1 trial each and an epoch of more than 0 seconds, "
            f"but got {list(n_workers)}, {trials_each} and {epoch_seconds}."
        )
    around = surroundings("cpu")
    rows, errors = [], Counter[str]()
    with quiet_studies(), tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for n in n_workers:
            study_file = write_study_file(Path(name) / f"crowd-{uuid.uuid4().hex[:8]}", width=2)
            study = open_filled(study_file, open_storage(storage, create=True), 0)
            try:
                add_others(study_file, study, n_others)
                crowd = Crowd(n, n_others, n_trials=n_others + n * trials_each)
                row, new_errors = _simulate(study_file, study, storage, crowd, epoch_seconds)
            finally:
                optuna.delete_study(study_name=study_name(study_file, ARM), storage=study._storage)
            rows.append(row)
            errors += new_errors
    settings = {
        "storage": storage_kind(storage),
        "epoch_seconds": epoch_seconds,
        "trials_each": trials_each,
        "errors": dict(errors),
    }
    return Measurement("scale, simulated", settings, around, rows)


@dataclass(frozen=True)
class Crowd:
    """Numbers of live workers and of other workers' trials; `n_trials` are finished in the end."""

    n_workers: int
    n_others: int
    n_trials: int


def _simulate(
    study_file: StudyFile,
    study: optuna.Study,
    address: str,
    crowd: Crowd,
    epoch_seconds: float,
) -> tuple[dict[str, Any], Counter[str]]:
    """Run one number of workers; return its row, and how often each error came."""
    n = crowd.n_workers
    n_processes = min(os.cpu_count() or 1, n)
    shared = {
        "folder": str(study_file.folder),
        "address": address,
        "n_trials": crowd.n_trials,
        "epoch_seconds": epoch_seconds,
    }
    parts = [shared | {"numbers": range(at, n, n_processes)} for at in range(n_processes)]
    with ThreadPoolExecutor(n_processes) as pool, contextlib.ExitStack() as stack:
        # Making one and calling it waits for its process, so each gets a thread.
        sides = list(pool.map(lambda part: SideProcess(build_workers, part), parts))
        for side in sides:
            stack.enter_context(side)
        servers = SERVERS.get(storage_kind(address).partition("+")[0], set[str]())
        with (
            metered(machine_seconds) as machine,
            metered(lambda: named_seconds(servers)) as server,
            _others_ended(study, crowd),
        ):
            shifts: list[Shift] = list(pool.map(lambda side: side(), sides))
    workers = [worker for shift in shifts for worker in shift.workers]
    refused = [error for shift in shifts for error in shift.refused]
    if not workers:
        raise StorageError(f"No worker could open the storage: {refused[0]}")
    trials = check_finished(study, crowd.n_trials)[crowd.n_others :]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    errors = Counter([*refused, *(worker.error for worker in workers if worker.error)])
    errors += Counter(trial.user_attrs.get(REASON, "failed") for trial in failed)
    begin, end, slept = all_at_work(workers)
    seconds = end - begin
    used = sum(shift.used.between(begin, end) for shift in shifts)
    server_seconds = server.between(begin, end)
    busy = machine.between(begin, end)
    row = {
        "workers": n,
        "others": crowd.n_others,
        "refused": len(refused),
        "epochs_per_second": _short(len(slept) / seconds),
        "wanted": _short(n / epoch_seconds),
        "percent_training": round(100 * sum(slept) / (seconds * len(workers)), 1),
        **_delays(workers, begin, end),
        "worker_ms_per_epoch": _short(1e3 * used / len(slept)),
        "server_ms_per_epoch": _short(1e3 * server_seconds / len(slept)) if server_seconds else "",
        "cpu_percent": round(100 * busy / (seconds * (os.cpu_count() or 1)), 1),
        "seconds": round(seconds, 1),
        "errors": errors.total() - len(refused),
    }
    return row, errors


@contextlib.contextmanager
def _others_ended(study: optuna.Study, crowd: Crowd) -> Iterator[None]:
    """End the trials of others once all the rest is done, because workers wait for them."""
    over = threading.Event()

    def watch() -> None:
        reading = 0.0
        # A twentieth of its time at most: working workers read far more.
        while crowd.n_others and not over.wait(max(1.0, 20 * reading)):
            begun = time.perf_counter()
            with contextlib.suppress(Exception):  # the next look tries again
                trials = study.get_trials(deepcopy=False)
                reading = time.perf_counter() - begun
                done = sum(trial.state.is_finished() for trial in trials[crowd.n_others :])
                if done == crowd.n_trials - crowd.n_others:
                    for trial in trials[: crowd.n_others]:
                        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def all_at_work(workers: Sequence[WorkerTimes]) -> tuple[float, float, list[float]]:
    """Return the moments from which and to which all workers had a trial, and the seconds that the
    epochs that ended between them were meant to take.

    Where there is no such time, it is from the first start to the last end.
    """
    worked = [worker for worker in workers if worker.epochs]
    epochs = [epoch for worker in worked for epoch in worker.epochs]
    begin = max(moment - seconds for moment, seconds in (worker.epochs[0] for worker in worked))
    end = min(worker.ended for worker in worked)
    slept = _within(epochs, begin, end)
    if not slept:
        begin = min(worker.begun for worker in worked)
        end = max(worker.ended for worker in worked)
        slept = _within(epochs, begin, end)
    return begin, end, slept


def _within(taken: Iterable[tuple[float, float]], begin: float, end: float) -> list[float]:
    """Return the seconds of each (moment, seconds) that lies between two moments."""
    return [seconds for moment, seconds in taken if begin <= moment <= end]


def _delays(workers: Sequence[WorkerTimes], begin: float, end: float) -> dict[str, float]:
    """Return the median and the 95th percentile of the pauses between epochs and between trials
    that ended between two moments."""
    columns = {}
    for what in ("epochs", "trials"):
        taken = [one for worker in workers for one in getattr(worker, f"between_{what}")]
        seconds = _within(taken, begin, end)
        median, late = np.quantile(seconds, [0.5, 0.95]) if seconds else (np.nan, np.nan)
        columns[f"ms_between_{what}"] = _short(1e3 * median)
        columns[f"ms_between_{what}_p95"] = _short(1e3 * late)
    return columns


def _short(figure: float) -> float:
    return float(f"{figure:.4g}")

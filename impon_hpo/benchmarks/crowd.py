"""`benchmark scale --simulate`: hundreds of workers on one storage, with sleep for training."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from impon_hpo.benchmarks.filled_study import (
    ARM,
    check_finished,
    open_filled,
    storage_kind,
    write_study_file,
)
from impon_hpo.benchmarks.measure import Measurement, surroundings
from impon_hpo.benchmarks.side_process import SideProcess
from impon_hpo.benchmarks.stand_in import Shift, WorkerTimes, build_workers
from impon_hpo.errors import ConfigError, StorageError
from impon_hpo.record import REASON
from impon_hpo.storage import open_storage, quiet_studies
from impon_hpo.tuning.study import study_name
from impon_hpo.tuning.study_file import StudyFile


def measure_crowd(
    *, storage: str, n_workers: Sequence[int], epoch_seconds: float, trials_each: int
) -> Measurement:
    """Time what many workers do beside training on one storage, and whether it keeps up.

    Each worker is a thread with a storage of its own, in as many processes as there are cores,
    and runs `tune` with an objective that sleeps. All storages are open before the clock starts.
    The simulation needs processors as well: where `cpu_percent` and `other_cpu_percent` (the
    server's, if it runs here) come near to 100 together, this machine is the limit, and the
    greater of them says which side of it.

    Args:
        storage: An address; a file that is relative is in a temporary folder. A study is made in
            it for each number of workers, and deleted.
        n_workers: Numbers of workers, each at least 1.
        epoch_seconds: What an epoch takes, on average.
        trials_each: Trials a worker, on average.

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
                row, met = _simulate(study_file, study, storage, n, n * trials_each, epoch_seconds)
            finally:
                optuna.delete_study(study_name=study_name(study_file, ARM), storage=study._storage)
            rows.append(row)
            errors += met
    settings = {
        "storage": storage_kind(storage),
        "epoch_seconds": epoch_seconds,
        "trials_each": trials_each,
        "errors": dict(errors),
    }
    return Measurement("scale, simulated", settings, around, rows)


def _simulate(
    study_file: StudyFile,
    study: optuna.Study,
    address: str,
    n: int,
    n_trials: int,
    epoch_seconds: float,
) -> tuple[dict[str, Any], Counter[str]]:
    """Run one number of workers; return its row, and the errors met with how often."""
    n_processes = min(os.cpu_count() or 1, n)
    shared = {
        "folder": str(study_file.folder),
        "address": address,
        "n_trials": n_trials,
        "epoch_seconds": epoch_seconds,
    }
    parts = [shared | {"numbers": range(at, n, n_processes)} for at in range(n_processes)]
    with ThreadPoolExecutor(n_processes) as pool, contextlib.ExitStack() as stack:
        # Making and calling one waits for its process, so from a thread for each.
        sides = list(pool.map(lambda part: SideProcess(build_workers, part), parts))
        for side in sides:
            stack.enter_context(side)
        busy, begun = _busy_seconds(), time.perf_counter()
        shifts: list[Shift] = list(pool.map(lambda side: side(), sides))
        seconds, busy = time.perf_counter() - begun, _busy_seconds() - busy
    workers = [worker for shift in shifts for worker in shift.workers]
    refused = [said for shift in shifts for said in shift.refused]
    if not workers:
        raise StorageError(f"No worker could open the storage: {refused[0]}")
    trials = check_finished(study, n_trials)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    errors = Counter([*refused, *(worker.error for worker in workers if worker.error)])
    errors += Counter(trial.user_attrs.get(REASON, "failed") for trial in failed)
    capacity = seconds * (os.cpu_count() or 1)
    cpu = sum(shift.cpu_seconds for shift in shifts)
    row = dict[str, Any](workers=n, refused=len(refused)) | _figures(workers, n / epoch_seconds)
    row |= {
        "cpu_percent": round(100 * cpu / capacity, 1),
        "other_cpu_percent": round(100 * max(0.0, busy - cpu) / capacity, 1),
        "seconds": round(seconds, 1),
        "errors": errors.total() - len(refused),
    }
    return row, errors


def _figures(workers: Sequence[WorkerTimes], wanted: float) -> dict[str, Any]:
    """Return the rate, each worker's over its own time, and where the rest of the time went."""
    worked = [worker for worker in workers if worker.epochs]
    rate = sum(worker.epochs / worker.worked for worker in worked)
    share = sum(worker.slept for worker in worked) / sum(worker.worked for worker in worked)
    found: dict[str, Any] = {
        "epochs_per_second": _short(rate),
        "wanted": _short(wanted),
        "percent_training": round(100 * share, 1),
    }
    for what in ("epochs", "trials"):
        seconds = [part for worker in worked for part in getattr(worker, f"between_{what}")]
        median, late = np.quantile(seconds, [0.5, 0.95]) if seconds else (np.nan, np.nan)
        found[f"ms_between_{what}"] = _short(1e3 * median)
        found[f"ms_between_{what}_p95"] = _short(1e3 * late)
    return found


def _busy_seconds() -> float:
    """Return the processor seconds that this machine has spent, all processes together."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def _short(figure: float) -> float:
    return float(f"{figure:.4g}")

"""`bench.py scale`: throughput of a study against the number of its worker processes."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.filled_study import (
    ARM,
    check_finished,
    open_filled,
    storage_kind,
    write_study_file,
)
from benchmarks.measure import Measurement, ratios, spread, surroundings
from impon_hpo import ImponHpoError
from impon_hpo.errors import ConfigError
from impon_hpo.storage.connect import open_storage, quiet_studies
from impon_hpo.storage.trials import REASON, epochs_of
from impon_hpo.tuning.processes import Orders, run_workers
from impon_hpo.tuning.study import study_name

DIGITS = 1024
"""Training rows of an epoch."""


@dataclass(frozen=True)
class Pace:
    """How fast a study was run: trials and epochs a minute."""

    trials: float
    epochs: float


def measure_scale(
    *, n_workers: Sequence[int], storage: str | None, width: int, trials: int, rounds: int
) -> Measurement:
    """Run a small study of digits with each number of workers, in turn, as `tune --workers` does.

    The workers share the threads of this process (`OMP_NUM_THREADS`, else all cores). A study
    lasts from the start of its first trial to the end of its last one, so that loading torch does
    not count, but a worker that has nothing left to do does.

    Args:
        n_workers: Numbers of workers, each at least 1; the others are compared with the smallest.
        storage: An address; a relative file is in a temporary folder; default: a journal there.
            Every study is a new one, and deleted afterwards.
        width: Channels of the model's first stage.
        trials: Trials of a study.
        rounds: Times that each number of workers counts.

    Raises:
        ConfigError: A number is too small.
        StorageError: The storage cannot be opened.
        ImponHpoError: A worker or a trial failed, or a trial is not accounted for.
    """
    if min(n_workers, default=0) < 1 or trials < 1 or rounds < 1:
        raise ConfigError(
            "There must be at least 1 worker, 1 trial and 1 round, but got "
            f"{list(n_workers)}, {trials} and {rounds}."
        )
    around = surroundings("cpu")
    numbers = sorted(set(n_workers))
    paces: dict[int, list[Pace]] = {n: [] for n in numbers}
    # Tuning writes runs/ into the working directory.
    with quiet_studies(), tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        address = storage or "scale.journal"
        for _ in range(rounds):
            for n in numbers:
                paces[n].append(run_study(Path(name), address, n, width=width, trials=trials))
    first = [pace.epochs for pace in paces[numbers[0]]]
    rows = [
        dict[str, Any](workers=n)
        | spread([pace.trials for pace in paces[n]]).columns("trials_per_minute")
        | spread([pace.epochs for pace in paces[n]]).columns("epochs_per_minute")
        | ratios([pace.epochs for pace in paces[n]], first).columns("times_fewest")
        for n in numbers
    ]
    settings = {
        "storage": storage_kind(address),
        "width": width,
        "rows": DIGITS,
        "trials": trials,
        "rounds": rounds,
    }
    return Measurement("scale", settings, around, rows)


def default_workers() -> list[int]:
    """Return 1, 2, 4 … up to twice the cores, beyond which nothing is gained."""
    cores = os.cpu_count() or 1
    return [2**power for power in range((2 * cores).bit_length())]


def run_study(folder: Path, address: str, n_workers: int, *, width: int, trials: int) -> Pace:
    """Run a new study in the storage by so many workers, delete it, and return its pace."""
    study_file = write_study_file(
        folder / f"scale-{uuid.uuid4().hex[:8]}", width=width, rows=DIGITS
    )
    study = open_filled(study_file, open_storage(address, create=True), 0)
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return False

    log = logging.getLogger("impon_hpo")
    log.addFilter(keep)  # a line an epoch of each worker says nothing here
    try:
        orders = Orders(
            "tune", str(study_file.folder), storage=address, arms=[ARM], n_trials=trials
        )
        code = run_workers(orders, [], n=n_workers)
        if code:
            raise ImponHpoError(f"The workers ended with code {code}: {lines[-1:]}")
        return pace_of(check_finished(study, trials))
    finally:
        log.removeFilter(keep)
        optuna.delete_study(study_name=study_name(study_file, ARM), storage=study._storage)


def pace_of(trials: Sequence[FrozenTrial]) -> Pace:
    """Return the pace of finished trials, from the first start to the last end.

    Raises:
        ImponHpoError: One of them failed.
    """
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if failed:
        raise ImponHpoError(f"{len(failed)} trial(s) failed: {failed[0].user_attrs.get(REASON)}")
    starts = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
    minutes = (max(ends) - min(starts)).total_seconds() / 60
    epochs = sum(len(epochs_of(trial.user_attrs)) for trial in trials)
    return Pace(trials=len(trials) / minutes, epochs=epochs / minutes)

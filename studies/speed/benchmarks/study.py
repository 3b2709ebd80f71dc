"""`bench.py study`: what a study takes beside its training, and how long its commands start."""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from benchmarks.filled_study import (
    ARM,
    Worker,
    open_filled,
    storage_kind,
    write_study_file,
)
from benchmarks.measure import Measurement, Spread, alternate, spread, surroundings
from impon_hpo import EpochResult, ImponHpoError, Objective
from impon_hpo.storage.connect import artifact_store, open_storage, quiet_studies
from impon_hpo.tuning.artifacts import Checkpoints
from impon_hpo.tuning.job import OnEpoch
from impon_hpo.tuning.processes import STORAGE
from impon_hpo.tuning.study_file import StudyFile

EPOCH_SECONDS = 5.0
"""The epoch that overheads are compared with."""

IMPORT = "import torch"

OPTIMIZER = f"{IMPORT}; torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)"
"""No training can begin without one, and the first one imports torch's compiler."""


def measure_study(
    *, storages: Sequence[str], n_trials: Sequence[int], width: int, trials: int, rounds: int
) -> Measurement:
    """Time what is done beside training in a study whose storage holds so many trials.

    Real trials of digits are run as `tune` runs them, and the training seconds of their epochs are
    subtracted. A row of "epoch" has the time between one epoch and the next: record, report,
    pruner, lease and checkpoint. A row of "trial" has all that a trial takes beside its epochs:
    ask, model, data, learning curve, tell. Then: how long commands take, each in a new process.

    Args:
        storages: Addresses, each of an empty database or a new file; a relative file is in a
            temporary folder; empty: SQLite and a journal there.
        n_trials: Trials in the storage, ascending.
        width: Channels of the model's first stage; the size of a checkpoint follows from it.
        trials: Trials run for each row.
        rounds: Times that each command is started.

    Raises:
        StorageError: A storage cannot be opened.
    """
    around = surroundings("cpu")
    rows: list[dict[str, Any]] = []
    # Tuning writes runs/ into the working directory.
    with quiet_studies(), tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        given = storages or [f"sqlite:///{folder / 'study.db'}", str(folder / "study.journal")]
        study_file = write_study_file(folder / "overhead", width=width)
        for address in given:
            for n in n_trials:
                rows += _rows_of(study_file, folder, address, n, trials)
            rows += _again(study_file, address, n_trials[-1], rounds)
    rows += _starts(rounds)
    settings = {"width": width, "trials": trials, "rounds": rounds, "epoch_seconds": EPOCH_SECONDS}
    return Measurement("study", settings, around, rows)


def _rows_of(
    study_file: StudyFile, folder: Path, address: str, n_trials: int, trials: int
) -> list[dict[str, Any]]:
    study = open_filled(study_file, open_storage(address, create=True), n_trials)
    of_epochs, of_trials = run_trials(study_file, study, folder, trials)
    named = {"storage": storage_kind(address), "trials": n_trials}
    return [
        _row(named | {"what": "epoch"}, spread(of_epochs), per_epoch=True),
        _row(named | {"what": "trial"}, spread(of_trials)),
    ]


def run_trials(
    study_file: StudyFile, study: optuna.Study, folder: Path, trials: int
) -> tuple[list[float], list[float]]:
    """Run so many more trials; return the seconds beside training, of each epoch and each trial."""
    clock = _Clock()
    worker = Worker(study_file, study)

    checkpoints = Checkpoints(folder / "checkpoints")
    objective = Objective(
        study_file.arms[ARM],
        study_file.space,
        artifact_store=artifact_store(str(folder / "artifacts")),
        checkpoints=checkpoints,
    )
    _ = objective.splits

    def train(trial: optuna.Trial, on_epoch: OnEpoch) -> float:
        def timed(trial: optuna.Trial, result: EpochResult) -> None:
            clock.epoch(result)
            on_epoch(trial, result)

        return float(objective(trial, timed))

    n_before = len(study.get_trials(deepcopy=False))
    for n_trials in range(n_before + 1, n_before + trials + 1):
        clock.begin()
        worker.run(train, n_trials=n_trials, checkpoints=checkpoints)
        clock.end()
    return clock.of_epochs, clock.of_trials


class _Clock:
    """Counts the time that passes, less the training seconds of each epoch."""

    def __init__(self) -> None:
        self.of_epochs: list[float] = []
        self.of_trials: list[float] = []
        self._begun = 0.0
        self._last: float | None = None
        self._counted = 0.0  # seconds of this trial that belong to its epochs

    def begin(self) -> None:
        self._begun, self._last, self._counted = time.perf_counter(), None, 0.0

    def epoch(self, result: EpochResult) -> None:
        now = time.perf_counter()
        trained = result.seconds_drawing + result.seconds_stepping + result.seconds_validating
        if self._last is None:
            self._counted += trained
        else:
            self.of_epochs.append(now - self._last - trained)
            self._counted += now - self._last
        self._last = now

    def end(self) -> None:
        self.of_trials.append(time.perf_counter() - self._begun - self._counted)


def _again(study_file: StudyFile, address: str, n_trials: int, rounds: int) -> list[dict[str, Any]]:
    """Time `tune` on a study that has all of its trials, and until the next trial begins on one
    that lacks a trial: to the second on MySQL, which rounds times to that."""
    tune_again = ["-m", "impon_hpo", "tune", str(study_file.folder), "--arm", ARM, "--trials"]
    begins: list[float] = []

    def one_more() -> None:
        study = open_filled(study_file, open_storage(address, create=False), 0)
        n_wanted = len(study.get_trials(deepcopy=False)) + 1
        begun = datetime.datetime.now()
        _run([*tune_again, str(n_wanted)], {STORAGE: address})
        start = study.get_trials(deepcopy=False)[-1].datetime_start
        assert start is not None
        begins.append((start - begun).total_seconds())

    seconds = alternate(
        {
            "with all its trials": lambda: _run([*tune_again, str(n_trials)], {STORAGE: address}),
            "importing torch": lambda: _run(["-c", IMPORT]),
            "making an optimizer": lambda: _run(["-c", OPTIMIZER]),
            "until the next trial begins": one_more,
        },
        rounds,
    )
    seconds["until the next trial begins"] = begins[-rounds:]
    named = {"storage": storage_kind(address), "trials": n_trials}
    rows = []
    for what in ("with all its trials", "until the next trial begins"):
        for base in ("importing torch", "making an optimizer"):
            beyond = [a - b for a, b in zip(seconds[what], seconds[base], strict=True)]
            rows.append(
                _row(named | {"what": f"tune again, {what}, beyond {base}"}, spread(beyond))
            )
    return rows


def _starts(rounds: int) -> list[dict[str, Any]]:
    sides = {
        "python": lambda: _run(["-c", "pass"]),
        "--help": lambda: _run(["-m", "impon_hpo", "--help"]),
        "import torch": lambda: _run(["-c", IMPORT]),
        "import torch, make an optimizer": lambda: _run(["-c", OPTIMIZER]),
    }
    seconds = alternate(sides, rounds)
    return [
        _row({"storage": "", "trials": 0, "what": what}, spread(seconds[what])) for what in sides
    ]


def _run(arguments: list[str], more: dict[str, str] | None = None) -> None:
    process = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | (more or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise ImponHpoError(f"`{' '.join(arguments)}` failed: {process.stderr.strip()[-500:]}")


def _row(named: dict[str, Any], seconds: Spread, *, per_epoch: bool = False) -> dict[str, Any]:
    share = round(100 * seconds.median / EPOCH_SECONDS, 3) if per_epoch else ""
    return named | seconds.scaled(1e3).columns("ms") | {"percent_of_epoch": share}

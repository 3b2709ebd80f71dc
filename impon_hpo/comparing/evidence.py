"""The evidence of a comparison: what was fixed beforehand, and all that is recorded so far."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.grid import (
    Grid,
    Key,
    PlannedRun,
    comparison_grid,
    configurations,
    study_name,
)
from impon_hpo.comparing.recordings_table import TABLE, Recordings, Run, read_recordings
from impon_hpo.errors import NothingYetError, StorageError, as_typed
from impon_hpo.storage.connect import quiet_studies
from impon_hpo.storage.trials import COST, ENVIRONMENTS, EPOCH_SECONDS, REASON, RECORDED, epochs_of
from impon_hpo.tuning.study_file import StudyFile

PROTOCOL = "impon:protocol"


@dataclass(frozen=True)
class Fixed:
    """What was noted before anything was recorded; the first worker of a storage writes it.

    Args:
        digest: Hash of everything that decides the verdict.
        on: When, in UTC.
        command: The command.
        protocol: The protocol as plain JSON values.
        recorded: Runs that a table had already, which are not trained again.
    """

    digest: str
    on: str
    command: str
    protocol: Mapping[str, Any]
    recorded: frozenset[Key]


def fix(
    study_file: StudyFile, storage: BaseStorage, *, command: str, recorded: Collection[Key] = ()
) -> Fixed:
    """Note in the storage, once, what is asked before anything is recorded, and return what was
    noted first: of workers that begin at the same moment, too."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    note = {
        "digest": digest(study_file),
        "on": now,
        "command": command,
        "protocol": study_file.protocol.identity(),
        "recorded": sorted(map(list, recorded)),
    }
    with quiet_studies():
        study = optuna.create_study(
            study_name=_protocol_name(study_file), storage=storage, load_if_exists=True
        )
        if not study.get_trials(deepcopy=False):
            # A trial is made in one step, and the storage numbers them: number 0 is the first.
            study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={PROTOCOL: note}))
    return _fixed(study.study_name, study.get_trials(deepcopy=False)[0])


def read_fixed(study_file: StudyFile, storage: BaseStorage) -> Fixed | None:
    """Return what was noted in the storage, or None where nothing was."""
    name = _protocol_name(study_file)
    if name not in optuna.get_all_study_names(storage):
        return None
    trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    return _fixed(name, trials[0]) if trials else None


def _protocol_name(study_file: StudyFile) -> str:
    return f"{study_file.name}-compare-protocol"


def _fixed(study: str, first: FrozenTrial) -> Fixed:
    note = first.user_attrs.get(PROTOCOL)
    if note is None:
        raise StorageError(
            f"The storage holds a study '{study}' that impon-hpo did not make. "
            "Use another --storage."
        )
    recorded = frozenset((name, block, number) for name, block, number in note["recorded"])
    return Fixed(**note | {"recorded": recorded})


def digest(study_file: StudyFile) -> str:
    """Return the hash of everything that decides a study's verdict."""
    once = {"compile": False}  # was part of an identity; the hashes of recordings stand
    decisive = {
        "pruner": study_file.protocol.pruner,
        "seed": study_file.seed,
        "space": study_file.identity(next(iter(study_file.arms)))["space"],
        "run": study_file.run.identity() | once,
        "arms": {name: arm.identity() | once for name, arm in study_file.arms.items()},
    }
    protocol = study_file.protocol
    first = protocol.policies[0]
    if (first.schedule, first.weights) != (study_file.run.schedule, study_file.run.eval_weights):
        decisive["truth"] = str(first)  # the protocol's hash does not see which is the first
    decisive |= study_file.signal.identity()
    return protocol.digest(decisive)


def runs_to_adopt(study_file: StudyFile, folder: Path) -> set[Key]:
    """Return the runs that a table has, and that need not be trained again.

    A teacher is trained again where one that it teaches is missing: what it saw is not in a table.

    Raises:
        StorageError: The table cannot be read, or is of another protocol.
    """
    table = read_recordings(folder)
    if table.about.get("digest") != digest(study_file):
        raise StorageError(
            f"The recordings in '{folder}' are of another protocol "
            f"({table.about.get('digest')}, and not {digest(study_file)}): only what was asked in "
            "the same way can be continued."
        )
    grid = comparison_grid(study_file)
    keys = {run.key for training in grid.trainings for run in grid.runs(training)}
    adopted = keys & set(table.runs)
    for training in grid.trainings:
        for run in grid.runs(training):
            teacher = grid.teacher(training, run.block)
            if run.key not in adopted and teacher is not None:
                adopted.discard(teacher.key)
    return adopted


def gather(
    study_file: StudyFile, storage: BaseStorage | None, committed: Path | None = None
) -> Recordings:
    """Return what is recorded: in the storage, or else in the table beside the study file.

    Args:
        study_file: The study.
        storage: Its storage, where there is one.
        committed: A folder with a table: to read instead, or where nothing is in the storage.

    Raises:
        NothingYetError: There is nothing.
        StorageError: It cannot be read, or is of other arms or configurations.
    """
    arms_of(study_file)  # its mistakes come before "nothing is there"
    fixed = None if storage is None else read_fixed(study_file, storage)
    if fixed is not None and storage is not None:
        recordings = _recorded(study_file, storage, fixed, committed)
        if recordings.rows:
            recordings.write(study_file.runs / "compare")
            return recordings
    if committed is None and (study_file.folder / TABLE).exists():
        committed = study_file.folder
    if committed is None:
        raise NothingYetError(
            f"Nothing of study '{study_file.name}' is recorded yet: "
            f"run `{as_typed('impon-hpo compare')}` first."
        )
    return read_committed(study_file, committed)


def read_committed(study_file: StudyFile, folder: Path) -> Recordings:
    """Return what the table in a folder has of a study.

    Raises:
        NothingYetError: There is none.
        StorageError: It cannot be read, or is of other arms or configurations.
    """
    recordings = read_recordings(folder)
    _check_same(study_file, recordings, folder)
    return Recordings(recordings.rows, {**recordings.about, "digest": digest(study_file)})


def _recorded(
    study_file: StudyFile, storage: BaseStorage, fixed: Fixed, table: Path | None
) -> Recordings:
    """Return what the studies in a storage have recorded, with the rows that it continues."""
    grid = comparison_grid(study_file)
    adopted = _adopted_rows(study_file, fixed, table)
    trials, environments = read_trials(grid, storage, fixed.recorded)
    rows: list[Mapping[str, Any]] = []
    for training, block in grid.stretches():
        for number in training.numbers:
            run = PlannedRun(training, block, number)
            trial = trials.get(run.key)
            rows += adopted.get(run.key, []) if trial is None else recorded_rows(run, grid, trial)
    about = {
        "study": study_file.name,
        "dataset": study_file.run.dataset,
        "command": fixed.command,
        "fixed": fixed.on,
        "fixed_digest": fixed.digest,
        "digest": digest(study_file),
        "configurations": list(grid.params),
        "environments": environments,
    }
    return Recordings(rows, about)


def _adopted_rows(
    study_file: StudyFile, fixed: Fixed, table: Path | None
) -> dict[Key, list[Mapping[str, Any]]]:
    """Return the rows that were recorded before this storage was begun, by run."""
    if not fixed.recorded:
        return {}
    rows: dict[Key, list[Mapping[str, Any]]] = {}
    with suppress(NothingYetError):
        rows = read_committed(study_file, table or study_file.folder).rows_of
    if not fixed.recorded <= rows.keys():
        raise StorageError(
            "What is in the storage continues a table that is not here. Give its folder with "
            "--recordings."
        )
    return rows


def read_trials(
    grid: Grid, storage: BaseStorage, recorded: Collection[Key] = ()
) -> tuple[dict[Key, FrozenTrial], list[dict[str, Any]]]:
    """Return the finished trials of a grid by run, and the environments that they were trained in.

    Args:
        grid: The grid.
        storage: Its storage.
        recorded: Runs that a table had when the storage was begun.
    """
    names = set(optuna.get_all_study_names(storage))
    trials: dict[Key, FrozenTrial] = {}
    environments: list[dict[str, Any]] = []
    for training in grid.trainings:
        name = study_name(grid, training, recorded)
        if name not in names:
            continue
        study = optuna.load_study(study_name=name, storage=storage)
        runs = [run for run in grid.runs(training) if run.key not in recorded]
        for run, trial in zip(runs, study.get_trials(deepcopy=False), strict=False):
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                trials[run.key] = trial
        for environment in study.user_attrs.get(ENVIRONMENTS, []):
            if environment not in environments:
                environments.append(environment)
    return trials, environments


def ending(trial: FrozenTrial) -> tuple[str, float]:
    """Return why a run ended before its last epoch, or "", and what the epoch cost that gave no
    result."""
    if trial.state != TrialState.PRUNED:
        return "", 0
    epochs = epochs_of(trial.user_attrs).values()
    return trial.user_attrs[REASON], trial.user_attrs[COST] - sum(e["cost"] for e in epochs)


def recorded_rows(run: PlannedRun, grid: Grid, trial: FrozenTrial) -> list[dict[str, Any]]:
    """Return the rows of the table for one run: one for every epoch.

    An epoch whose loss was not finite has no accuracy, what it cost, and `ended`.
    """
    head = {
        "training": run.training.name,
        "block": run.block,
        "configuration": run.configuration,
        **grid.params[run.configuration],
        "reference_cost": trial.user_attrs[RECORDED]["reference_cost"],
    }
    epochs = list(epochs_of(trial.user_attrs).values())
    rows = [head | _row(epoch) for epoch in epochs]
    reason, cost = ending(trial)
    if reason:
        rows.append(head | {"epoch": len(epochs) + 1, "cost": cost} | {"ended": reason})
    return rows


def _row(epoch: Mapping[str, Any]) -> dict[str, Any]:
    keys = ["epoch", "train_loss", "rows_trained", "rows_scored", "rows_validated", "cost"]
    keys += [key for key in epoch if key.startswith(("val_accuracy_", "test_accuracy_"))]
    losses = ["train_loss", *(key for key in epoch if key.startswith("val_loss_"))]
    row = {key: epoch[key] for key in (*keys, *losses, *EPOCH_SECONDS)}
    for key in (*losses, *EPOCH_SECONDS):
        row[key] = round(row[key], 4)
    return row


def _check_same(study_file: StudyFile, recordings: Recordings, folder: Path) -> None:
    params = configurations(study_file, study_file.protocol.n_configurations)
    if recordings.about.get("configurations") != json.loads(json.dumps(params)):
        raise StorageError(
            f"The recordings in '{folder}' are of other configurations than the study file asks "
            "for: its seed, its space or compare.configurations was changed."
        )
    arms = arms_of(study_file)
    if not {arm.training for arm in arms} & {key[0] for key in recordings.runs}:
        raise StorageError(f"The recordings in '{folder}' have none of the study's arms.")
    for arm in arms:
        for (training, _, _), run in recordings.runs.items():
            if training == arm.training and not _fits(run, arm.config.epochs, arm.policy.weights):
                raise StorageError(
                    f"The recordings in '{folder}' are not what the study file asks for: "
                    f"'{arm.name}' has {arm.config.epochs} epochs, judged by its "
                    f"{arm.policy.weights} weights, and its runs there have not."
                )


def _fits(run: Run, horizon: int, weights: str) -> bool:
    judged = all(f"val_accuracy_{weights}" in epoch for epoch in run.epochs)
    return judged and (bool(run.ended) or len(run.epochs) == horizon)

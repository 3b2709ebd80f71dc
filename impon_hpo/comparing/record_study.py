"""A recording kept in a folder: fixed, trained, gathered from what is there, kept as a table."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from impon_hpo.comparing.arms import Arm, arms_of, uniform_of
from impon_hpo.comparing.cell import Cell, read_cell
from impon_hpo.comparing.grid import run_grid
from impon_hpo.comparing.recording import configurations, recorded_rows, recording_cells
from impon_hpo.comparing.recordings import TABLE, Recordings, Run, read_recordings
from impon_hpo.console import Say
from impon_hpo.errors import ConfigError, NothingYetError, StorageError
from impon_hpo.lookup import suggestion
from impon_hpo.tuning.study_file import StudyFile

FIXED = "protocol.json"


def recording_folder(study_file: StudyFile) -> Path:
    """Return where a study's runs are recorded."""
    return study_file.runs / "compare"


def wanted_cells(study_file: StudyFile, only: list[str] | None = None) -> list[Cell]:
    """Return the runs that a comparison records.

    Args:
        study_file: The study.
        only: Names of arms, such as "memory@1/3"; default: all. Uniform sampling, under the first
            policy and their own, and what teaches them come with them.

    Raises:
        ConfigError: An arm is not known.
    """
    arms = arms_of(study_file)
    params = configurations(study_file, study_file.protocol.n_configurations)
    cells = recording_cells(study_file, arms, params)
    if not only:
        return cells
    known = {arm.name: arm for arm in arms}
    for name in only:
        if name not in known:
            raise ConfigError(
                f"The comparison has no arm '{name}'.{suggestion(name, known)} "
                f"Its arms: {', '.join(known)}."
            )
    trainings = {arms[0].training}
    for name in only:
        trainings |= {uniform_of(known[name], arms).training, *known[name].trainings}
    return [cell for cell in cells if cell.arm in trainings]


def record(
    study_file: StudyFile, *, only: list[str] | None, n_workers: int, command: str, say: Say
) -> Recordings:
    """Train what is not recorded yet, and return all that is there.

    Raises:
        ImponHpoError: A run met a mistake of the user's.
    """
    folder = recording_folder(study_file)
    _fix(study_file, folder, command)
    run_grid(wanted_cells(study_file, only), folder / "cells", n_workers=n_workers, say=say)
    return gather(study_file)


def gather(study_file: StudyFile, committed: Path | None = None) -> Recordings:
    """Return what is recorded: by this machine, or else the table beside the study file.

    Args:
        study_file: The study.
        committed: A folder with a table to read instead.

    Raises:
        NothingYetError: There is nothing.
        StorageError: It cannot be read, or is of other arms or configurations.
    """
    arms_of(study_file)  # its mistakes come before "nothing is there"
    folder = recording_folder(study_file)
    if committed is None and (folder / FIXED).exists():
        found = _gather_cells(study_file, folder)
        if found is not None:
            found.write(folder)
            return found
    if committed is None and (study_file.folder / TABLE).exists():
        committed = study_file.folder
    if committed is None:
        raise NothingYetError(
            f"Nothing of study '{study_file.name}' is recorded yet: run `impon-hpo compare` first."
        )
    recordings = read_recordings(committed)
    _check_same(study_file, recordings, committed)
    asked = {"digest": digest(study_file)}
    return Recordings(recordings.rows, {**recordings.about, **asked})


def _gather_cells(study_file: StudyFile, folder: Path) -> Recordings | None:
    cells = [cell for cell in wanted_cells(study_file) if cell.path(folder / "cells").exists()]
    if not cells:
        return None
    results = [read_cell(cell, folder / "cells") for cell in cells]
    params = configurations(study_file, study_file.protocol.n_configurations)
    environments: list[dict[str, Any]] = []
    for result in results:
        if result["environment"] not in environments:
            environments.append(result["environment"])
    fixed = _read_fixed(folder)
    about = {
        "study": study_file.name,
        "dataset": study_file.run.dataset,
        "command": fixed["command"],
        "fixed": fixed["on"],
        "fixed_digest": fixed["digest"],
        "digest": digest(study_file),
        "configurations": params,
        "environments": environments,
    }
    return Recordings(recorded_rows(study_file, params, results), about)


def digest(study_file: StudyFile) -> str:
    """Return the hash of everything that decides a study's verdict."""
    once = {"compile": False}  # was part of an identity; the hashes of recordings stand
    asked = {
        "pruner": study_file.pruner,
        "seed": study_file.seed,
        "space": study_file.identity(next(iter(study_file.arms)))["space"],
        "run": study_file.run.identity() | once,
        "arms": {name: arm.identity() | once for name, arm in study_file.arms.items()},
    }
    protocol = study_file.protocol
    first = protocol.policies[0]
    if (first.schedule, first.weights) != (study_file.run.schedule, study_file.run.eval_weights):
        asked["truth"] = str(first)  # the protocol's own hash does not see which one is the first
    return protocol.digest(asked)


def _fix(study_file: StudyFile, folder: Path, command: str) -> None:
    """Note, once, what was asked before anything was recorded."""
    if (folder / FIXED).exists():
        return
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = {
        "digest": digest(study_file),
        "on": now,
        "command": command,
        "protocol": study_file.protocol.identity(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FIXED).write_text(json.dumps(said, indent=2) + "\n")
    except OSError as error:
        raise StorageError(f"'{folder / FIXED}' cannot be written: {error}") from error


def _read_fixed(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / FIXED).read_text())
        return {key: found[key] for key in ("digest", "on", "command")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"'{folder / FIXED}' cannot be read: {error}.") from error


def _check_same(study_file: StudyFile, recordings: Recordings, folder: Path) -> None:
    n = study_file.protocol.n_configurations
    params = configurations(study_file, n)
    if recordings.about.get("configurations") != json.loads(json.dumps(params)):
        raise StorageError(
            f"The recordings in '{folder}' are of other configurations than the study file asks "
            "for: its seed, its space or compare.configurations was changed."
        )
    known: list[Arm] = arms_of(study_file)
    if not {arm.training for arm in known} & {key[0] for key in recordings.runs}:
        raise StorageError(f"The recordings in '{folder}' have none of the study's arms.")
    for arm in known:
        for (training, _, _), run in recordings.runs.items():
            if training == arm.training and not _fits(run, arm):
                raise StorageError(
                    f"The recordings in '{folder}' are not what the study file asks for: "
                    f"'{arm.name}' has {arm.config.epochs} epochs, judged by its "
                    f"{arm.policy.weights} weights, and its runs there have not."
                )


def _fits(run: Run, arm: Arm) -> bool:
    judged = all(f"val_accuracy_{arm.policy.weights}" in epoch for epoch in run.epochs)
    return judged and (bool(run.ended) or len(run.epochs) == arm.config.epochs)

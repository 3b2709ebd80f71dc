"""The Optuna study of one arm: made in the storage, or continued if it is the same."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from impon_hpo.errors import StorageError
from impon_hpo.files import write_file
from impon_hpo.settings import metric_words
from impon_hpo.storage.connect import no_experimental_warnings, quiet_studies
from impon_hpo.storage.trials import (
    COMMAND,
    ENVIRONMENTS,
    IDENTITY,
    QUESTION,
    UID,
    StudyRecord,
    read_study,
)
from impon_hpo.tuning.algorithms import make_pruner, make_study_sampler
from impon_hpo.tuning.promotion import check_growth
from impon_hpo.tuning.study_file import StudyFile


def study_name(study_file: StudyFile, arm: str) -> str:
    """Return the name of an arm's study in the storage."""
    return f"{study_file.name}-{arm}"


def open_study(
    study_file: StudyFile,
    arm: str,
    storage: BaseStorage,
    *,
    command: dict[str, Any],
    environment: dict[str, Any],
) -> optuna.Study:
    """Make the study of `arm`, or continue it.

    Args:
        study_file: The study.
        arm: One of its arms.
        storage: Where it is kept.
        command: `study`, `settings` and `storage` as the user gave them, for the commands shown.
        environment: Versions and hardware of this process.

    Raises:
        StorageError: The storage holds a study of that name that was asked for otherwise.
    """
    study = open_any_study(
        storage,
        study_name(study_file, arm),
        study_file.identity(arm),
        notes={QUESTION: study_file.question, COMMAND: command},
        environment=environment,
    )
    _write_resolved(study_file, arm, study.user_attrs)
    study.pruner = make_pruner(study_file.pruner, epochs=study_file.arms[arm].epochs)
    study.sampler = make_study_sampler(
        study_file.study_sampler,
        seed=study_file.seed,
        number=len(study.get_trials(deepcopy=False)),
    )
    return study


def open_any_study(
    storage: BaseStorage,
    name: str,
    identity: dict[str, Any],
    *,
    notes: Mapping[str, Any],
    environment: dict[str, Any],
) -> optuna.Study:
    """Make a study that never prunes, or continue it.

    Optuna stores neither pruner nor study sampler, and ignores a changed direction; so everything
    that was asked for is stored with the study and compared here.

    Args:
        storage: Where it is kept.
        name: Its name.
        identity: What must be the same when it is continued, as plain JSON values.
        notes: Attributes of which the last values are kept: the question, the command …
        environment: Versions and hardware of this process.

    Raises:
        StorageError: The storage holds a study of that name that was asked for otherwise.
    """
    with quiet_studies():
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner(),
        )
    if study.directions != [StudyDirection.MAXIMIZE]:
        directions = ", ".join(direction.name.lower() for direction in study.directions)
        raise StorageError(
            f"The storage holds a study '{name}' with direction {directions}, which impon-hpo did "
            "not make: it maximizes. Use another --storage."
        )
    begun = bool(study.get_trials(deepcopy=False))  # before the identity, which is there first
    attributes = study.user_attrs  # each look asks the storage
    stored = attributes.get(IDENTITY)
    if stored is None:
        if begun:
            raise StorageError(
                f"The storage holds a study '{name}' that impon-hpo did not make. "
                "Use another --storage."
            )
        with no_experimental_warnings():
            metric = metric_words(identity["run"].get("metric", "accuracy"))
            study.set_metric_names([f"validation {metric}"])
        study.set_user_attr(IDENTITY, identity)
    elif stored != identity:
        listed = "; ".join(_differences(stored, identity))
        raise StorageError(
            f"The storage holds study '{name}' with other settings: {listed}. Continue it with its "
            "own settings, or use another --storage."
        )
    if UID not in attributes:
        study.set_user_attr(UID, uuid.uuid4().hex)
    _note(study, attributes, notes)
    environments = attributes.get(ENVIRONMENTS, [])
    if environment not in environments:
        study.set_user_attr(ENVIRONMENTS, [*environments, environment])
    return study


def finished_study(
    study_file: StudyFile,
    arm: str,
    storage: BaseStorage,
    n_trials: int,
    *,
    command: dict[str, Any],
) -> StudyRecord | None:
    """Return the record of an arm that has all the trials it wants, or has tried all combinations
    of its grid, where no trial runs; or None.

    Neither data nor model are looked at. Question and command are kept as last given.

    Raises:
        StorageError: It has come to its end with fewer trials, and cannot grow.
    """
    name = study_name(study_file, arm)
    if name not in optuna.get_all_study_names(storage):
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    if study.user_attrs.get(IDENTITY) != study_file.identity(arm):
        return None  # `open_study` says what is different
    trials = study.get_trials(deepcopy=False)
    record = read_study(study, trials)
    combinations = study_file.combinations(arm)
    if combinations is not None:
        n_trials = min(n_trials, combinations.n_trials(trials))
    check_growth(record, n_trials)
    if record.n_finished < n_trials or record.count("RUNNING"):  # one that may be lost
        return None
    _note(study, study.user_attrs, {QUESTION: study_file.question, COMMAND: command})
    record = dataclasses.replace(record, question=study_file.question, command=command)
    _write_resolved(study_file, arm, study.user_attrs)
    return record


def _note(study: optuna.Study, attributes: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Keep what was given last; `attributes` are those that the study has."""
    for key, value in notes.items():
        if attributes.get(key) != value:
            study.set_user_attr(key, value)


def _write_resolved(study_file: StudyFile, arm: str, attributes: dict[str, Any]) -> None:
    """Keep in runs/<study>/<arm>.json what was resolved, for those who have no storage at hand."""
    resolved = {
        key.removeprefix("impon:"): value for key, value in attributes.items() if key != UID
    }
    write_file(study_file.runs / f"{arm}.json", json.dumps(resolved, indent=2) + "\n")


def _differences(stored: dict[str, Any], requested: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key in [*stored, *(key for key in requested if key not in stored)]:
        old, new = stored.get(key), requested.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{prefix}{key}.")
        elif old != new or (key in stored) != (key in requested):
            kept = repr(old) if key in stored else "not set"
            wanted = f"{new!r} was asked for" if key in requested else "is not set here"
            lines.append(f"{prefix}{key} is {kept} there, but {wanted}")
    return lines

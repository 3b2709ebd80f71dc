"""What tuning leaves and reporting reads: the storage, the study's identity, the trial record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import (
    Backoff,
    Boto3ArtifactStore,
    FileSystemArtifactStore,
    GCSArtifactStore,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.errors import StorageError

# User attributes of a study.
IDENTITY = "impon:identity"  # what must be the same when a study is continued
QUESTION = "impon:question"
COMMAND = "impon:command"  # study, settings and storage as the user last gave them
ENVIRONMENTS = "impon:environments"  # versions and hardware, one entry for each that took part
# User attributes of a trial.
EPOCHS = "impon:epochs"  # one mapping an epoch, the fields of EpochResult
COST = "impon:cost"  # forward-equivalents spent
REASON = "impon:reason"  # why a trial was pruned or failed

ArtifactStore = FileSystemArtifactStore | Boto3ArtifactStore | GCSArtifactStore | Backoff

INTERRUPTED = "interrupted"
"""The reason of a trial that was stopped from outside: it does not count as finished."""


@contextmanager
def no_experimental_warnings() -> Iterator[None]:
    """Silence Optuna's notes that a pruner or a feature that was asked for may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def open_storage(address: str, *, create: bool) -> BaseStorage:
    """Open the storage at `address`: a URL (`sqlite:///…`, `postgresql+psycopg://…`) or the path of
    an Optuna journal file.

    Args:
        address: The URL or path.
        create: Whether a file that is not there may be made.

    Raises:
        StorageError: It cannot be opened, or is not there and may not be made.
    """
    path = _file_of(address)
    if path is not None and not path.exists():
        if not create:
            raise StorageError(
                f"There is no storage '{address}' yet: nothing has been run into it."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"The folder of storage '{address}' cannot be made: {error}"
            ) from error
    try:
        if "://" not in address:
            return JournalStorage(JournalFileBackend(address))
        waits = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
        return optuna.storages.get_storage(RDBStorage(address, engine_kwargs=waits))
    except Exception as error:  # whatever the database driver raises
        hint = ""
        if isinstance(error, ImportError):
            hint = " A database driver is missing: for PostgreSQL, `uv add 'psycopg[binary]'`."
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise StorageError(f"Storage '{address}' cannot be opened: {said[0]}{hint}") from error


def _file_of(address: str) -> Path | None:
    """Return the file behind an address, or None for a server and for SQLite in memory."""
    if "://" not in address:
        return Path(address)
    scheme, _, rest = address.partition(":///")
    if not scheme.startswith("sqlite") or not rest or rest.startswith(":memory:"):
        return None
    return Path(rest.partition("?")[0])


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """Open (and make) the folder of a study's artifacts.

    Raises:
        StorageError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder for artifacts cannot be made: {error}") from error
    return FileSystemArtifactStore(str(folder))


@dataclass(frozen=True)
class TrialRecord:
    """What one trial was and came to.

    Args:
        number: Optuna's number.
        state: COMPLETE, PRUNED, FAIL, RUNNING or WAITING.
        params: The configuration that was tried.
        value: Validation accuracy after the last epoch, or None.
        epochs: One mapping an epoch, with the fields of `EpochResult`.
        cost: Forward-equivalents spent.
        horizon: Epochs that it would have had without pruning.
        reason: Why it was pruned or failed, or "".
        seconds: From start to end, or None while it runs.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    epochs: list[dict[str, Any]]
    cost: float
    horizon: int
    reason: str
    seconds: float | None

    @property
    def finished(self) -> bool:
        """Whether it counts towards the number of trials asked for."""
        return self.state in ("COMPLETE", "PRUNED") or (
            self.state == "FAIL" and self.reason != INTERRUPTED
        )

    @property
    def unpruned_epochs(self) -> int:
        """Epochs that it would have had without a pruner; diverged and failed trials would have
        ended where they did."""
        return self.horizon if self._stopped_by_pruner else len(self.epochs)

    @property
    def _stopped_by_pruner(self) -> bool:
        # The epoch in which a loss diverges has a cost, but no result.
        costs = sum(epoch["cost"] for epoch in self.epochs)
        return self.state == "PRUNED" and bool(self.epochs) and costs == self.cost

    @property
    def unpruned_cost(self) -> float:
        """Forward-equivalents that it would have cost without a pruner."""
        if not self._stopped_by_pruner:
            return self.cost
        return self.cost / len(self.epochs) * self.horizon


def flat_epoch(epoch: Mapping[str, Any]) -> dict[str, Any]:
    """Return an epoch's fields as one row of a table: each diagnostic in a column of its own."""
    return {key: value for key, value in epoch.items() if key != "diagnostics"} | dict(
        epoch["diagnostics"]
    )


def read_trial(trial: FrozenTrial, horizon: int) -> TrialRecord:
    """Read one trial of a study whose trials have `horizon` epochs."""
    finished_value = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        params=trial.params,
        value=trial.value if finished_value else None,
        epochs=trial.user_attrs.get(EPOCHS, []),
        cost=trial.user_attrs.get(COST, 0),
        horizon=horizon,
        reason=trial.user_attrs.get(REASON, ""),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
    )


@dataclass(frozen=True)
class StudyRecord:
    """What one study (one arm) in a storage was and came to.

    Args:
        optuna_study: Optuna's study.
        identity: What was asked for: study, arm, seed, pruner, study sampler, run and space.
        question: What the study is to answer.
        command: `study`, `settings` (of --set) and `storage` (or None) as last given to `tune`.
        environments: Versions and hardware of those who took part.
        trials: Its trials in the order of their numbers.
    """

    optuna_study: optuna.Study
    identity: dict[str, Any]
    question: str
    command: dict[str, Any]
    environments: list[dict[str, Any]]
    trials: list[TrialRecord]

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the highest validation accuracy, or None."""
        complete = [trial for trial in self.trials if trial.state == "COMPLETE"]
        return max(complete, key=lambda trial: trial.value or 0, default=None)

    @property
    def n_finished(self) -> int:
        """How many trials count towards the number asked for."""
        return sum(trial.finished for trial in self.trials)

    def count(self, state: str) -> int:
        """Return how many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)


def read_studies(storage: BaseStorage, study: str) -> list[StudyRecord]:
    """Read every arm of study `study` that the storage holds."""
    records = []
    for name in optuna.get_all_study_names(storage):
        found = optuna.load_study(study_name=name, storage=storage)
        if found.user_attrs.get(IDENTITY, {}).get("study") == study:
            records.append(read_study(found))
    return records


def read_study(study: optuna.Study) -> StudyRecord:
    """Read one study that impon-hpo made."""
    identity = study.user_attrs[IDENTITY]
    horizon = identity["run"]["epochs"]
    return StudyRecord(
        optuna_study=study,
        identity=identity,
        question=study.user_attrs.get(QUESTION, ""),
        command=study.user_attrs.get(
            COMMAND, {"study": identity["study"], "settings": [], "storage": None}
        ),
        environments=study.user_attrs.get(ENVIRONMENTS, []),
        trials=[read_trial(trial, horizon) for trial in study.get_trials(deepcopy=False)],
    )

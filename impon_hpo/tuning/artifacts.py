"""The files of a study's trials: checkpoints while they run, and what they leave for people."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import get_all_artifact_meta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, TrialState

from impon_hpo.errors import CheckpointError, describing
from impon_hpo.files import csv_text, expanded, replacing, write_file
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import CLASS_PICKS, IMAGES, UID, flat_epoch
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.contact_sheet import Picks, class_rows, contact_sheet, png

log = logging.getLogger("impon_hpo")

CURVE = "learning_curve.csv"
SETTINGS = "settings.txt"


class Checkpoints:
    """The folder of checkpoints, one file a trial that is not finished; workers on other machines
    need it on a disk that they share. That of the best complete trial moves to a folder of its own.

    Args:
        folder: The folder; made when something is saved; `~` is the user's own.
        keep: Whether those of finished trials stay.
        budget: Bytes that those of waiting trials may take up; None: as many as there are.
        store: Where those of waiting trials and of the best one go as well, for machines that do
            not share the folder.
        best: The folder for that of the best complete trial of each study; None: it is deleted.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: bool = False,
        budget: float | None = None,
        store: ArtifactStore | None = None,
        best: str | Path | None = None,
    ) -> None:
        self.folder = expanded(folder)
        self.best = None if best is None else expanded(best)
        self.keep = keep
        self.budget = budget
        self.store = store
        self._names: dict[str, str] = {}

    def of(self, study: optuna.Study, number: int) -> Checkpoint:
        """Return the checkpoint of a trial, whether it is there or not."""
        return Checkpoint(self.folder / f"{self._name(study)}-{number}.pt")

    def _name(self, study: optuna.Study) -> str:
        """Return how the files of a study begin; to ask for that costs a query, which is made
        once."""
        if study.study_name not in self._names:
            name = str(study.user_attrs.get(UID, study.study_name))
            safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
            self._names[study.study_name] = safe
        return self._names[study.study_name]

    def share(self, study: optuna.Study, number: int) -> None:
        """Copy the checkpoint of a trial that waits into the store, if there is one."""
        checkpoint = self.of(study, number)
        without = "If another one goes on with the trial, it trains it again."
        self._copy_to_store(checkpoint, checkpoint.path.name, number, without)

    def _copy_to_store(self, checkpoint: Checkpoint, name: str, number: int, without: str) -> None:
        if self.store is None or not checkpoint.size:
            return
        try:
            with checkpoint.path.open("rb") as file:
                self.store.write(name, file)
        except Exception as error:  # a store can be a folder or a bucket, each with its own errors
            log.warning(
                "The checkpoint of trial %d is only on this machine: %s. %s", number, error, without
            )

    def fetch(self, study: optuna.Study, number: int) -> None:
        """Copy the checkpoint of a trial from the store, where this machine has none."""
        checkpoint = self.of(study, number)
        if self.store is None or checkpoint.size:
            return
        try:
            self._copy_from_store(checkpoint.path.name, checkpoint)
        except Exception as error:
            log.warning(
                "The checkpoint of trial %d cannot be fetched: %s. It is trained again.",
                number,
                error,
            )

    def _copy_from_store(self, name: str, checkpoint: Checkpoint) -> None:
        assert self.store is not None
        with (
            suppress(ArtifactNotFound),
            self.store.open_reader(name) as reader,
            replacing(checkpoint.path) as file,
        ):
            shutil.copyfileobj(reader, file)

    def of_finished(self, study: optuna.Study, number: int) -> Checkpoint | None:
        """Return the checkpoint of a trial that has ended, if it was kept: on this machine, or in
        the store.

        Raises:
            CheckpointError: It cannot be fetched from the store.
        """
        checkpoint = self.of(study, number)
        if checkpoint.size:
            return checkpoint
        if self.best is None:
            return None
        best = Checkpoint(self.best / checkpoint.path.name)
        if not best.size and self.store is not None:
            try:
                self._copy_from_store(_name_of_best(best), best)
            except Exception as error:
                raise CheckpointError(
                    f"The checkpoint of trial {number} cannot be fetched from the artifact store: "
                    f"{error}."
                ) from error
        return best if best.size else None

    def unshare(self, study: optuna.Study, number: int) -> None:
        """Delete the checkpoint of a trial that has ended from the store."""
        if self.store is None or self.keep:
            return
        with suppress(Exception):  # a file too many is no reason to stop
            self.store.remove(self.of(study, number).path.name)

    def numbers(self, study: optuna.Study) -> set[int]:
        """Return the numbers of a study's trials whose checkpoints are here."""
        return self._numbers(self.folder, study, "*.pt")

    def _numbers(self, folder: Path, study: optuna.Study, files: str) -> set[int]:
        """Return the numbers of a study's trials that have files in a folder."""
        if not any(folder.glob(files)):
            return set()
        name = f"{self._name(study)}-"
        paths = folder.glob(f"{name}{files}")
        return {int(path.name.partition(".pt")[0].removeprefix(name)) for path in paths}

    def excess(self) -> float:
        """Return by how many bytes those that are here exceed the budget; at most 0 if they fit."""
        if self.budget is None:
            return 0
        return sum(Checkpoint(path).size for path in self.folder.glob("*.pt")) - self.budget

    def delete_finished(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Delete what finished ones of a study's trials, as just read, have left, unless it is to
        be kept; that of the best one goes to the folder `best`.

        Trials that have been read a while ago do no harm: among fewer complete ones, the one that
        is the best now was the best, too.
        """
        if self.keep:
            return
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)
        numbers = self._numbers(self.folder, study, "*.pt*")  # from the files on, which are few
        kept = set() if self.best is None else self._numbers(self.best, study, "*.pt")
        for trial in trials:
            if not trial.state.is_finished():
                continue
            if trial.number in numbers:
                if trial is best and self.best is not None:
                    self._keep_best(study, trial.number)
                self.of(study, trial.number).delete()
            if trial.number in kept and trial is not best:
                self._delete_best(study, trial.number)

    def _keep_best(self, study: optuna.Study, number: int) -> None:
        assert self.best is not None
        checkpoint = self.of(study, number)
        best = Checkpoint(self.best / checkpoint.path.name)
        with (
            describing(f"The checkpoint of trial {number}, the best, could not be kept"),
            suppress(FileNotFoundError),  # another worker was faster
        ):
            self.best.mkdir(parents=True, exist_ok=True)
            checkpoint.path.replace(best.path)
            without = "`impon-hpo export` finds it here only."
            self._copy_to_store(best, _name_of_best(best), number, without)

    def _delete_best(self, study: optuna.Study, number: int) -> None:
        assert self.best is not None
        best = Checkpoint(self.best / self.of(study, number).path.name)
        best.delete()
        if self.store is not None:
            with suppress(Exception):  # a file too many is no reason to stop
                self.store.remove(_name_of_best(best))


def _name_of_best(checkpoint: Checkpoint) -> str:
    # Not that of the same trial while it waits: who has ended it may delete that afterwards.
    return f"best-{checkpoint.path.name}"


def describe(trial: optuna.Trial, run: TrainingRun, store: ArtifactStore | None) -> None:
    """Leave with a trial that ends what came of it: numbers, and files if there is a store."""
    if not run.results:
        return
    last = run.results[-1]
    # As numbers of their own, the dashboard can sort and plot by them.
    for name, number in ({"share_seen": last.share_seen} | last.diagnostics).items():
        with describing(f"impon:{name} of trial {trial.number} could not be recorded"):
            trial.set_user_attr(f"impon:{name}", number)
    if store is not None:
        with describing(f"The files of trial {trial.number} could not be attached"):
            upload_files(trial, store, run)


def upload_files(trial: optuna.Trial, store: ArtifactStore, run: TrainingRun) -> None:
    """Attach what the trial has not attached already, while it is not finished yet.

    The learning curve with the batch sampler's diagnostics as a table, the resolved settings, the
    images picked most and never, and how often each class was picked; some 100 kB in all. A file
    that cannot be made or stored is missing, which is logged.

    Args:
        trial: The trial.
        store: Where the files go.
        run: Its training run, of at least one epoch.
    """
    attached = {meta.filename for meta in get_all_artifact_meta(trial)}
    picks = cache(lambda: picks_of(run))
    title = f"trial {trial.number}: what {run.config.sampler} has picked"
    files: dict[str, tuple[str, Callable[[], str | bytes]]] = {
        CURVE: (
            "text/csv",
            lambda: csv_text([flat_epoch(dataclasses.asdict(result)) for result in run.results]),
        ),
        SETTINGS: ("text/plain", lambda: settings_text(run.config)),
        IMAGES: ("image/png", lambda: png(contact_sheet(title, picks()))),
        CLASS_PICKS: ("text/csv", lambda: csv_text(class_rows(picks()))),
    }
    for name, (kind, content) in files.items():
        if name not in attached:
            with describing(f"{name} of trial {trial.number} could not be attached"):
                upload(trial, store, name, kind, content())


def upload(
    described: optuna.Trial | optuna.Study,
    store: ArtifactStore,
    name: str,
    kind: str,
    content: str | bytes,
) -> str:
    """Store a file with a trial or a study, and return the id of the artifact.

    Args:
        described: The trial, which is not finished yet, or the study.
        store: Where the file goes.
        name: Its name.
        kind: Its MIME type.
        content: What is in it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_file(path, content)
        return upload_artifact(
            artifact_store=store, file_path=str(path), study_or_trial=described, mimetype=kind
        )


def picks_of(run: TrainingRun) -> Picks:
    """Return what a run has picked so far, as plain arrays; waits for the device."""
    train = run.splits.train
    return Picks(
        visits=run.sampler.visits().cpu().numpy(),
        labels=train.labels.cpu().numpy(),
        class_names=run.splits.class_names,
        class_picks=run.class_picks,
        read=lambda rows: train.images[rows.tolist()].cpu().numpy(),
    )


def settings_text(config: TrainingConfig) -> str:
    """Return settings as `[run]` of a study file would have them."""
    lines = []
    for key, value in config.model_dump().items():
        lines.append(f"# {key}: not given" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    return json.dumps(value, ensure_ascii=False)

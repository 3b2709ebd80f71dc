"""The checkpoints of a study's trials: one file a trial, while it is not finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from impon_hpo.console import Say
from impon_hpo.errors import CheckpointError
from impon_hpo.record import UID
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.epochs import epochs_left
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Splits


class Checkpoints:
    """The folder of checkpoints; workers on other machines need it on a disk that they share.

    Args:
        folder: The folder; made when something is saved.
        keep: Whether those of finished trials stay.
        say: Gets a line when one cannot be used.
    """

    def __init__(self, folder: Path, *, keep: bool, say: Say) -> None:
        self.folder = folder
        self.keep = keep
        self.say = say

    def of(self, study: optuna.Study, number: int) -> Checkpoint:
        """Return the checkpoint of a trial, whether it is there or not."""
        return Checkpoint(self.folder / f"{_file_name(study)}-{number}.pt")

    def delete_finished(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Delete what finished ones of a study's trials, as just read, have left, unless it is to
        be kept."""
        if self.keep or not any(self.folder.glob("*.pt*")):
            return
        # From the files on, which are few: the study's name costs a query.
        name = _file_name(study)
        there = {path.name.partition(".pt")[0] for path in self.folder.glob(f"{name}-*.pt*")}
        for trial in trials:
            if trial.state.is_finished() and f"{name}-{trial.number}" in there:
                Checkpoint(self.folder / f"{name}-{trial.number}.pt").delete()


def _file_name(study: optuna.Study) -> str:
    name = str(study.user_attrs.get(UID, study.study_name))
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def resumed_run(
    config: TrainingConfig,
    splits: Splits,
    memory: RowMemory | None,
    checkpoint: Checkpoint | None,
    say: Say,
) -> TrainingRun:
    """Return the run as its checkpoint left it, or a new one; a checkpoint that cannot be used is
    deleted."""
    run = TrainingRun(config, splits, memory)
    if checkpoint is not None:
        try:
            run.continue_from(checkpoint)
        except CheckpointError as error:
            say(f"{error} The trial begins anew.")
            checkpoint.delete()
            if memory is not None:
                memory.clear()
            run = TrainingRun(config, splits, memory)
    return run


def all_epochs(
    run: TrainingRun, checkpoint: Checkpoint | None
) -> Iterator[tuple[EpochResult, bool]]:
    """Yield the result of each epoch and whether it is new: those that a run has behind it first,
    then what is trained from there.

    Raises:
        CheckpointError: A checkpoint cannot be written; what was there is still whole.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    for result in tuple(run.results):
        yield result, False
    for result in epochs_left(run, checkpoint):
        yield result, True

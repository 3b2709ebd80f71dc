"""The checkpoints of a study's trials: one file a trial, while it is not finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from impon_hpo.console import Say
from impon_hpo.storage.trials import UID
from impon_hpo.training.checkpoint import Checkpoint


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

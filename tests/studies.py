"""Study files small enough for a test, written where a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from impon_hpo.storage.connect import open_storage
from impon_hpo.tuning.study import open_study
from impon_hpo.tuning.study_file import StudyFile, read_study_file

SMALL = """\
question = "Does it run?"
n_trials = 3
seed = 1

[pruner]
name = "SuccessiveHalvingPruner"
reduction_factor = 3

[study_sampler]
name = "RandomSampler"

[run]
dataset = "digits"
subset = 240
validation_size = 100
width = 4
epochs = 3
batch_size = 32

[space]
lr = { type = "float", low = 1e-3, high = 0.3, log = true }
batch_size = { type = "categorical", choices = [16, 32] }

[arms.impon]
sampler = "impon"

[arms.uniform]
sampler = "uniform"
"""


def write_study(text: str = SMALL, *, name: str = "small") -> Path:
    """Write a study folder into the working directory and return it."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    (folder / "study.toml").write_text(text)
    return folder


def small_study(*settings: str, text: str = SMALL) -> StudyFile:
    """Write the small study and read it, with some settings changed."""
    return read_study_file(str(write_study(text)), settings)


def untrained_study(
    address: str, values: Sequence[float], *, arm: str = "impon", **of_trials: Any
) -> optuna.Study:
    """Make an arm of the small study with complete trials of these values, without training one.

    Args:
        address: Its storage.
        values: What its trials came to.
        arm: The arm.
        of_trials: What `optuna.trial.create_trial` takes for each of them.
    """
    opened = open_storage(address, create=True)
    command: dict[str, Any] = {"study": "small", "settings": [], "storage": None}
    study = open_study(read_study_file("small"), arm, opened, command=command, environment={})
    for value in values:
        study.add_trial(optuna.trial.create_trial(value=value, **of_trials))
    return study


def storage_with_one_trial() -> str:
    """Make the small study's own storage, holding a finished trial, without training one."""
    address = read_study_file("small").storage
    untrained_study(address, [0.5])
    return address

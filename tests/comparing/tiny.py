"""The small comparison made smaller still: its runs take a fraction of a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console

from impon_hpo.comparing.arms import Arm, arms_of
from impon_hpo.comparing.compare import compare
from impon_hpo.comparing.evidence import gather, read_fixed, read_trials
from impon_hpo.comparing.grid import Key, comparison_grid
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.storage.connect import open_storage
from impon_hpo.tuning.processes import Orders
from impon_hpo.tuning.progress import RecordingProgress
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import compared_study

TINY = (
    "run.epochs=2",
    "run.subset=128",
    "run.validation_size=60",
    "compare.configurations=2",
    "arms.impon.bank_size=64",
)
ONLY_IMPON = ('compare.arms=["impon"]', "compare.epoch_fractions=[1]")
"""Three trainings, none of them taught: uniform sampling, the placebo and impon itself."""


def tiny_study(*settings: str) -> StudyFile:
    """Write the tiny comparison into the working directory and read it."""
    return compared_study(*TINY, *settings)


def arms_by_name(study_file: StudyFile) -> dict[str, Arm]:
    """Return the arms of a comparison by name."""
    return {arm.name: arm for arm in arms_of(study_file)}


def record(
    study_file: StudyFile, *only: str, storage: str = "study.journal", **orders: Any
) -> Recordings:
    """Train what is missing of a comparison here, and return all that is recorded."""
    given = Orders(
        "compare",
        "small",
        storage=storage,
        arms=only,
        **({"command": "impon-hpo compare"} | orders),
    )
    with RecordingProgress(Console(quiet=True)) as progress:
        compare(study_file, given, progress)
    table = orders.get("recordings")
    return gathered(study_file, storage, None if table is None else Path(table))


def gathered(
    study_file: StudyFile, storage: str = "study.journal", table: Path | None = None
) -> Recordings:
    """Return what a storage has."""
    return gather(study_file, open_storage(storage, create=True), table)


def trials_of(study_file: StudyFile, storage: str = "study.journal") -> dict[Key, FrozenTrial]:
    """Return the trials of a comparison by run."""
    opened = open_storage(storage, create=False)
    fixed = read_fixed(study_file, opened)
    assert fixed is not None
    return read_trials(comparison_grid(study_file), opened, fixed.recorded)[0]


def without_seconds(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]

"""The small comparison made smaller still: its runs take a fraction of a second."""

from __future__ import annotations

from impon_hpo.comparing.arms import Arm, arms_of
from impon_hpo.comparing.cell import Cell
from impon_hpo.comparing.record_study import wanted_cells
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


def cell_of(study_file: StudyFile, training: str, *, number: int = 0, block: int = 0) -> Cell:
    """Return the run of a training's configuration in a block; a taught one has no number 0."""
    seed = study_file.seed + block
    cells = [
        cell for cell in wanted_cells(study_file) if cell.arm == training and cell.seed == seed
    ]
    return cells[number]

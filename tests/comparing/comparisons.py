"""A comparison small enough to be recorded in a test, on real digits."""

from __future__ import annotations

from impon_hpo.tuning.study_file import StudyFile
from tests.studies import SMALL, small_study

COMPARED = """\
question = "Does it pay?"
n_trials = 5
seed = 1

[pruner]
name = "SuccessiveHalvingPruner"
reduction_factor = 2

[study_sampler]
name = "RandomSampler"

[run]
dataset = "digits"
subset = 240
validation_size = 150
width = 4
epochs = 4
batch_size = 32

[space]
lr = { type = "float", low = 1e-3, high = 0.3, log = true }

[arms.impon]
sampler = "impon"

[arms.memory]
sampler = "impon-memory"

[arms.uniform]
sampler = "uniform"

[compare]
blocks = 2
epoch_fractions = [1, "1/2"]
orders = 4
"""


def compared_study(*settings: str, text: str = COMPARED) -> StudyFile:
    """Write the small comparison into the working directory and read it."""
    return small_study(*settings, text=text)


GRID = (
    (
        SMALL.replace('{ type = "float", low = 1e-3, high = 0.3, log = true }', "CHOICES")
        .replace("CHOICES", '{ type = "categorical", choices = [0.01, 0.1] }')
        .replace("epochs = 3", "epochs = 2\nepoch_fraction = 0.3")
        .replace("choices = [16, 32]", "choices = [32]")
    )
    + '\n[arms.paced]\nsampler = "impon-paced"\n\n[arms.paced.run]\nreference = "crossfit"\n'
    + ("reference_options = { epochs = 1, width = 4 }\n")
)
"""A study that `compare-samplers` can train: its space is a grid."""
PREQUENTIAL = ("arms.paced.run.reference=prequential", "arms.paced.run.reference_options={}")

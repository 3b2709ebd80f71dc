"""The run of a trial: as its checkpoint left it, or a new one, and its epochs, old and new."""

from __future__ import annotations

from collections.abc import Iterator

from impon_hpo.errors import CheckpointError
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.compiling import Ahead
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.epochs import epochs_left
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Splits


def resumed_run(
    config: TrainingConfig,
    splits: Splits,
    memory: RowMemory | None,
    checkpoint: Checkpoint | None,
    ahead: Ahead,
) -> TrainingRun:
    """Return the run as its checkpoint left it, or a new one; a checkpoint that cannot be used is
    deleted."""
    run = TrainingRun(config, splits, memory, ahead)
    if checkpoint is not None:
        try:
            run.continue_from(checkpoint)
        except CheckpointError as error:
            ahead.say(f"{error} The trial begins anew.")
            checkpoint.delete()
            if memory is not None:
                memory.clear()
            run = TrainingRun(config, splits, memory, ahead)
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

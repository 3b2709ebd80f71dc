"""How a trial goes on where it was: what the storage holds of it, and its run as it was saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from impon_hpo.errors import CheckpointError
from impon_hpo.storage.trials import PRUNED, UNTIL, USED, epochs_of
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits
from impon_hpo.training.training_run import TrainingRun

log = logging.getLogger("impon_hpo")


@dataclass(frozen=True)
class Past:
    """What the storage holds of a trial as it begins or goes on: it may have been interrupted, or
    have lost its worker.

    Args:
        epochs: What is recorded of its epochs, by number.
        reported: The epochs of which Optuna has a report.
        used: Key of the reference that it used, or "".
        pruned: Why it is to end, or "": the pruner said so, or nothing can promote it any more.
        until: The epoch at which it waits to be promoted, or None.
    """

    epochs: Mapping[int, Mapping[str, Any]]
    reported: frozenset[int]
    used: str = ""
    pruned: str = ""
    until: int | None = None

    @classmethod
    def of(cls, trial: optuna.Trial) -> Past:
        """Return the past of a live trial."""
        frozen = trial.storage.get_trial(trial._trial_id)
        return cls(
            epochs=epochs_of(frozen.user_attrs),
            reported=frozenset(frozen.intermediate_values),
            used=frozen.user_attrs.get(USED, ""),
            pruned=frozen.user_attrs.get(PRUNED, ""),
            until=frozen.user_attrs.get(UNTIL),
        )


def resumed_run(
    config: TrainingConfig,
    splits: Splits,
    memory: RowMemory | None,
    checkpoint: Checkpoint | None,
    epochs_ahead: float = 0.0,
) -> TrainingRun:
    """Return the run as its checkpoint left it, or a new one; a checkpoint that cannot be used is
    deleted."""
    run = TrainingRun(config, splits, memory, epochs_ahead)
    if checkpoint is not None:
        try:
            run.continue_from(checkpoint)
        except CheckpointError as error:
            log.warning("%s The trial starts again.", error)
            checkpoint.delete()
            if memory is not None:
                memory.clear()
            run = TrainingRun(config, splits, memory, epochs_ahead)
    return run

"""The epochs of a training run, one after the other; each is saved before its result is given."""

from __future__ import annotations

import time
from collections.abc import Iterator

from impon_hpo.signals import HeldSignals
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.compiling import Ahead
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Splits


def train_epochs(
    config: TrainingConfig,
    splits: Splits,
    checkpoint: Checkpoint | None = None,
    memory: RowMemory | None = None,
    ahead: Ahead | None = None,
) -> Iterator[EpochResult]:
    """Train as `config` says and yield the result of each epoch as it ends.

    Args:
        config: The settings.
        splits: The data, from `load_splits(config, device)`. Training runs on their device.
        checkpoint: The run continues from it, if it exists. It is saved after each epoch, and when
            Ctrl-C or SIGTERM ends the run in the middle of one.
        memory: Collects what the run observes of each row. It is part of the checkpoint.
        ahead: What comes after this run, for `compile = "auto"`.

    Raises:
        ConfigError: Model or batch sampler do not fit the data.
        CheckpointError: The checkpoint is broken or of another run.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.

    Example:
        >>> import torch
        >>> from impon_hpo import TrainingConfig, load_splits, train_epochs
        >>> config = TrainingConfig(
        ...     dataset="digits", subset=320, width=4, epochs=2, batch_size=32, sampler="impon",
        ...     sampler_options={"bank_size": 64},
        ... )
        >>> results = list(train_epochs(config, load_splits(config, torch.device("cpu"))))
        >>> [result.epoch for result in results], results[0].rows_trained
        ([1, 2], 320)
    """
    run = TrainingRun(config, splits, memory, ahead)
    if checkpoint is not None:
        run.continue_from(checkpoint)
    yield from epochs_left(run, checkpoint)


def epochs_left(
    run: TrainingRun, checkpoint: Checkpoint | None, *, save_seconds: float = 0.0
) -> Iterator[EpochResult]:
    """Train a run from where it is to its end and yield the result of each epoch.

    Ctrl-C and SIGTERM let the step under way finish, and what is done of the epoch is saved.

    Args:
        run: The run.
        checkpoint: Where to save it after each epoch, if anywhere.
        save_seconds: It is not saved again before so many seconds have passed.

    Raises:
        CheckpointError: The checkpoint cannot be written. The former one is still there.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    saved_at = time.monotonic()
    while run.epoch < run.config.epochs:
        with HeldSignals() as held:
            try:
                result = run.train_epoch(held.let_through)
            except KeyboardInterrupt:
                if checkpoint is not None:
                    checkpoint.save(run.state_dict())
                raise
            if checkpoint is not None and time.monotonic() - saved_at >= save_seconds:
                checkpoint.save(run.state_dict())
                saved_at = time.monotonic()
        yield result

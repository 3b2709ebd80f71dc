"""The result of one epoch: what was reached, and what was paid for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochResult:
    """What one epoch reached and cost.

    Args:
        epoch: From 1.
        train_loss: Mean loss of the rows trained on, as they were picked and augmented.
        val_accuracy: What `metric` says of the validation rows after the epoch: the share that is
            classified correctly, 0 … 1, its mean over the classes, macro F1, or minus the loss.
        val_loss: Mean cross-entropy of the validation rows.
        rows_trained: Rows that went forward and backward in this epoch.
        rows_scored: Rows that the batch sampler sent forward to score them.
        rows_validated: Validation rows.
        cost: Forward-equivalents of this epoch: 3 a row trained (forward 1, backward 2), 1 a row
            scored, 1 a row validated.
        seconds_drawing: Time for choosing batches, scoring and learning from their losses.
        seconds_stepping: Time for reading, augmenting, forward, backward and optimiser.
        seconds_validating: Time for validation.
        share_seen: Share of the training rows trained on at least once so far, 0 … 1.
        diagnostics: What the batch sampler reports about its picks, by name. A measure that is not
            defined is left out.

    Example:
        >>> import torch
        >>> from impon_hpo import TrainingConfig, load_splits, train_epochs
        >>> config = TrainingConfig(subset=64, width=4, epochs=1, batch_size=32)
        >>> (result,) = train_epochs(config, load_splits(config, torch.device("cpu")))
        >>> type(result).__name__, result.epoch, result.rows_trained, result.rows_scored
        ('EpochResult', 1, 64, 0)
        >>> result.cost == 3 * 64 + result.rows_validated
        True
    """

    epoch: int
    train_loss: float
    val_accuracy: float
    val_loss: float
    rows_trained: int
    rows_scored: int
    rows_validated: int
    cost: int
    seconds_drawing: float
    seconds_stepping: float
    seconds_validating: float
    share_seen: float
    diagnostics: dict[str, float]

    @property
    def seconds(self) -> float:
        """Time of the whole epoch."""
        return self.seconds_drawing + self.seconds_stepping + self.seconds_validating


def forward_equivalents(rows_trained: int, rows_scored: int, rows_validated: int) -> int:
    """Return the cost of so many rows, in forward passes of one row; a backward pass counts 2."""
    return 3 * rows_trained + rows_scored + rows_validated

"""The ledger of a study: what all its workers have spent, and whether that is all it may."""

from __future__ import annotations

from dataclasses import dataclass

from impon_hpo.storage.trials import EPOCH_SECONDS, StudyRecord


@dataclass(frozen=True)
class Spent:
    """What a study has spent so far, over all workers and with what had to be done again.

    Args:
        epochs: Epochs trained.
        cost: Forward-equivalents, with references.
        seconds: Seconds of drawing, stepping and validating.
    """

    epochs: int
    cost: float
    seconds: float


def spent(record: StudyRecord) -> Spent:
    """Add up a study's trials and references."""
    trials = record.trials
    references = sum(reference["cost"] for reference in record.references.values())
    return Spent(
        epochs=sum(len(trial.epochs) + trial.wasted_epochs for trial in trials),
        cost=sum(trial.cost + trial.wasted_cost for trial in trials) + references,
        seconds=sum(
            trial.wasted_seconds
            + sum(epoch[key] for epoch in trial.epochs for key in EPOCH_SECONDS)
            for trial in trials
        ),
    )


@dataclass(frozen=True)
class Budget:
    """What a study may spend; None: as much as it takes.

    Args:
        max_epochs: Epochs.
        max_cost: Forward-equivalents.
        max_seconds: Seconds of training, added up over the workers.
    """

    max_epochs: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return (self.max_epochs, self.max_cost, self.max_seconds) != (None, None, None)

    def reached(self, found: Spent) -> str | None:
        """Return which limit is reached, in words, or None."""
        for name, limit, value in (
            ("epochs", self.max_epochs, found.epochs),
            ("forward-equivalents", self.max_cost, found.cost),
            ("seconds of training", self.max_seconds, found.seconds),
        ):
            if limit is not None and value >= limit:
                return f"{value:,.0f} of {limit:,.0f} {name} are spent"
        return None

"""The budget that workers share: what they have spent, and whether that is all they may."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from impon_hpo.storage.trials import StudyRecord, seconds_of
from impon_hpo.tuning.lease import HandedBackError
from impon_hpo.tuning.live_table import clock


class BudgetSpentError(HandedBackError):
    """All that may be spent is spent."""


@dataclass(frozen=True)
class Spent:
    """What has been spent so far, over all workers and with what had to be done again.

    Args:
        epochs: Epochs trained.
        cost: Forward-equivalents, with references.
        seconds: Seconds of drawing, stepping and validating.
    """

    epochs: int
    cost: float
    seconds: float


def spent(records: Iterable[StudyRecord]) -> Spent:
    """Add up the trials and references of studies."""
    records = list(records)
    trials = [trial for record in records for trial in record.trials]
    references = sum(
        reference["cost"] for record in records for reference in record.references.values()
    )
    return Spent(
        epochs=sum(len(trial.epochs) + trial.wasted_epochs for trial in trials),
        cost=sum(trial.cost + trial.wasted_cost for trial in trials) + references,
        seconds=sum(
            trial.wasted_seconds + sum(seconds_of(epoch) for epoch in trial.epochs)
            for trial in trials
        ),
    )


@dataclass(frozen=True)
class Budget:
    """What may be spent; None: as much as it takes.

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

    def check(self, total: Spent) -> None:
        """Raise `BudgetSpentError`, which names the limit, if one is reached."""
        for name, limit, value in (
            ("epochs", self.max_epochs, total.epochs),
            ("forward-equivalents", self.max_cost, total.cost),
            ("seconds of training", self.max_seconds, total.seconds),
        ):
            if limit is not None and value >= limit:
                raise BudgetSpentError(f"{value:,.0f} of {limit:,.0f} {name} are spent")

    def left(self, total: Spent) -> str:
        """Return what is left, in words; "" where there is no limit."""
        parts = []
        if self.max_epochs is not None:
            parts.append(f"{max(0, self.max_epochs - total.epochs):,} epochs")
        if self.max_cost is not None:
            parts.append(f"{max(0.0, self.max_cost - total.cost):,.0f} forward-equivalents")
        if self.max_seconds is not None:
            parts.append(f"{clock(max(0.0, self.max_seconds - total.seconds))} of training")
        return ", ".join(parts)

"""The guard of a trial: after every epoch, whether it is still ours, and whether we may go on."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from impon_hpo.storage.trials import read_study
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.tuning.lease import HandedBackError, Lease
from impon_hpo.tuning.ledger import Budget, spent


class BudgetSpentError(HandedBackError):
    """The study has spent what it may."""


class Guard:
    """What happens after every epoch of a trial that this process holds.

    Args:
        budget: What the study may spend.
        show: Shows the epoch.
    """

    def __init__(self, budget: Budget, show: Callable[[optuna.Trial, EpochResult], None]) -> None:
        self.budget = budget
        self._show = show
        self._lease: Lease | None = None

    def hold(self, lease: Lease) -> None:
        """Take note of the lease of the trial that begins."""
        self._lease = lease

    def epoch(self, trial: optuna.Trial, result: EpochResult) -> None:
        """Show an epoch that has been trained and recorded.

        Raises:
            TakenOverError: Another worker has taken over the trial.
            BudgetSpentError: This epoch was the last one that the budget pays for.
        """
        if self._lease is not None:
            self._lease.check()
        self._show(trial, result)
        self.check_budget(trial.study)

    def check_budget(self, study: optuna.Study) -> None:
        """Raise `BudgetSpentError` if the study has spent what it may."""
        if self.budget.given:
            reached = self.budget.reached(spent(read_study(study)))
            if reached is not None:
                raise BudgetSpentError(reached)

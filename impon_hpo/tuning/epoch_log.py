"""The log of a trial's epochs: each is recorded in the storage and reported to the pruner."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from impon_hpo.errors import NonFiniteLossError
from impon_hpo.storage.trials import EPOCH, wasted_again
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.training_run import TrainingRun
from impon_hpo.tuning.lease import PausedError
from impon_hpo.tuning.report_signal import ReportSignal
from impon_hpo.tuning.resuming import Past

Measure = Callable[[TrainingRun], Mapping[str, Any]]


@dataclass
class EpochLog:
    """The epochs of a trial that runs.

    Args:
        trial: The trial.
        past: What the storage held of it when it began or went on.
        signal: What is reported.
        measure: Returns what is to be recorded of an epoch beside its result, or in its place.
        prunes: Whether the study's pruner is asked.
        reports: Whether epochs are reported.
        recorded: Gets what is recorded of an epoch that has no record from before.
    """

    trial: optuna.Trial
    past: Past
    signal: ReportSignal
    measure: Measure | None
    prunes: bool
    reports: bool
    recorded: Callable[[int, Mapping[str, Any]], None] | None = None
    epochs: dict[int, Mapping[str, Any]] = field(init=False)
    """What is recorded of all epochs, by number."""

    def __post_init__(self) -> None:
        self.epochs = dict(self.past.epochs)

    @property
    def cost(self) -> int:
        """Forward-equivalents of all epochs, with those that were lost with a checkpoint."""
        return sum(epoch["cost"] for epoch in self.epochs.values())

    def record(self, run: TrainingRun, result: EpochResult) -> None:
        """Write down an epoch, and what was lost where it was written down before.

        Raises:
            NonFiniteLossError: What is to be reported of it is infinite or not a number.
        """
        epoch = dataclasses.asdict(result) | dict(self.measure(run) if self.measure else {})
        value = self.signal.of(epoch)
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"What is to be reported of epoch {result.epoch} is {value}.", cost=epoch["cost"]
            )
        again = wasted_again(self.past.epochs.get(result.epoch))
        self.trial.set_user_attr(f"{EPOCH}{result.epoch}", epoch | again)
        self.epochs[result.epoch] = epoch
        if self.recorded is not None and result.epoch not in self.past.epochs:
            self.recorded(result.epoch, epoch)

    def report(self, epoch: int, horizon: int) -> None:
        """Report an epoch, unless that is done, and ask the pruner, unless that was decided.

        Raises:
            optuna.TrialPruned: The pruner said so.
            PausedError: The trial has come to the rung at which it waits.
        """
        if not self.reports:
            return
        if epoch not in self.past.reported:
            # From what is recorded: a trial that was interrupted goes on to the bit.
            until_now = (self.epochs[number] for number in range(1, epoch + 1))
            self.trial.report(self.signal.reported(until_now)[-1], step=epoch)
        elif epoch < max(self.past.reported):
            return
        if epoch == self.past.until and epoch < horizon:
            raise PausedError(f"waits at epoch {epoch}")
        # After the last epoch nothing is left to save, and a pruned trial is never the best one.
        if self.prunes and epoch < horizon and self.trial.should_prune():
            raise optuna.TrialPruned(f"pruned after epoch {epoch}")

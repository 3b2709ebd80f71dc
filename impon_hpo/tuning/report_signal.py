"""The report signal: what the pruner sees of an epoch, which need not be what the study is about.

A trial's value is its metric, whatever is reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from impon_hpo.errors import ConfigError
from impon_hpo.settings import Settings
from impon_hpo.training.epoch_result import forward_equivalents

if TYPE_CHECKING:  # who reads a storage needs no torch
    from optuna.distributions import BaseDistribution

    from impon_hpo.training.config import TrainingConfig
    from impon_hpo.training.training_run import TrainingRun

MEASURED = (
    "In studies/pays the training loss ranks configurations better after one epoch than accuracy "
    "does (Kendall's τ-b 0.83 against 0.61), and yet at the top it picks worse than averaged "
    "weights: it prunes the best configuration in 49 % of the studies, those in 30 %."
)
"""What is known of the training loss as a signal: studies/pays/README.md has the command."""

LOSS_SETTINGS = ("augment", "augment_options", "class_weights", "label_smoothing")
"""Settings that change what a training loss is: losses of different ones cannot be compared."""


_FIELDS = {
    "metric": "val_accuracy",
    "ema": "val_accuracy_ema",
    "last": "val_accuracy_last",
    "train-loss": "train_loss",
    "val-loss": "val_loss",
}


class ReportSignal(Settings):
    """What is reported to the pruner after each epoch; higher is better in all of it.

    What we measured of "train-loss" is in `MEASURED`: it ranks configurations well, and prunes the
    best one more often than averaged weights do.

    Args:
        report: "metric" is what the study is about. "ema" and "last" are the metric of averaged or
            of last weights, "train-loss" and "val-loss" minus these losses.
        report_smoothing: β of an exponential moving average over the epochs, 0 … below 1, corrected
            for its start as Adam's are; 0 reports each epoch as it is.

    Example:
        >>> from impon_hpo.tuning.report_signal import ReportSignal
        >>> signal = ReportSignal(report="train-loss", report_smoothing=0.5)
        >>> signal.reported([{"train_loss": 2.0}, {"train_loss": 0.5}])
        [-2.0, -1.0]
    """

    report: Literal["metric", "ema", "last", "train-loss", "val-loss"] = "metric"
    report_smoothing: float = Field(default=0.0, ge=0, lt=1)

    def reported(self, epochs: Iterable[Mapping[str, Any]]) -> list[float]:
        """Return what is reported after each epoch.

        Args:
            epochs: What is recorded of the epochs from the first one on: the fields of
                `EpochResult`, and what `look` adds.
        """
        reported = []
        mean, rest = 0.0, 1.0
        for epoch in epochs:
            mean = self.report_smoothing * mean + (1 - self.report_smoothing) * self.of(epoch)
            rest *= self.report_smoothing
            reported.append(mean / (1 - rest))
        return reported

    def of(self, epoch: Mapping[str, Any]) -> float:
        """Return what an epoch alone has to report."""
        value = float(epoch[_FIELDS[self.report]])
        return -value if self.minus_loss else value

    @property
    def minus_loss(self) -> bool:
        """Whether it is minus a loss, whatever the metric."""
        return self.report in ("train-loss", "val-loss")

    def identity(self) -> dict[str, Any]:
        """Return what is part of a study's identity: nothing where the metric is reported."""
        return self.model_dump(exclude_defaults=True)

    def extra_weights(self, config: TrainingConfig) -> str | None:
        """Return the weights that have to be looked at beside `eval_weights`, or None: such a look
        costs a validation pass an epoch."""
        looks = self.report in ("ema", "last") and self.report != config.eval_weights
        return self.report if looks else None

    def look(self, run: TrainingRun) -> dict[str, Any]:
        """Return what is to be recorded of an epoch that has just ended beside its result, or in
        its place: a look at `extra_weights` is charged to it."""
        last, n_rows = run.results[-1], len(run.splits.validation)
        if self.report not in ("ema", "last"):
            return {}
        weights = self.extra_weights(run.config)
        if weights is None:
            return {_FIELDS[self.report]: last.val_accuracy}
        begun = time.perf_counter()
        value, _ = run.evaluate(run.splits.validation, weights)
        return {
            _FIELDS[self.report]: value,
            "rows_validated": last.rows_validated + n_rows,
            "cost": last.cost + forward_equivalents(0, 0, n_rows),
            "seconds_validating": last.seconds_validating + time.perf_counter() - begun,
        }

    def check(self, config: TrainingConfig, space: Mapping[str, BaseDistribution]) -> None:
        """Check that a run has what is to be reported.

        Raises:
            ConfigError: It has no averaged weights, or not in all trials.
        """
        if self.report != "ema":
            return
        if config.eval_weights != "ema":
            raise ConfigError(
                f"report = 'ema' needs averaged weights, but eval_weights is "
                f"'{config.eval_weights}'. Set eval_weights = 'ema', or report = 'metric'."
            )
        if "eval_weights" in space:
            raise ConfigError(
                "report = 'ema' needs averaged weights in all trials, but space.eval_weights is "
                "searched over. Leave it out of the space, or set report = 'metric'."
            )


METRIC = ReportSignal()
"""Each epoch's metric, as it is."""


def threshold_warnings(table: Mapping[str, Any], *, minus_loss: bool) -> list[str]:
    """Return warnings of bounds in `[pruner]` that prune every trial, or none.

    Args:
        table: `[pruner]`, or a pruner that another one wraps.
        minus_loss: Whether what is reported is minus a loss; else it is 0 … 1.
    """
    warnings = []
    for inner in table.values():
        if isinstance(inner, dict):
            warnings += threshold_warnings(inner, minus_loss=minus_loss)
    if table.get("name") != "ThresholdPruner":
        return warnings
    least, most = (-math.inf, 0.0) if minus_loss else (0.0, 1.0)
    range_words = "minus a loss, never above 0" if minus_loss else "0 … 1"
    bounds = {key: table[key] for key in ("lower", "upper") if _is_number(table.get(key))}
    listed = " and ".join(f"{key} = {value:g}" for key, value in bounds.items())
    lower, upper = bounds.get("lower", -math.inf), bounds.get("upper", math.inf)
    if lower > most or upper < least:
        effect = "every trial is pruned"
    elif lower <= least and upper >= most:
        effect = "no trial is ever pruned"
    else:
        return warnings
    return [
        *warnings,
        f"ThresholdPruner has {listed}, but what is reported is {range_words}: {effect}.",
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

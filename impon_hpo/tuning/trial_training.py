"""A trial is trained: from where it is to its end, each epoch recorded, reported and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna

from impon_hpo.errors import ImponHpoError, NonFiniteLossError
from impon_hpo.storage.trials import COST, INTERRUPTED, PRUNED, REASON
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.training_run import TrainingRun, epochs_left
from impon_hpo.tuning.budget import BudgetSpentError
from impon_hpo.tuning.epoch_log import EpochLog, Measure
from impon_hpo.tuning.job import OnEpoch
from impon_hpo.tuning.report_signal import METRIC, ReportSignal
from impon_hpo.tuning.resuming import Past

COMPLETE, PRUNED_BY_STUDY, DIVERGED, FAILED = "complete", "pruned", "diverged", "failed"
"""How a run ended, as `train_trial` tells it."""


def train_trial(
    trial: optuna.Trial,
    make_run: Callable[[], TrainingRun],
    *,
    past: Past,
    checkpoint: Checkpoint | None,
    ended: Callable[[TrainingRun, str], None],
    on_epoch: OnEpoch | None = None,
    measure: Measure | None = None,
    signal: ReportSignal = METRIC,
    recorded: Callable[[int, Mapping[str, Any]], None] | None = None,
    save_seconds: float = 0.0,
    prunes: bool = True,
    reports: bool = True,
) -> TrainingRun:
    """Train a trial from where it is to its end, record and report every epoch, and return its
    run.

    Args:
        trial: The trial.
        make_run: Makes its run, as its checkpoint left it.
        past: What the storage holds of it.
        checkpoint: Where the run is saved, if anywhere.
        ended: Called with the run and how it ended: "complete", "pruned", "diverged" or "failed".
            What it raises costs the trial, so what only describes it stands in `describing`.
        on_epoch: Called after every new epoch is recorded, before it is reported.
        measure: Returns what is to be recorded of an epoch beside its result, or in its place.
        signal: What is reported of an epoch.
        recorded: Gets what is recorded of each epoch that has no record from before.
        save_seconds: At least so many seconds lie between two checkpoints, but for one when it is
            stopped.
        prunes: Whether the study's pruner is asked.
        reports: Whether epochs are reported, which Optuna allows where a trial has one value.

    Raises:
        optuna.TrialPruned: The pruner said so, or the loss was no longer finite.
        PausedError: The trial has come to the rung at which it waits.
    """
    run: TrainingRun | None = None
    epochs = EpochLog(trial, past, signal, measure, prunes, reports, recorded)
    try:
        run = make_run()
        if past.pruned:
            raise optuna.TrialPruned(past.pruned)
        for result in tuple(run.results):  # of before
            if result.epoch not in past.epochs:  # the last one, so the weights are those after it
                epochs.record(run, result)
            epochs.report(result.epoch, run.config.epochs)
        for result in epochs_left(run, checkpoint, save_seconds=save_seconds):
            epochs.record(run, result)
            if on_epoch is not None:
                on_epoch(trial, result)
            epochs.report(result.epoch, run.config.epochs)
    except optuna.TrialPruned as pruned:
        assert run is not None
        _end(trial, str(pruned), epochs.cost)
        ended(run, PRUNED_BY_STUDY)
        raise
    except NonFiniteLossError as error:
        assert run is not None
        _end(trial, str(error), epochs.cost + error.cost)
        ended(run, DIVERGED)
        raise optuna.TrialPruned(str(error)) from error
    except (KeyboardInterrupt, BudgetSpentError) as stop:
        _stop(trial, run, stop, checkpoint if save_seconds > 0 else None)
        raise
    except ImponHpoError:
        raise
    except Exception as error:
        trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")
        if run is not None:
            trial.set_user_attr(COST, epochs.cost)
            ended(run, FAILED)
        raise
    if REASON in trial.user_attrs:  # of an earlier interruption
        trial.set_user_attr(REASON, "")
    trial.set_user_attr(COST, epochs.cost)
    ended(run, COMPLETE)
    return run


def _stop(
    trial: optuna.Trial,
    run: TrainingRun | None,
    stop: BaseException,
    checkpoint: Checkpoint | None,
) -> None:
    """Save a run that is stopped, where its checkpoints lie apart: whole epochs would be lost."""
    if run is not None and checkpoint is not None:
        checkpoint.save(run.state_dict())
    if isinstance(stop, KeyboardInterrupt):
        trial.set_user_attr(REASON, INTERRUPTED)


def _end(trial: optuna.Trial, reason: str, cost: int) -> None:
    """Write down why a trial ends before its last epoch, and what it cost."""
    trial.set_user_attr(REASON, reason)
    trial.set_user_attr(PRUNED, reason)
    trial.set_user_attr(COST, cost)

"""The objective: trains one configuration, reports each epoch, prunes, and records what it cost."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from impon_hpo.environment import cache_folder
from impon_hpo.errors import (
    CheckpointError,
    ConfigError,
    ImponHpoError,
    NonFiniteLossError,
    describing,
)
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import (
    COST,
    INTERRUPTED,
    PRUNED,
    REASON,
    UNTIL,
    USED,
    epochs_of,
)
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.config import TrainingConfig, wants_reference
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.reference_folder import References, check_reference, learnt_enough, prepare
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits, by_size, load_splits
from impon_hpo.training.training_run import TrainingRun, epochs_left
from impon_hpo.tuning.artifacts import Checkpoints, upload_files
from impon_hpo.tuning.budget import BudgetSpentError
from impon_hpo.tuning.epoch_log import EpochLog, Measure
from impon_hpo.tuning.report_signal import METRIC, ReportSignal
from impon_hpo.tuning.shared_references import SharedReferences
from impon_hpo.tuning.space import SHAPING, check_space, suggest, with_settings
from impon_hpo.tuning.tracking import PatientTracker, Tracker, Tracking
from impon_hpo.tuning.worker import OnEpoch

log = logging.getLogger("impon_hpo")

COMPLETE, PRUNED_BY_STUDY, DIVERGED, FAILED = "complete", "pruned", "diverged", "failed"
"""How a run ended, as `train_trial` tells it."""


class Objective:
    """An Optuna objective: validation accuracy of an importance-sampled training run.

    Give it to `study.optimize` of a study with direction "maximize". After every epoch, counted
    from 1, it reports the validation accuracy and asks the pruner. A run whose loss is no longer
    finite is pruned. It leaves as user attributes of the trial: `impon:epoch:1` … (the fields of
    `EpochResult`), `impon:cost` (forward-equivalents), `impon:reason`, the share of rows seen and
    the batch sampler's last diagnostics; and as artifacts the learning curve, the resolved
    settings, and which images it picked most and never.

    Args:
        config: The settings of every trial.
        space: Settings that each trial draws, by name.
        splits: The data; default: loaded from `config` at the first trial, and for each
            `image_size` of the space.
        artifact_store: Where a trial's files and references go; default: nowhere.
        references: Where references are kept; default: in the user's cache folder.
        checkpoints: Where trials are saved after every epoch, so that one that was put back among
            the waiting ones goes on where it was; default: nowhere.
        n_trials: Trials that the study is to have, from which `compile = "auto"` works out what
            compiling would save; default: not known, so only the trial's own epochs count.
        report: What the pruner sees after each epoch: "metric", "ema", "last", "train-loss" or
            "val-loss"; see `ReportSignal`. The trial's value is the metric in any case.
        report_smoothing: Smoothing of that over the epochs, 0 … below 1; 0: none.
        tracker: Where else trials are shown as they run; default: nowhere.

    Raises:
        ConfigError: The space does not fit the settings, the device is not there, or runs have not
            what is to be reported; or the tracker is none.

    Example:
        >>> import optuna
        >>> from optuna.distributions import FloatDistribution
        >>> from impon_hpo import Objective, TrainingConfig
        >>> config = TrainingConfig(
        ...     dataset="digits", subset=64, width=4, epochs=1, batch_size=32, sampler="impon",
        ...     sampler_options={"bank_size": 64},
        ... )
        >>> optuna.logging.set_verbosity(optuna.logging.ERROR)
        >>> study = optuna.create_study(direction="maximize")
        >>> study.optimize(Objective(config, {"lr": FloatDistribution(0.01, 0.1)}), n_trials=1)
        >>> 0 <= study.best_value <= 1
        True
    """

    def __init__(
        self,
        config: TrainingConfig,
        space: Mapping[str, BaseDistribution],
        *,
        splits: Splits | None = None,
        artifact_store: ArtifactStore | None = None,
        references: References | None = None,
        checkpoints: Checkpoints | None = None,
        n_trials: int | None = None,
        report: str = "metric",
        report_smoothing: float = 0.0,
        tracker: Tracker | None = None,
    ) -> None:
        check_space(config, space)
        self.signal = ReportSignal.checked({"report": report, "report_smoothing": report_smoothing})
        self.signal.check(config, space)
        if splits is not None and "image_size" in space:
            raise ConfigError(
                "space.image_size cannot be searched over where splits are given, since they have "
                "one size. Leave out splits: then the data are loaded at each."
            )
        self.config = config
        self.space = dict(space)
        self.device = find_device(config.device)
        self.splits_of = by_size(lambda config: splits or load_splits(config, self.device))
        """Settings -> the data at their `image_size`; the rows are the same at each."""
        self._artifact_store = artifact_store
        references = references or References(cache_folder() / "references")
        self._references = SharedReferences(references, artifact_store)
        if wants_reference(config):
            check_reference(config)
        self._checkpoints = checkpoints
        self._tracker = None if tracker is None else PatientTracker(tracker)
        self._n_trials = n_trials
        self._epochs_here = Counter[tuple[object, ...]]()
        self._taught = False

    def __repr__(self) -> str:
        return f"Objective(sampler={self.config.sampler!r}, space={sorted(self.space)})"

    @property
    def splits(self) -> Splits:
        """The data, loaded when first asked for."""
        return self.splits_of(self.config)

    def __call__(self, trial: optuna.Trial, on_epoch: OnEpoch | None = None) -> float:
        """Train the trial's configuration and return its validation accuracy, 0 … 1, or
        what else `metric` says; higher is better.

        Args:
            trial: The trial.
            on_epoch: Called after every new epoch, before the pruner is asked.

        Raises:
            optuna.TrialPruned: The pruner said so, or the loss was no longer finite.
            PausedError: The trial has come to the rung at which it waits.
        """
        config = with_settings(self.config, suggest(trial, self.space))
        past = Past.of(trial)
        checkpoint = None
        if self._checkpoints is not None:
            checkpoint = self._checkpoints.of(trial.study, trial.number)
        config, splits, memory = self._with_reference(trial, config, past)

        def counted(trial: optuna.Trial, result: EpochResult) -> None:
            self._epochs_here[_shape(config)] += 1
            if on_epoch is not None:
                on_epoch(trial, result)

        def ended(run: TrainingRun, how: str) -> None:
            if memory is not None and how == COMPLETE:
                reached = run.results[-1].val_accuracy
                if learnt_enough(reached, splits.n_classes, config.metric):
                    with describing(
                        f"The reference that trial {trial.number} has learnt could not be kept",
                        "The trial's value stands; the next trial learns one.",
                    ):
                        self._references.learn(trial.study, self.config, self.splits, memory)
            self._describe(trial, run)
            if tracking is not None:
                tracking.end(how, run.results[-1].val_accuracy if run.results else None)

        with self._followed(trial, config, past) as tracking:
            return train_trial(
                trial,
                functools.partial(
                    resumed_run,
                    config,
                    splits,
                    memory,
                    checkpoint,
                    self._epochs_ahead(trial, config),
                ),
                past=past,
                checkpoint=checkpoint,
                on_epoch=counted,
                ended=ended,
                measure=self.signal.look,
                signal=self.signal,
                recorded=None if tracking is None else tracking.epoch,
            )

    def _followed(
        self, trial: optuna.Trial, config: TrainingConfig, past: Past
    ) -> AbstractContextManager[Tracking | None]:
        """Tell the tracker, where there is one, of a trial from now on."""
        if self._tracker is None or not isinstance(trial, optuna.Trial):  # a FixedTrial
            return nullcontext()
        return self._tracker.follow(trial, config, past.epochs)

    def untaught(self, study: optuna.Study) -> bool:
        """Return whether trials of a study ask for a reference that has still to be learnt."""
        if self._taught or not wants_reference(self.config):
            return False
        self._taught = self._references.find(study, self.config, self.splits) is not None
        return not self._taught

    def _epochs_ahead(self, trial: optuna.Trial, config: TrainingConfig) -> float:
        """Return about how many epochs of this trial's shape this worker has before it afterwards:
        as many a trial of the study as until now."""
        n_left = max(0, (self._n_trials or 0) - trial.number - 1)
        epochs_a_trial = self._epochs_here[_shape(config)] / (trial.number + 1)
        return epochs_a_trial * n_left

    def _with_reference(
        self, trial: optuna.Trial, config: TrainingConfig, past: Past
    ) -> tuple[TrainingConfig, Splits, RowMemory | None]:
        """Return settings and data of a trial, and a memory where it is to learn a reference."""
        splits = self.splits_of(config)
        if not wants_reference(config):
            return config, splits, None
        kept = None
        if past.used or not past.epochs:  # one that began without a reference ends without
            kept = self._references.find(trial.study, self.config, self.splits)
        if kept is not None:
            trial.set_user_attr(USED, self._references.key(self.config, self.splits))
        prepared = prepare(config, splits, kept)
        if kept is None:
            log.info(
                "trial %d has no reference yet: it is trained with '%s', and what it sees of the "
                "rows is the reference of later ones",
                trial.number,
                prepared[0].sampler,
            )
        return prepared

    def _describe(self, trial: optuna.Trial, run: TrainingRun) -> None:
        """Leave with a trial that ends what came of it."""
        if not run.results:
            return
        last = run.results[-1]
        # As numbers of their own, the dashboard can sort and plot by them.
        for name, number in ({"share_seen": last.share_seen} | last.diagnostics).items():
            with describing(f"impon:{name} of trial {trial.number} could not be recorded"):
                trial.set_user_attr(f"impon:{name}", number)
        if self._artifact_store is not None:
            with describing(f"The files of trial {trial.number} could not be attached"):
                upload_files(trial, self._artifact_store, run)


def _shape(config: TrainingConfig) -> tuple[object, ...]:
    """Return what decides whether two configurations can share what is compiled."""
    return tuple(getattr(config, name) for name in SHAPING)


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
    def of(cls, trial: optuna.Trial | optuna.trial.FixedTrial) -> Past:
        """Return the past of a live trial; a FixedTrial has none."""
        if not isinstance(trial, optuna.Trial):
            return cls({}, frozenset())
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
) -> float:
    """Train a trial from where it is to its end, record and report every epoch, and return the
    last validation accuracy.

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

    Raises:
        optuna.TrialPruned: The pruner said so, or the loss was no longer finite.
        PausedError: The trial has come to the rung at which it waits.
    """
    run: TrainingRun | None = None
    epochs = EpochLog(
        trial, past.epochs, past.reported, past.until, signal, measure, prunes, recorded
    )
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
    return run.results[-1].val_accuracy


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

"""The objective: trains one configuration, reports each epoch, prunes, and records what it cost."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial

from impon_hpo.environment import cache_folder
from impon_hpo.errors import ConfigError, NonFiniteLossError, describing
from impon_hpo.storage.connect import ArtifactStore, check_travels
from impon_hpo.storage.trials import USED, epochs_of
from impon_hpo.training.config import TrainingConfig, wants_reference
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.reference_folder import References, check_reference, learnt_enough, prepare
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Splits, by_size, load_splits
from impon_hpo.training.training_run import TrainingRun, epochs_left
from impon_hpo.tuning.artifacts import Checkpoints, describe
from impon_hpo.tuning.enqueued import blaming_settings, check_enqueued, frozen
from impon_hpo.tuning.job import OnEpoch
from impon_hpo.tuning.report_signal import ReportSignal
from impon_hpo.tuning.resuming import Past, resumed_run
from impon_hpo.tuning.shared_references import SharedReferences
from impon_hpo.tuning.space import SHAPING, suggest, with_settings
from impon_hpo.tuning.space_check import check_conditions, check_space
from impon_hpo.tuning.space_syntax import parse_space
from impon_hpo.tuning.tracking import PatientTracker, Tracker, Tracking
from impon_hpo.tuning.trial_training import COMPLETE, train_trial
from impon_hpo.tuning.values import (
    check_directions,
    check_values,
    pruner_without_effect,
    values_of,
)

log = logging.getLogger("impon_hpo")


class Objective:
    """An Optuna objective: validation accuracy of an importance-sampled training run.

    Give it to `study.optimize` of a study with direction "maximize". After every epoch, counted
    from 1, it reports the validation accuracy and asks the pruner. A run whose loss is no longer
    finite is pruned. It leaves as user attributes of the trial: `impon:epoch:1` … (the fields of
    `EpochResult`), `impon:cost` (forward-equivalents), `impon:reason`, the share of rows seen and
    the batch sampler's last diagnostics; and as artifacts the learning curve, the resolved
    settings, and which images it picked most and never.

    It is an objective as others are (with Optuna 5.0): for `study.ask` and `study.tell`; for a
    function of your own around it; for a `FixedTrial` and for a trial of a study that is done,
    which are trained without a pruner, and nothing is written down: with one thread,
    `objective(study.best_trial)` is `study.best_value` to the bit where no reference is read that
    has been learnt since. With `n_jobs=2`, each trial comes to what it comes to alone. It can be
    pickled and copied, trained or not: data are loaded where it arrives, unless they are given as
    `splits`.

    Args:
        config: The settings of every trial.
        space: Settings that each trial draws, by name: one of Optuna's distributions, a list of
            choices, a `range`, or a table as in a study file; `Conditional` where it is drawn only
            beside certain values of others. Empty: every trial repeats `config`.
        splits: The data; default: loaded from `config` at the first trial, and for each
            `image_size` of the space.
        artifact_store: Where a trial's files and references go; default: nowhere.
        references: Where references are kept; default: in the user's cache folder.
        checkpoints: Where trials are saved after every epoch, so that one that was put back among
            the waiting ones goes on where it was; default: nowhere.
        n_trials: Trials that the study is to have, from which `compile = "auto"` works out what
            compiling would save; default: not known, so only the trial's own epochs count.
        values: What a trial returns, in the order of the study's directions: "metric" (higher is
            better), and with it "cost" (forward-equivalents), "parameters" or "seconds" (lower is
            better). Of several, none is reported and nothing is pruned, since Optuna does not.
        report: What the pruner sees after each epoch: "metric", "ema", "last", "train-loss" or
            "val-loss"; see `ReportSignal`. The trial's value is the metric in any case.
        report_smoothing: Smoothing of that over the epochs, 0 … below 1; 0: none.
        tracker: Where else trials are shown as they run; default: nowhere.

    Raises:
        ConfigError: An argument is of another kind, the space does not fit the settings, the
            device is not there, `values` are
            no such names, runs have not what is to be reported, or the tracker is none.

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
        space: Mapping[str, Any],
        *,
        splits: Splits | None = None,
        artifact_store: ArtifactStore | None = None,
        references: References | None = None,
        checkpoints: Checkpoints | None = None,
        n_trials: int | None = None,
        values: Sequence[str] = ("metric",),
        report: str = "metric",
        report_smoothing: float = 0.0,
        tracker: Tracker | None = None,
    ) -> None:
        _check_kinds(
            config=(config, TrainingConfig, "TrainingConfig(…)"),
            splits=(splits, Splits, "load_splits(…)"),
            references=(references, References, 'References("folder")'),
            checkpoints=(checkpoints, Checkpoints, 'Checkpoints("folder")'),
        )
        if artifact_store is not None and not hasattr(artifact_store, "write"):
            raise ConfigError(
                "artifact_store must be one of Optuna's artifact stores, such as "
                f'impon_hpo.artifact_store("folder"), but got {artifact_store!r}.'
            )
        self.space = parse_space(space)
        check_space(config, self.space)
        check_conditions([config], self.space)
        self.signal = ReportSignal.checked({"report": report, "report_smoothing": report_smoothing})
        self.signal.check(config, self.space)
        check_values(values, self.signal)
        if splits is not None and "image_size" in self.space:
            raise ConfigError(
                "space.image_size cannot be searched over where splits are given, since they have "
                "one size. Leave out splits: then the data are loaded at each."
            )
        self.config = config
        self.values = tuple(values)
        self._splits = splits
        self._artifact_store = artifact_store
        references = references or References(cache_folder() / "references")
        self._references = SharedReferences(references, artifact_store)
        if wants_reference(config):
            check_reference(config)
        self._checkpoints = checkpoints
        self._tracker = None if tracker is None else PatientTracker(tracker)
        self._n_trials = n_trials
        self._begin_here()

    def _begin_here(self) -> None:
        """Make what an objective has in one process, for all its threads."""
        self.device = find_device(self.config.device)  # "auto" may be another one elsewhere
        self._loaded = by_size(lambda config: load_splits(config, self.device))
        self._epochs_here = Counter[tuple[object, ...]]()
        self._taught = self._pruner_judged = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Objective(sampler={self.config.sampler!r}, space={sorted(self.space)})"

    def __getstate__(self) -> dict[str, Any]:
        check_travels(self._artifact_store)
        return self.__dict__ | {"_loaded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._begin_here()

    @property
    def splits(self) -> Splits:
        """The data, loaded when first asked for."""
        return self.splits_of(self.config)

    def splits_of(self, config: TrainingConfig) -> Splits:
        """Return the data at the `image_size` of settings; the rows are the same at each."""
        return self._splits or self._loaded(config)

    def __call__(
        self, trial: optuna.Trial | FixedTrial | FrozenTrial, on_epoch: OnEpoch | None = None
    ) -> Any:
        """Train the trial's configuration and return its validation accuracy, 0 … 1, or
        what else `metric` says; higher is better. With several `values`, return a tuple of them.

        Args:
            trial: The trial.
            on_epoch: Called after every new epoch of a study's trial, before the pruner is asked.

        Raises:
            ConfigError: The study has not the directions that `values` ask for.
            optuna.TrialPruned: The pruner said so, or the loss was no longer finite.
            PausedError: The trial has come to the rung at which it waits.
            TrialSettingsError: Its values are outside of the space, or cannot be a run.
        """
        if isinstance(trial, FixedTrial | FrozenTrial):
            return self._outside_study(trial)
        check_directions(trial.study, self.values)
        several = len(self.values) > 1
        if several:
            self._judge_pruner(trial.study)
        config = self._settings_of(trial)
        past = Past.of(trial)
        checkpoint = None
        if self._checkpoints is not None:
            checkpoint = self._checkpoints.of(trial.study, trial.number)
        config, splits, memory = self._with_reference(trial, config, past)

        def counted(trial: optuna.Trial, result: EpochResult) -> None:
            with self._lock:
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
            describe(trial, run, self._artifact_store)
            if tracking is not None:
                tracking.end(how, run.results[-1].val_accuracy if run.results else None)

        def begin() -> TrainingRun:
            with blaming_settings(trial):
                ahead = self._epochs_ahead(trial, config)
                return resumed_run(config, splits, memory, checkpoint, ahead)

        with self._followed(trial, config, past) as tracking:
            run = train_trial(
                trial,
                begin,
                past=past,
                checkpoint=checkpoint,
                on_epoch=counted,
                ended=ended,
                measure=self.signal.look,
                signal=self.signal,
                recorded=None if tracking is None else tracking.epoch,
                reports=not several,
            )
        return values_of(run, self.values)

    def _followed(
        self, trial: optuna.Trial, config: TrainingConfig, past: Past
    ) -> AbstractContextManager[Tracking | None]:
        """Tell the tracker, where there is one, of a trial from now on."""
        if self._tracker is None:
            return nullcontext()
        return self._tracker.follow(trial, config, past.epochs)

    def _judge_pruner(self, study: optuna.Study) -> None:
        """Say once where a pruner cannot do anything."""
        with self._lock:
            if not self._pruner_judged and (sentence := pruner_without_effect(study)):
                log.warning(sentence)
            self._pruner_judged = True

    def _outside_study(self, trial: FixedTrial | FrozenTrial) -> float | tuple[float, ...]:
        """Train the configuration of a trial that is in no study, or done, and leave no trace."""
        config = with_settings(self.config, suggest(trial, self.space, self.config))
        splits = self.splits_of(config)
        used, began = trial.user_attrs.get(USED, ""), bool(epochs_of(trial.user_attrs))
        if wants_reference(config):
            kept = None
            if used or not began:  # else it was trained without
                kept = self._references.find(None, self.config, self.splits)
            if used and (kept is None or used != self._references.key(self.config, self.splits)):
                log.warning(
                    "The reference %s, which trial %d was trained with, is not what its settings "
                    "ask for here, or not on this machine: its value may be another one.",
                    used,
                    trial.number,
                )
            config, splits, _ = prepare(config, splits, kept)
        run = TrainingRun(config, splits)
        try:
            for _ in epochs_left(run, None):
                pass
        except NonFiniteLossError as error:
            raise optuna.TrialPruned(str(error)) from error
        return values_of(run, self.values)

    def _settings_of(self, trial: optuna.Trial) -> TrainingConfig:
        with_settings(self.config, {})  # what is wrong with every trial is the fault of none
        with blaming_settings(trial):
            check_enqueued(frozen(trial), self.space)
        params = suggest(trial, self.space, self.config)
        with blaming_settings(trial):
            return with_settings(self.config, params)

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


def _check_kinds(**arguments: tuple[Any, type, str]) -> None:
    """Check arguments that are used only while a trial is trained, or after it: each with its kind
    and how to make one.

    Raises:
        ConfigError: One is of another kind.
    """
    for name, (given, kind, example) in arguments.items():
        if given is not None and not isinstance(given, kind):
            raise ConfigError(
                f"{name} must be a {kind.__name__}, such as impon_hpo.{example}, but got {given!r}."
            )


def _shape(config: TrainingConfig) -> tuple[object, ...]:
    """Return what decides whether two configurations can share what is compiled."""
    return tuple(getattr(config, name) for name in SHAPING)

"""The objective: trains one configuration, reports each epoch, prunes, and records what it cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution

from impon_hpo.environment import cache_folder
from impon_hpo.errors import ImponHpoError, NonFiniteLossError
from impon_hpo.storage.connect import ArtifactStore
from impon_hpo.storage.trials import COST, EPOCHS, INTERRUPTED, PRUNED, REASON, USED
from impon_hpo.training.compiling import Ahead
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.device import find_device
from impon_hpo.training.epoch_result import EpochResult
from impon_hpo.training.memory import RowMemory
from impon_hpo.training.references import (
    References,
    check_reference,
    learnt_enough,
    wants_reference,
    with_reference,
    without_reference,
)
from impon_hpo.training.run import TrainingRun
from impon_hpo.training.splits import Splits, load_splits
from impon_hpo.tuning.artifacts import upload_files
from impon_hpo.tuning.begun import Begun, begun_trial
from impon_hpo.tuning.checkpoints import Checkpoints
from impon_hpo.tuning.space import SHAPING, check_space, suggest, with_settings
from impon_hpo.tuning.study_references import StudyReferences
from impon_hpo.tuning.trial_run import all_epochs, resumed_run

OnEpoch = Callable[[optuna.Trial, EpochResult], None]


@dataclass
class Course:
    """What one call of the objective has come to."""

    run: TrainingRun | None = None
    results: list[EpochResult] = field(default_factory=list)


class Objective:
    """An Optuna objective: validation accuracy of an importance-sampled training run.

    Give it to `study.optimize` of a study with direction "maximize". After every epoch, counted
    from 1, it reports the validation accuracy and asks the pruner. A run whose loss is no longer
    finite is pruned. It leaves as user attributes of the trial: `impon:epochs` (a mapping an epoch,
    the fields of `EpochResult`), `impon:cost` (forward-equivalents), `impon:reason`, the share of
    rows seen and the batch sampler's last diagnostics; and as artifacts the learning curve, the
    resolved settings, the diagnostics over the epochs, and which images it picked most and never.

    Args:
        config: The settings of every trial.
        space: Settings that each trial draws, by name.
        splits: The data; default: loaded from `config` at the first trial.
        artifact_store: Where a trial's files and references go; default: nowhere.
        references: Where references are kept; default: in the user's cache folder.
        checkpoints: Where trials are saved after every epoch, so that one that was put back among
            the waiting ones goes on where it was; default: nowhere.
        on_epoch: Called after every new epoch, before the pruner is asked.
        n_trials: Trials that the study is to have, from which `compile = "auto"` works out what
            compiling would save; default: not known, so only the trial's own epochs count.

    Raises:
        ConfigError: The space does not fit the settings, or the device is not there.
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
        on_epoch: OnEpoch | None = None,
        n_trials: int | None = None,
    ) -> None:
        check_space(config, space)
        self.config = config
        self.space = dict(space)
        self.device = find_device(config.device)
        self._splits = splits
        self._artifact_store = artifact_store
        references = references or References(cache_folder() / "references", say=lambda line: None)
        self._references = StudyReferences(references, artifact_store)
        if wants_reference(config):
            check_reference(config)
        self._checkpoints = checkpoints
        self._on_epoch = on_epoch
        self._n_trials = n_trials
        self._epochs_here = Counter[tuple[object, ...]]()

    @property
    def splits(self) -> Splits:
        """The data, loaded when first asked for."""
        if self._splits is None:
            self._splits = load_splits(self.config, self.device)
        return self._splits

    def __call__(self, trial: optuna.Trial) -> float:
        """Train the trial's configuration and return its validation accuracy, 0 … 1.

        Raises:
            optuna.TrialPruned: The pruner said so, or the loss was no longer finite.
        """
        config = with_settings(self.config, suggest(trial, self.space))
        begun = begun_trial(trial)
        if begun.pruned:
            raise optuna.TrialPruned(begun.pruned)
        course = Course()
        try:
            self._train(trial, config, begun, course)
        except optuna.TrialPruned as pruned:
            trial.set_user_attr(REASON, str(pruned))
            trial.set_user_attr(PRUNED, str(pruned))
            self._describe(trial, course)
            raise
        except NonFiniteLossError as error:
            trial.set_user_attr(REASON, str(error))
            trial.set_user_attr(PRUNED, str(error))
            self._describe(trial, course, cost_of_no_result=error.cost)
            raise optuna.TrialPruned(str(error)) from error
        except KeyboardInterrupt:
            trial.set_user_attr(REASON, INTERRUPTED)
            raise
        except ImponHpoError:
            raise
        except Exception as error:
            trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")
            self._describe(trial, course)
            raise
        if REASON in trial.user_attrs:  # of an earlier interruption
            trial.set_user_attr(REASON, "")
        self._describe(trial, course)
        return course.results[-1].val_accuracy

    def _train(
        self,
        trial: optuna.Trial,
        config: TrainingConfig,
        begun: Begun,
        course: Course,
    ) -> None:
        """Train from where the trial is to its end, and gather the results of its epochs."""
        results = course.results
        for result, new in self._epochs(trial, config, begun, course):
            if new and len(results) < len(begun.epochs):
                begun = begun.trained_again(trial, n_kept=len(results))
            results.append(result)
            if new or len(results) > len(begun.epochs):
                trial.set_user_attr(EPOCHS, [dataclasses.asdict(result) for result in results])
            if new and self._on_epoch is not None:
                self._on_epoch(trial, result)
            _report(trial, result, begun, config.epochs)

    def _epochs(
        self,
        trial: optuna.Trial,
        config: TrainingConfig,
        begun: Begun,
        course: Course,
    ) -> Iterator[tuple[EpochResult, bool]]:
        """Yield the results of all epochs, and whether each was trained just now."""
        checkpoint = None
        if self._checkpoints is not None:
            checkpoint = self._checkpoints.of(trial.study, trial.number)
        config, splits, memory = self._with_reference(trial, config, begun)
        course.run = resumed_run(config, splits, memory, checkpoint, self._ahead(trial, config))
        for result, new in all_epochs(course.run, checkpoint):
            self._epochs_here[_shape(config)] += new
            yield result, new
        reached = course.results[-1].val_accuracy
        if memory is not None and learnt_enough(reached, self.splits.n_classes):
            self._references.learn(trial.study, self.config, splits, memory)

    def _ahead(self, trial: optuna.Trial, config: TrainingConfig) -> Ahead:
        """Return about how many epochs of this trial's shape this worker has before it afterwards:
        as many a trial of the study as until now."""
        n_left = max(0, (self._n_trials or 0) - trial.number - 1)
        so_far = self._epochs_here[_shape(config)] / (trial.number + 1)
        return Ahead(so_far * n_left, self._references.say)

    def _with_reference(
        self, trial: optuna.Trial, config: TrainingConfig, begun: Begun
    ) -> tuple[TrainingConfig, Splits, RowMemory | None]:
        """Return settings and data of a trial, and a memory where it is to learn a reference."""
        if not wants_reference(config):
            return config, self.splits, None
        kept = None
        if begun.used or not begun.epochs:  # one that began without a reference ends without
            kept = self._references.find(trial.study, self.config, self.splits)
        if kept is None:
            config = without_reference(config)
            self._references.say(
                f"trial {trial.number} has no reference yet: it is trained with "
                f"'{config.sampler}', and what it sees of the rows is the reference of later ones"
            )
            memory = RowMemory(self.splits.train.labels, self.splits.n_classes)
            return config, self.splits, memory
        trial.set_user_attr(USED, self._references.key(self.config, self.splits))
        return config, with_reference(self.splits, kept), None

    def _describe(self, trial: optuna.Trial, course: Course, *, cost_of_no_result: int = 0) -> None:
        """Leave with a trial that ends what it cost and what came of it."""
        results = course.results
        trial.set_user_attr(COST, sum(result.cost for result in results) + cost_of_no_result)
        if not results:
            return
        # As numbers of their own, the dashboard can sort and plot by them.
        numbers = {"share_seen": results[-1].share_seen} | results[-1].diagnostics
        for name, number in numbers.items():
            trial.set_user_attr(f"impon:{name}", number)
        if self._artifact_store is not None and course.run is not None:
            upload_files(trial, self._artifact_store, course.run, results)


def _shape(config: TrainingConfig) -> tuple[object, ...]:
    """Return what decides whether two configurations can share what is compiled."""
    return tuple(getattr(config, name) for name in SHAPING)


def _report(trial: optuna.Trial, result: EpochResult, begun: Begun, horizon: int) -> None:
    """Report an epoch, unless that is done, and ask the pruner, unless that was decided."""
    if result.epoch not in begun.reported:
        trial.report(result.val_accuracy, step=result.epoch)
    elif result.epoch < max(begun.reported):
        return
    # After the last epoch there is nothing left to save, and a pruned trial is never the best one.
    if result.epoch < horizon and trial.should_prune():
        raise optuna.TrialPruned(f"pruned after epoch {result.epoch}")

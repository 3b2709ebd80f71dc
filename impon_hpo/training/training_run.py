"""One training run: its moving parts, and the loop over its epochs, each saved as it ends."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError, NonFiniteLossError
from impon_hpo.sampling.table import make_sampler
from impon_hpo.signals import HeldSignals
from impon_hpo.training.checkpoint import Checkpoint
from impon_hpo.training.compiling import CompiledStep
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.epoch_result import EpochResult, forward_equivalents
from impon_hpo.training.metrics import Judgement
from impon_hpo.training.optimization import average_weights, load_optimizer, make_schedule
from impon_hpo.training.own_randomness import OwnRandomness
from impon_hpo.training.row_memory import RowMemory
from impon_hpo.training.splits import Split, Splits
from impon_hpo.training.timing import Beside, PhaseTimer
from impon_hpo.training.trained_model import USE, for_use
from impon_hpo.training.training_step import TrainingStep

PHASES = ("drawing", "stepping")


@dataclass
class BegunEpoch:
    """An epoch of which some steps are done.

    Args:
        losses: (steps_per_epoch,) float64, the mean loss of each batch; 0 for the steps left.
        timer: Counts the seconds.
        steps: Steps taken.
        rows_scored: Rows scored.
    """

    losses: Tensor
    timer: PhaseTimer
    steps: int = 0
    rows_scored: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "losses": self.losses,
            "seconds": {phase: self.timer.seconds(phase) for phase in PHASES},
            "steps": self.steps,
            "rows_scored": self.rows_scored,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> BegunEpoch:
        """Return the epoch that `state_dict` describes."""
        timer = PhaseTimer(device, state["seconds"])
        return cls(state["losses"].to(device), timer, state["steps"], state["rows_scored"])


class TrainingRun:
    """The moving parts of one training run; `train_epoch` advances them all by an epoch.

    For each epoch that is done, `results` has its result, `step_losses` the mean loss of each batch
    (steps_per_epoch,) float64, and `class_picks` how often each class was picked.

    Args:
        config: The settings.
        splits: The data. Everything runs on their device.
        memory: Collects what the run observes of each row.
        epochs_ahead: About how many epochs of the same shape this process trains after this run,
            for `compile = "auto"`.

    Raises:
        ConfigError: Model, batch sampler or `augment` do not fit the data, or `compile` not the
            device; or there is a memory, and images are mixed.
        CheckpointError: `weights_file` cannot be read.
        DataError: Weights cannot be fetched.
    """

    def __init__(
        self,
        config: TrainingConfig,
        splits: Splits,
        memory: RowMemory | None = None,
        epochs_ahead: float = 0.0,
    ) -> None:
        self.config, self.splits, self.memory = config, splits, memory
        self.results: list[EpochResult] = []
        self.class_picks: list[list[int]] = []
        self.step_losses: list[Tensor] = []
        self._begun: BegunEpoch | None = None
        self.device = splits.train.labels.device
        # A seed for each purpose: another batch sampler changes neither weights nor crops.
        seeds = np.random.SeedSequence(config.seed).generate_state(4).tolist()
        weights_seed, crop_seed, sampler_seed, layers_seed = seeds
        self.training_step = TrainingStep(
            config, splits, weights_seed=weights_seed, crop_seed=crop_seed
        )
        if memory is not None and self.training_step.mixing is not None:
            raise ConfigError(
                f"augment = '{config.augment}': what a run remembers of its rows would be of mixed "
                "images. Leave out mixup and cutmix, or use reference = 'crossfit'."
            )
        draws = self.training_step.draws
        self.randomness = OwnRandomness(layers_seed, self.device, python=draws.in_python)
        self._randomly = self.randomness if draws.at_random else nullcontext()
        self.model, self.optimizer = self.training_step.model, self.training_step.optimizer
        self.steps_per_epoch = max(
            1, round(config.epoch_fraction * (len(splits.train) // config.batch_size))
        )
        self.schedule = make_schedule(config, self.optimizer, self.steps_per_epoch)
        self.averaged = average_weights(config, self.model, self.steps_per_epoch)
        self.sampler = make_sampler(
            config.sampler,
            splits.rows(),
            config.sampler_options,
            batch_size=config.batch_size,
            model=self.model,
            seed=sampler_seed,
            total_steps=config.epochs * self.steps_per_epoch,
        )
        self.compiled = CompiledStep(
            self.training_step,
            config,
            scores_watched=self.sampler.watches_scoring,
            epochs_ahead=epochs_ahead,
        )
        self._beside = Beside(self.device)
        self.sampler.before_weights(self._beside.wait_for_all)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.results)

    def train_epoch(self, between_steps: Callable[[], None] | None = None) -> EpochResult:
        """Train for one epoch, or the rest of one, validate, and return the result.

        Args:
            between_steps: Called after every step. If it raises, the run can be saved as it is, in
                the middle of an epoch.

        Raises:
            NonFiniteLossError: The mean loss of the epoch is infinite or not a number; or that of
                validation is, and it is the metric.
        """
        timer = PhaseTimer(self.device) if self._begun is None else self._begun.timer
        epoch = self.epoch + 1
        train_loss, rows_scored = self.train_rows(epoch, timer, between_steps)
        rows_trained = self.steps_per_epoch * self.config.batch_size
        if not math.isfinite(train_loss):
            raise NonFiniteLossError(
                f"The training loss of epoch {epoch} is {train_loss}.",
                cost=forward_equivalents(rows_trained, rows_scored, 0),
            )
        with timer.phase("validating"):
            val_accuracy, val_loss = self.evaluate(self.splits.validation)
        diagnostics = self.sampler.diagnostics()
        rows_validated = len(self.splits.validation)
        if not math.isfinite(val_accuracy):  # a metric "loss", where running statistics overflow
            raise NonFiniteLossError(
                f"The validation loss of epoch {epoch} is {val_loss}.",
                cost=forward_equivalents(rows_trained, rows_scored, rows_validated),
            )
        result = EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            val_accuracy=val_accuracy,
            val_loss=val_loss,
            rows_trained=rows_trained,
            rows_scored=rows_scored,
            rows_validated=rows_validated,
            cost=forward_equivalents(rows_trained, rows_scored, rows_validated),
            seconds_drawing=timer.seconds("drawing"),
            seconds_stepping=timer.seconds("stepping"),
            seconds_validating=timer.seconds("validating"),
            share_seen=diagnostics.pop("share_seen"),
            diagnostics={key: value for key, value in diagnostics.items() if math.isfinite(value)},
        )
        self.compiled.epoch_done(result.seconds_stepping, self.config.epochs - epoch)
        self.results.append(result)
        self.class_picks.append(self.sampler.class_picks().tolist())
        return result

    def train_rows(
        self, epoch: int, timer: PhaseTimer, between_steps: Callable[[], None] | None = None
    ) -> tuple[float, int]:
        """Take the steps of an epoch; return the mean loss of their rows and the rows scored."""
        begun = self._begun
        if begun is None:
            self.sampler.start_epoch(epoch)
            means = torch.zeros(self.steps_per_epoch, dtype=torch.float64, device=self.device)
            begun = self._begun = BegunEpoch(means, timer)

        def score(rows: Tensor) -> tuple[Tensor, Tensor]:
            begun.rows_scored += len(rows)
            self._beside.wait_for_all()
            with self._randomly:  # an evaluation may draw, too
                losses, logits = self.compiled.score(*self.splits.train.batch(rows))
            return losses, logits

        self.training_step.begin_training()
        losses_ready = None
        try:
            for step in range(begun.steps, self.steps_per_epoch):
                with timer.phase("drawing"):
                    with self._beside(losses_ready):
                        draw = self.sampler.draw(score)
                    self._beside.join()
                with timer.phase("stepping"):
                    with self._beside(losses_ready):
                        images, labels = self.splits.train.batch(draw.rows)
                    self._beside.join()
                    losses, logits, mean = self.step(images, labels, draw.weights)
                    begun.losses[step] = mean
                if self.sampler.beside_training:
                    losses_ready = self.compiled.losses_ready
                with timer.phase("drawing"), self._beside(losses_ready):
                    self.sampler.observe(draw, losses, logits)
                    if self.memory is not None:
                        self.memory.add(draw.rows, logits)
                begun.steps += 1
                if between_steps is not None:
                    between_steps()
        finally:
            self._beside.join()
        if self.memory is not None:
            self.memory.end_epoch()
        self._begun = None
        self.step_losses.append(begun.losses)
        return float(begun.losses.mean()), begun.rows_scored

    def evaluate(self, split: Split, weights: str | None = None) -> tuple[float, float]:
        """Return the `metric` and the mean cross-entropy of `weights` (default: `eval_weights`).

        The metric is 0 … 1, or with "loss" minus the mean cross-entropy; higher is better.
        """
        value, loss = self.judged(split, weights).tolist()
        return value, loss

    def judged(self, split: Split, weights: str | None = None) -> Tensor:
        """Return what `evaluate` does as (2,) float64 on the device, without waiting for it."""
        judgement = Judgement(self.splits.n_classes, self.device)
        for logits, labels in self.predictions(split, weights):
            judgement.add(logits, labels)
        return judgement.result(self.config.metric)

    def predictions(
        self, split: Split, weights: str | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (k, n_classes) of `weights` (default: `eval_weights`) and the labels
        (k,) of a split, a part at a time."""
        averaged = None if weights == "last" else self.averaged
        model = None if averaged is None else averaged.module
        for images, labels in split.parts():
            with self._randomly:
                logits = self.training_step.predict(images, model)
            yield logits, labels

    def step(
        self, images: Tensor, labels: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Train on images (B, H, W, C) and labels (B,), their losses weighted by `weights` (B,) or
        by 1; return losses (B,), logits (B, n_classes) and mean loss () as they were before."""
        images = self.training_step.transforms(images)
        with self._randomly:
            losses, logits, mean = self.compiled.train(images, labels, weights)
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update()
        return losses, logits, mean

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, for a checkpoint."""
        outside = self.training_step.transforms.randomness
        height, width, channels = self.splits.train.images.shape[1:]
        return {
            "config": self.config.identity(),
            "results": [dataclasses.asdict(result) for result in self.results],
            "class_picks": list(self.class_picks),
            "step_losses": list(self.step_losses),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "sampler": self.sampler.state_dict(),
            "begun": None if self._begun is None else self._begun.state_dict(),
            "augmentation": self.training_step.augmentation.generator.get_state(),
            "transforms": None if outside is None else outside.state_dict(),
            "memory": None if self.memory is None else self.memory.state_dict(),
            "randomness": self.randomness.state_dict(),
            USE: for_use(
                self.config,
                self.splits.class_names,
                (channels, height, width),
                self.training_step.normalise.moments,
            ),
        }

    def continue_from(self, checkpoint: Checkpoint) -> None:
        """Load the state of `checkpoint`, if it exists.

        Raises:
            CheckpointError: It is broken or of another run.
        """
        state = checkpoint.load(self.config, self.device)
        if state is None:
            return
        self.results = [EpochResult(**result) for result in state["results"]]
        self.class_picks = state["class_picks"]
        self.step_losses = state["step_losses"]
        self.model.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.sampler.load_state_dict(state["sampler"])
        if state["begun"] is not None:
            self._begun = BegunEpoch.from_state(state["begun"], self.device)
        self.training_step.augmentation.generator.set_state(state["augmentation"].cpu())
        if self.training_step.transforms.randomness is not None:
            self.training_step.transforms.randomness.load_state_dict(state["transforms"])
        self.randomness.load_state_dict(state.get("randomness"))
        if self.memory is not None and state.get("memory") is not None:
            self.memory.load_state_dict(state["memory"])


def train_epochs(
    config: TrainingConfig,
    splits: Splits,
    checkpoint: Checkpoint | None = None,
    memory: RowMemory | None = None,
) -> Iterator[EpochResult]:
    """Train as `config` says and yield the result of each epoch as it ends.

    Args:
        config: The settings.
        splits: The data, from `load_splits(config, device)`. Training runs on their device.
        checkpoint: The run continues from it, if it exists. It is saved after each epoch, and when
            Ctrl-C or SIGTERM ends the run in the middle of one.
        memory: Collects what the run observes of each row. It is part of the checkpoint.

    Raises:
        ConfigError: Model or batch sampler do not fit the data.
        CheckpointError: The checkpoint is broken or of another run.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.

    Example:
        >>> import torch
        >>> from impon_hpo import TrainingConfig, load_splits, train_epochs
        >>> config = TrainingConfig(
        ...     dataset="digits", subset=320, width=4, epochs=2, batch_size=32, sampler="impon",
        ...     sampler_options={"bank_size": 64},
        ... )
        >>> results = list(train_epochs(config, load_splits(config, torch.device("cpu"))))
        >>> [result.epoch for result in results], results[0].rows_trained
        ([1, 2], 320)
    """
    run = TrainingRun(config, splits, memory)
    if checkpoint is not None:
        run.continue_from(checkpoint)
    yield from epochs_left(run, checkpoint)


def epochs_left(
    run: TrainingRun, checkpoint: Checkpoint | None, *, save_seconds: float = 0.0
) -> Iterator[EpochResult]:
    """Train a run from where it is to its end and yield the result of each epoch.

    Ctrl-C and SIGTERM let the step under way finish, and what is done of the epoch is saved.

    Args:
        run: The run.
        checkpoint: Where to save it after each epoch, if anywhere.
        save_seconds: It is not saved again before so many seconds have passed.

    Raises:
        CheckpointError: The checkpoint cannot be written. The former one is still there.
        NonFiniteLossError: The loss of an epoch is infinite or not a number.
    """
    saved_at = time.monotonic()
    while run.epoch < run.config.epochs:
        with HeldSignals() as held:
            try:
                result = run.train_epoch(held.let_through)
            except KeyboardInterrupt:
                if checkpoint is not None:
                    checkpoint.save(run.state_dict())
                raise
            if checkpoint is not None and time.monotonic() - saved_at >= save_seconds:
                checkpoint.save(run.state_dict())
                saved_at = time.monotonic()
        yield result

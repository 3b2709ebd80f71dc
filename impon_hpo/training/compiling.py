"""Compiling: how a training step is run on its device, as `compile` says."""

from __future__ import annotations

import logging
from functools import partial

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling import captured
from impon_hpo.sampling.captured import Captured, Function
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.training_step import TrainingStep

log = logging.getLogger("impon_hpo")

COMPILE_SECONDS = 35.0
"""Seconds of inductor for ResNet18 at one shape, with an empty cache (studies/speed)."""

GAIN = 0.25
"""Share of the time of a captured step that inductor saves on a GPU (studies/speed)."""

_compiled: set[tuple[object, ...]] = set()
"""The shapes that this process has compiled: torch keeps them until the process ends."""


class CompiledStep:
    """A training step as its `compile` setting says.

    "off": operation by operation. "graph": captured as a CUDA graph after its first three calls.
    "inductor": with a model compiled by torch, and captured on a GPU. "auto": "off" on a CPU; on a
    GPU "graph", and "inductor" as soon as the remaining epochs would save more time than compiling
    takes.

    Args:
        step: The step.
        config: The settings.
        scores_watched: Whether what scores rows must run in Python every time.
        epochs_ahead: About how many epochs of the same shape this process trains after this run.

    Raises:
        ConfigError: `compile = "graph"` without a GPU.
    """

    def __init__(
        self,
        step: TrainingStep,
        config: TrainingConfig,
        *,
        scores_watched: bool,
        epochs_ahead: float,
    ) -> None:
        self._step, self._setting, self._epochs_ahead = step, config.compile, epochs_ahead
        on_gpu = captured.graph_on(step.device) is not None
        if config.compile == "graph" and not on_gpu:
            raise ConfigError(
                "compile = 'graph' needs a CUDA GPU, and this run is on a CPU. Use "
                "compile = 'auto', which is 'graph' on a GPU."
            )
        self._may_compile = config.compile == "auto"
        self.mode: str = config.compile
        if self.mode == "auto":
            self.mode = "graph" if on_gpu else "off"
        image = step.splits.train.images.shape[1:]
        self._shape = (
            config.model,
            str(config.model_options),
            config.train_layers,
            config.width,
            step.splits.n_classes,
            *image,
            config.batch_size,
            step.autocast,
            step.memory_format,
        )
        self.score = self._captured(step.score, capture=self.mode != "off" and not scores_watched)
        """Images and labels (k,) -> losses (k,) and logits (k, n_classes), without gradients."""
        self._train = self._captured(step.train, capture=self.mode != "off")
        if self.mode == "inductor" or (self._may_compile and self._shape in _compiled):
            self._compile()

    def train(self, images: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, ...]:
        """Train on images (B, H, W, C) and labels (B,), their losses weighted by `weights` (B,) or
        by 1; return losses (B,), logits (B, n_classes) and mean loss () as they were before.

        Raises:
            ConfigError: torch cannot do what `compile` asks for.
        """
        try:
            return self._train(images, labels, weights)
        except torch._dynamo.exc.TorchDynamoException as error:
            self._do_not_compile(error)
            return self._train(images, labels, weights)

    @property
    def losses_ready(self) -> torch.cuda.Event | None:
        """On a GPU: reached when the losses of the last step are ready, before its weights are."""
        return self._train.result_there

    def epoch_done(self, seconds: float, epochs_left: int) -> None:
        """Decide, under "auto", whether the remaining epochs are compiled.

        Args:
            seconds: Time of the steps of the last epoch.
            epochs_left: Epochs that remain in this run.
        """
        if self.mode == "inductor":
            _compiled.add(self._shape)
        if self.mode != "graph" or not self._may_compile or epochs_left == 0:
            return
        epochs = epochs_left + self._epochs_ahead
        if epochs * seconds * GAIN > COMPILE_SECONDS:
            log.info(
                f"compile: about {epochs:.0f} epochs of {seconds:.1f} s remain. Compiling takes "
                f"about {COMPILE_SECONDS:.0f} s and saves a quarter of each."
            )
            self._compile()

    def _compile(self) -> None:
        self.mode = "inductor"
        self._step.compile()
        self._train = self._captured(self._step.train)

    def _do_not_compile(self, error: Exception) -> None:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if self._setting != "auto":
            raise ConfigError(
                f"compile = 'inductor': torch cannot compile this model here: {reason} "
                "Use compile = 'auto' or 'off'."
            ) from error
        log.info(f"compile: torch cannot compile this model here: {reason}")
        self._may_compile = False
        self.mode = "graph"
        self._step.do_not_compile()
        self._train = self._captured(self._step.train)

    def _captured(self, function: Function, *, capture: bool = True) -> Captured:
        return Captured(
            function,
            self._step.device,
            generators=[self._step.augmentation.generator],
            lane="training",
            capture=capture,
            refused=partial(_refused, self._setting),
        )


def _refused(setting: str, reason: str) -> None:
    if setting == "graph":
        raise ConfigError(
            "compile = 'graph': a step of this model cannot be captured as a CUDA graph: "
            f"{reason}. Use compile = 'off'."
        )
    log.info(f"compile: a step cannot be captured as a CUDA graph, so it runs without: {reason}")

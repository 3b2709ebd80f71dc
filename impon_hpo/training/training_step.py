"""The training step: model, optimiser and augmentation of a run, and what a batch does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from impon_hpo.training.answers import auxiliary_share, read_answer
from impon_hpo.training.augment_setting import augment_names, mixing_names
from impon_hpo.training.augmentation import Augmentation
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.device import autocast_pays, memory_format
from impon_hpo.training.fine_tuning import freeze
from impon_hpo.training.image_transforms import ImageTransforms
from impon_hpo.training.mixing import Mixing
from impon_hpo.training.models import build_model, check_training
from impon_hpo.training.optimization import make_optimizer
from impon_hpo.training.pretrained import own_normalisation
from impon_hpo.training.splits import Splits

SHAPES_COMPILED = 64
"""Input shapes that torch may compile a model for in one process; its own limit is 8."""


class TrainingStep:
    """What is trained and how: images and labels go in, the losses that they had come out.

    Nothing in it depends on a Python number that changes from step to step, so that a GPU can
    replay it. That is why the learning rate is a tensor on a GPU.

    Args:
        config: The settings.
        splits: The data. Everything runs on their device.
        weights_seed: Seed of the initial weights.
        crop_seed: Seed of all that `augment` asks for.

    Raises:
        ConfigError: The model or `augment` does not fit the data.
    """

    def __init__(
        self, config: TrainingConfig, splits: Splits, *, weights_seed: int, crop_seed: int
    ) -> None:
        self.splits = splits
        self.device = device = splits.train.labels.device
        self.label_smoothing = config.label_smoothing
        model = build_model(config, splits, weights_seed)
        self.draws = check_training(config, model, splits)
        """What layers of the model draw from while it trains."""
        self._frozen_norms = freeze(config, model, splits.n_classes)
        self.normalise = own_normalisation(config, model, splits) or splits.normalise
        self._class_weights = class_weights(config, splits)
        self.model = model.to(device)
        self.memory_format = memory_format(config, self.model, device)
        self.model = self.model.to(memory_format=self.memory_format)
        self.autocast = autocast_pays(config, device)
        self.optimizer = make_optimizer(config, self.model, splits.n_classes)
        height, width = splits.train.images.shape[1:3]
        names, options = augment_names(config.augment, splits.augment), config.augment_options
        # A GPU replays the step, so what the host draws image by image must come before it.
        other_seed = int(np.random.SeedSequence([crop_seed, 1]).generate_state(1)[0])
        self.transforms = ImageTransforms(names, options, splits.train.images[0], other_seed)
        self.augmentation = Augmentation(height, width, names, crop_seed, device)
        self.mixing = (
            Mixing(names, options, self.augmentation.generator) if mixing_names(names) else None
        )
        self._forward: Callable[[Tensor], Any] = self.model

    def compile(self) -> None:
        """Have torch compile the model for training; evaluation stays as it is."""
        compiled = torch.compile(self.model, dynamic=False)

        def forward(inputs: Tensor) -> Any:
            with torch._dynamo.config.patch(recompile_limit=SHAPES_COMPILED):
                return compiled(inputs)

        self._forward = forward

    def do_not_compile(self) -> None:
        """Go back to the model as it is."""
        self._forward = self.model

    def begin_training(self) -> None:
        """Put the model into training mode, but for normalisation that is frozen."""
        self.model.train()
        for norm in self._frozen_norms:
            norm.eval()

    def train(
        self, images: Tensor, labels: Tensor, weights: Tensor | None
    ) -> Iterator[tuple[Tensor, ...]]:
        """Train on images (B, H, W, C) uint8, labels (B,); losses count `weights` (B,) or 1.

        Images come from `transforms`. Where `mixing` mixes them, a row's logits and loss are those
        of its image with another in it; the loss counts both labels, by their shares.

        The losses that are told are those of the logits. What is minimised has the losses of
        auxiliary heads added to them, and counts each row by the weight of its own class, too; so
        losses mean the same to a batch sampler, in a reference and in another trial, whatever is
        minimised.

        Yields:
            Once: the losses (B,) float32 and logits (B, n_classes) float32 of the rows, and the
            mean of the losses, () float64. The weights change when the iteration goes on.
        """
        inputs = self.normalise(self.augmentation(images))
        others, share = None, None
        if self.mixing is not None:
            inputs, others, share = self.mixing(inputs)

        def losses_of(logits: Tensor) -> Tensor:
            losses = self.row_losses(logits, labels)
            if others is None or share is None:
                return losses
            return torch.lerp(self.row_losses(logits, labels[others]), losses, share)

        logits, auxiliary = self._answer(inputs, self._forward)
        losses = losses_of(logits)
        yield losses.detach(), logits.detach(), losses.detach().double().mean()
        for more in auxiliary:
            losses = losses + auxiliary_share(len(auxiliary)) * losses_of(more)
        if self._class_weights is not None:
            losses = self._class_weights[labels] * losses
        (losses if weights is None else weights * losses).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def predict(self, images: Tensor, model: nn.Module | None = None) -> Tensor:
        """Return logits (k, n_classes) float32 of images (k, H, W, C) uint8, in evaluation mode."""
        model = model or self.model
        was_training = model.training
        model.eval()
        logits, _ = self._answer(self.normalise(images), model)
        if was_training and model is self.model:
            self.begin_training()
        return logits

    def score(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (k,) and logits (k, n_classes) of images (k, H, W, C), as they stand."""
        logits = self.predict(images)
        return self.row_losses(logits, labels), logits

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the training losses (k,) of logits (k, n_classes)."""
        return cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)

    def _answer(
        self, inputs: Tensor, model: Callable[[Tensor], Any]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return logits (k, n_classes) float32 of inputs (k, C, H, W), and those of auxiliary
        heads."""
        inputs = inputs.contiguous(memory_format=self.memory_format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            logits, auxiliary = read_answer(model(inputs))
        assert logits is not None
        return logits.float(), [one.float() for one in auxiliary]


def class_weights(config: TrainingConfig, splits: Splits) -> Tensor | None:
    """Return the weight (n_classes,) float32 of each class in the loss, or None for 1 each.

    "balanced": rows / (classes · rows of the class), as scikit-learn has it, from the training
    rows. Classes without one do not count.
    """
    if config.class_weights == "none":
        return None
    rows = torch.bincount(splits.train.labels, minlength=splits.n_classes).double()
    weights = rows.sum() / ((rows > 0).sum() * rows)
    return torch.where(rows > 0, weights, 0.0).float()

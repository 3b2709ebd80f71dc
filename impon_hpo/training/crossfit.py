"""Cross-fitting: small models, each of which judges the rows that it was not trained on."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.reference import Reference
from impon_hpo.settings import Settings
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.images import Images
from impon_hpo.training.models import build_model, forward_flops
from impon_hpo.training.splits import Split, Splits
from impon_hpo.training.timing import PhaseTimer
from impon_hpo.training.training_run import TrainingRun

log = logging.getLogger("impon_hpo")


class CrossfitSettings(Settings):
    """How the small models are trained; the keys of `reference_options` for "crossfit".

    Args:
        folds: Parts of the rows; each is judged by a model trained on the others.
        width: Channels of the first stage of their ResNet18; default a quarter of the study's.
        image_size: Side in pixels of their images; default that of the study.
        epochs: Their epochs.
        batch_size: Their batch.
        lr: Their peak learning rate (SGD, one cycle).
    """

    folds: int = Field(default=2, ge=2, le=20)
    width: int | None = Field(default=None, ge=1, le=1024)
    image_size: int | None = Field(default=None, ge=4, le=1024)
    epochs: int = Field(default=6, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)


def crossfit_settings(config: TrainingConfig) -> CrossfitSettings:
    """Return `config.reference_options` with all defaults filled in.

    Raises:
        ConfigError: A key is unknown or a value does not fit.
    """
    settings = CrossfitSettings.checked(config.reference_options, prefix="reference_options.")
    if settings.width is None:
        settings = settings.model_copy(update={"width": max(4, config.width // 4)})
    return settings


def crossfit(config: TrainingConfig, splits: Splits) -> tuple[Reference, int]:
    """Make a reference: split the rows into folds, train on all but one, judge that one.

    The loss and the probabilities of a row are means over the second half of the epochs; its
    trajectory has an entry an epoch. Rows are judged without augmentation. What is charged counts
    the small models' passes in forward passes of the study's model, by floating-point operations.

    Args:
        config: The settings of the study's runs; `reference_options` are those of the small ones.
        splits: The data; only `train` is read. Its groups, if there are any, are not parted.

    Returns:
        The reference, and its cost in forward-equivalents of the study's model.

    Raises:
        ConfigError: `reference_options` are wrong, or do not fit the data.
    """
    settings = crossfit_settings(config)
    small = _small_config(config, settings)
    images, labels = splits.train.images, splits.train.labels
    if settings.image_size is not None:
        images = images.resized(settings.image_size)
    device = labels.device
    generator = torch.Generator(device=device).manual_seed(0)
    if splits.train.groups is None:
        fold_of = torch.randperm(len(labels), generator=generator, device=device) % settings.folds
    else:
        fold_of = _folds_of_groups(splits.train.groups, settings.folds)
    smallest = len(labels) - int(fold_of.bincount().max())
    if settings.batch_size > smallest:
        raise ConfigError(
            f"reference_options.batch_size must be at most the rows outside a fold ({smallest}), "
            f"but is {settings.batch_size}."
        )
    trajectory = torch.zeros(settings.epochs, len(labels), device=device)
    probabilities = torch.zeros(len(labels), splits.n_classes, device=device)
    first_counted = settings.epochs // 2
    rows_trained = rows_judged = 0
    for fold in range(settings.folds):
        outside, inside = (fold_of != fold).nonzero()[:, 0], (fold_of == fold).nonzero()[:, 0]
        held_out = Split(images.of(inside), labels[inside])
        part = dataclasses.replace(
            splits,
            train=Split(images.of(outside), labels[outside]),
            validation=held_out,
            test=held_out,
            reference=None,
        )
        run = TrainingRun(small.model_copy(update={"seed": fold}), part)
        for epoch in range(settings.epochs):
            run.train_rows(epoch + 1, PhaseTimer(device))
            rows_trained += run.steps_per_epoch * settings.batch_size
            logits = torch.cat([part for part, _ in run.predictions(held_out, "last")])
            rows_judged += len(held_out)
            losses = cross_entropy(logits, held_out.labels, reduction="none")
            # A row that a small model is sure about, but wrong, must not outweigh all others.
            trajectory[epoch, inside] = losses.nan_to_num(20.0).clamp(0, 20)
            if epoch >= first_counted:
                probabilities[inside] += logits.softmax(1).nan_to_num(1 / splits.n_classes)
        right = float((logits.argmax(1) == held_out.labels).double().mean())
        log.info("reference: model %d/%d, held-out accuracy %.4f", fold + 1, settings.folds, right)
    n_counted = settings.epochs - first_counted
    reference = Reference(trajectory[first_counted:].mean(0), probabilities / n_counted, trajectory)
    share = _relative_flops(config, splits, small, images)
    return reference, round(share * (3 * rows_trained + rows_judged))


def _folds_of_groups(groups: Tensor, n_folds: int) -> Tensor:
    """Return the fold (n,) of each row, so that the rows of a group are in one."""
    from sklearn.model_selection import GroupKFold

    numbers, group_of = np.unique(groups.cpu().numpy(), return_inverse=True)
    n_groups = len(numbers)
    if n_groups < n_folds:
        raise ConfigError(
            f"reference_options.folds must be at most the groups of the training images "
            f"({n_groups}), but is {n_folds}."
        )
    # Groups of one size go to the folds in turn, by number: in the data's order, so may classes.
    shuffled = np.random.default_rng(0).permutation(n_groups)[group_of]
    parts = GroupKFold(n_folds).split(shuffled, groups=shuffled)
    fold_of = torch.zeros_like(groups)
    for fold, (_, inside) in enumerate(parts):
        fold_of[torch.from_numpy(inside).to(groups.device)] = fold
    return fold_of


def _small_config(config: TrainingConfig, settings: CrossfitSettings) -> TrainingConfig:
    changed: dict[str, Any] = {
        "model": "resnet18",
        "model_options": {},
        "weights_file": None,
        "normalisation": "data",
        "train_layers": "all",
        "lr_head": None,
        "class_weights": "none",
        "width": settings.width,
        "epochs": settings.epochs,
        "epoch_fraction": 1.0,
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "one-cycle",
        "warmup_epochs": 0.0,
        "label_smoothing": 0.0,
        "compile": "auto",
        "sampler": "uniform",
        "sampler_options": {},
    }
    return config.model_copy(update=changed)


def _relative_flops(
    config: TrainingConfig, splits: Splits, small: TrainingConfig, small_images: Images
) -> float:
    """Return the cost of a forward pass of a small model in those of the study's model."""
    _, height, width, channels = splits.train.images.shape
    _, small_height, small_width, _ = small_images.shape
    full = forward_flops(build_model(config, splits, seed=0), (channels, height, width))
    little = forward_flops(
        build_model(small, splits, seed=0), (channels, small_height, small_width)
    )
    return little / full

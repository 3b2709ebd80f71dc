"""Made data: random images and labels of any size, since what they show changes no time."""

from __future__ import annotations

import numpy as np
import torch

from impon_hpo.sampling.reference import Reference
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.splits import Splits, split_data

N_CLASSES = 10


def make_splits(config: TrainingConfig, *, n_train: int, side: int, device: torch.device) -> Splits:
    """Make splits of colour images: `n_train` rows to train on, a tenth of that to validate with.

    Args:
        config: The settings; only seed and batch size are read.
        n_train: Training rows, at least a batch and 10 classes' worth.
        side: Pixels of a side.
        device: Where the splits are to lie.
    """
    n_validation = max(N_CLASSES, n_train // 10)
    generator = np.random.default_rng(0)
    n = n_train + n_validation
    images = generator.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    labels = np.arange(n) % N_CLASSES
    test = slice(0, 2 * N_CLASSES)
    data = ImageData(images, labels, images[test], labels[test], augment="crop+flip")
    config = config.model_copy(update={"validation_size": n_validation, "subset": None})
    return split_data(data, config, device)


def made_reference(n_rows: int, device: torch.device) -> Reference:
    """Make what earlier training might have learnt about `n_rows` rows."""
    generator = torch.Generator().manual_seed(0)
    loss = torch.rand(n_rows, generator=generator)
    probabilities = torch.rand(n_rows, N_CLASSES, generator=generator)
    probabilities /= probabilities.sum(1, keepdim=True)
    return Reference(loss.to(device), probabilities.to(device), loss[None].to(device))

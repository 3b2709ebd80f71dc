"""Functions that a user may name in `augment`, right and wrong."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor


def shifted(image: Tensor) -> Tensor:
    """Add three random numbers, one of each kind, to all pixels of an image (C, H, W) uint8."""
    by = int(torch.randint(5, ())) + int(np.random.randint(5)) + random.randrange(5)
    return image + by


def in_place(image: Tensor) -> Tensor:
    """Change the image that is given, without drawing anything."""
    image += 1
    return image


def as_floats(image: Tensor) -> Tensor:
    return image / 255


def channels_last(image: Tensor) -> Tensor:
    return image.permute(1, 2, 0)


def one_channel(image: Tensor) -> Tensor:
    return image[:1]


def as_array(image: Tensor) -> np.ndarray:
    return image.numpy()


def failing(image: Tensor) -> Tensor:
    raise KeyError("which")


NOT_A_FUNCTION = 3

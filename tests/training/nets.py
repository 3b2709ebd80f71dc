"""Models as users have them, small: random layers, auxiliary heads, answers of every shape."""

from __future__ import annotations

import dataclasses
import random
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

SIZE = 64
"""Pixels of an image of the digits, which have one channel."""


def dropping(num_classes: int, *, share: float = 0.5) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIZE, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(share),
        nn.Linear(32, num_classes),
    )


class DropPath(nn.Module):
    """As in timm, whose layers torch does not know."""

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training:
            return hidden
        return hidden * hidden.new_empty(len(hidden), 1).bernoulli_(0.8) / 0.8


def drop_path(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIZE, 32), DropPath(), nn.ReLU(), nn.Linear(32, num_classes)
    )


class DrawsInPython(nn.Module):
    """Draws its weights, and what it drops, from numpy's and `random`'s generators."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(SIZE, num_classes)
        weights = np.random.standard_normal((num_classes, SIZE)) / 8
        self.fc.weight.data.copy_(torch.from_numpy(weights))

    def forward(self, images: Tensor) -> Tensor:
        hidden = images.flatten(1)
        if self.training:
            hidden = hidden * torch.from_numpy(np.random.random(SIZE) < 0.8) * random.random()
        return self.fc(hidden)  # type: ignore[no-any-return]


class AlwaysDrops(nn.Module):
    """Forgets to say whether it trains, so that it draws while it is evaluated, too."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(SIZE, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(dropout(images.flatten(1)))  # type: ignore[no-any-return]


class DrawsWhenJudged(nn.Module):
    """Draws only while it is evaluated, as where what it says is a mean over drawn answers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(SIZE, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(dropout(images.flatten(1), training=not self.training))  # type: ignore[no-any-return]


class Named(NamedTuple):
    """As torchvision's Inception answers."""

    logits: Tensor
    aux_logits: Tensor | None


class TwoNamed(NamedTuple):
    """As torchvision's GoogLeNet answers."""

    logits: Tensor
    aux_logits2: Tensor | None
    aux_logits1: Tensor | None


class ModelOutput(OrderedDict[str, Any]):
    """As Hugging Face's models answer: a mapping whose values are attributes, too."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        vars(self).update(fields)


@dataclasses.dataclass
class Told:
    """Attributes alone."""

    logits: Tensor
    aux_head: Tensor


ANSWERS: dict[str, Any] = {
    "named": Named,
    "two-named": lambda main, aux: TwoNamed(main, aux, aux / 2),
    "model-output": lambda main, aux: ModelOutput(loss=None, logits=main, hidden=aux[:, :1]),
    "dict": lambda main, aux: {"out": main, "aux": aux},
    "dataclass": Told,
    "tuple": lambda main, aux: (main, aux),
    "list": lambda main, aux: [main, aux, aux / 2],
}
"""How a model answers while it trains; evaluated, it answers with its logits."""

N_AUXILIARY = {
    "named": 1,
    "two-named": 2,
    "model-output": 0,
    "dict": 1,
    "dataclass": 1,
    "tuple": 1,
    "list": 2,
}


class WithAuxiliary(nn.Module):
    """Two linear maps of the pixels; the second is an auxiliary head."""

    def __init__(self, num_classes: int, answer: str) -> None:
        super().__init__()
        self.answer = ANSWERS[answer]
        self.aux_fc = nn.Linear(SIZE, num_classes)
        self.fc = nn.Linear(SIZE, num_classes)

    def forward(self, images: Tensor) -> Any:
        pixels = images.flatten(1)
        if not self.training:
            return self.fc(pixels)
        return self.answer(self.fc(pixels), self.aux_fc(pixels))


def with_auxiliary(num_classes: int, *, answer: str) -> nn.Module:
    return WithAuxiliary(num_classes, answer)


class Body(nn.Module):
    """Two stages with normalisation, and a head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer2 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.layer2(torch.relu(self.bn1(self.conv1(images))))
        return self.fc(hidden.mean((2, 3)))  # type: ignore[no-any-return]


def colours(num_classes: int, *, channels: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.LazyLinear(num_classes))

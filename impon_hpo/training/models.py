"""The deep model: ResNet18 for small images, torchvision's own, or the user's."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torchvision.models import resnet18 as torchvision_resnet18
from torchvision.models.resnet import BasicBlock
from torchvision.ops import StochasticDepth

from impon_hpo.errors import ConfigError, DataError
from impon_hpo.lookup import find, suggestion
from impon_hpo.training.answers import read_answer
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.own_randomness import OwnRandomness
from impon_hpo.training.pretrained import (
    load_weights_file,
    replace_heads,
    torchvision_weights,
    without_pretrained,
)
from impon_hpo.training.splits import Splits

CLASSES = "num_classes"
"""What torchvision and timm call the number of classes."""

RANDOM = (_DropoutNd, nn.RReLU, StochasticDepth)
"""Layers that draw at random while they train, at a rate that may be 0 at first."""


class EverySecondPixel(nn.Module):
    """Takes images (k, C, H, W) to (k, C, ⌈H / 2⌉, ⌈W / 2⌉)."""

    def forward(self, images: Tensor) -> Tensor:
        """Return every second pixel of every second line."""
        return images[:, :, ::2, ::2]


class SmallImageResNet18(nn.Module):
    """ResNet18 of torchvision's blocks with a 3 × 3 stem of stride 1 and no max pooling.

    Source: He et al. (2016), with the stem that small images need. With 64 channels in the first
    stage, 3 input channels and 10 classes it has 11,173,962 parameters.

    Args:
        n_classes: Number of outputs.
        width: Channels of the first stage; the later ones have 2, 4 and 8 times as many.
        in_channels: Channels of the images.
    """

    def __init__(self, n_classes: int, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        blocks: list[nn.Module] = []
        entering = width
        for stage in range(4):
            leaving = width * 2**stage
            stride = 1 if stage == 0 else 2
            shortcut = None
            if stride != 1:
                shortcut = nn.Sequential(
                    EverySecondPixel(),  # no strided convolution: `takes_channels_last`
                    nn.Conv2d(entering, leaving, 1, bias=False),
                    nn.BatchNorm2d(leaving),
                )
            blocks += [BasicBlock(entering, leaving, stride, shortcut)]
            blocks += [BasicBlock(leaving, leaving)]
            entering = leaving
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(entering, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as torchvision's ResNet does
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (k, n_classes) of images (k, C, H, W)."""
        hidden = self.relu(self.bn1(self.conv1(images)))
        return self.fc(self.blocks(hidden).mean((2, 3)))  # type: ignore[no-any-return]


def imagenet_resnet18(n_classes: int, width: int, in_channels: int) -> nn.Module:
    """Return torchvision's resnet18, untrained; it ignores `width`."""
    model = torchvision_resnet18(num_classes=n_classes)
    if in_channels != 3:
        model.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    return model  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "resnet18": SmallImageResNet18,
    "resnet18-imagenet": imagenet_resnet18,
}


def build_model(config: TrainingConfig, splits: Splits, seed: int) -> nn.Module:
    """Build the model of `config` on the CPU, with initial weights drawn from `seed`.

    A user's function, "module:function", is called with `num_classes` by keyword, where it takes
    that, else with the number of classes in the first place, and with `model_options`. Where these
    ask for pretrained weights of torchvision's, the model is built with their classes, and its head
    is replaced.

    Raises:
        ConfigError: The name is unknown, or the user's function fails, does not take the options,
            does not return an `nn.Module`, or returns one that does not turn two images into logits
            (2, n_classes); or `weights_file` does not fit it.
        CheckpointError: `weights_file` cannot be read.
        DataError: Weights cannot be fetched.
    """
    # Layers draw from the global generators, and the user's may from numpy's and `random`'s.
    with OwnRandomness(seed, torch.device("cpu"), python=True):
        model = _build(config, splits.n_classes, splits.train.images.shape[3])
        model.eval()
        _check_output(config.model, model, splits)
        if config.weights_file is not None:
            load_weights_file(config, model, splits.n_classes)
    return model


def build_without_weights(config: TrainingConfig, n_classes: int, in_channels: int) -> nn.Module:
    """Build the model of `config` on the CPU for weights that are loaded into it afterwards.

    No pretrained weights that the settings ask for are fetched or read. Random state is left as it
    was.

    Raises:
        ConfigError: The name is unknown, or the user's function fails.
        DataError: What it fetches cannot be had.
    """
    options = without_pretrained(config)
    with OwnRandomness(0, torch.device("cpu"), python=True):
        return _build(config.model_copy(update={"model_options": options}), n_classes, in_channels)


def _build(config: TrainingConfig, n_classes: int, in_channels: int) -> nn.Module:
    if config.model in MODELS:
        return MODELS[config.model](n_classes, config.width, in_channels)
    return _user_model(config, n_classes)


class Draws(NamedTuple):
    """What the layers of a model draw from while it trains or is judged.

    Args:
        at_random: Whether they draw at random.
        in_python: Whether they draw from numpy's or `random`'s generator.
    """

    at_random: bool
    in_python: bool


def check_training(config: TrainingConfig, model: nn.Module, splits: Splits) -> Draws:
    """Check the logits of two images in training mode, and return what layers draw from, in either
    mode: a model may draw while it is judged, too.

    Running statistics, mode and random state are left as they were.

    Raises:
        ConfigError: The model fails in training mode, or does not answer with logits.
    """
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    was_training = model.training
    with OwnRandomness(0, torch.device("cpu"), python=True):
        before, before_in_python = torch.get_rng_state(), _python_states()
        try:
            for training in (False, True):
                _check_output(config.model, model.train(training), splits)
        finally:
            model.train(was_training)
            for module, name, buffer, value in kept:
                module._buffers[name] = buffer.copy_(value)
        in_python = _python_states() != before_in_python
        moved = in_python or not torch.equal(before, torch.get_rng_state())
    may_draw = any(isinstance(module, RANDOM) for module in model.modules())
    return Draws(moved or may_draw, in_python)


def _python_states() -> tuple[Any, ...]:
    numpy: Any = np.random.get_state()
    return random.getstate(), numpy[1].tobytes(), numpy[2:]


def _user_model(config: TrainingConfig, n_classes: int) -> nn.Module:
    name, options = config.model, config.model_options
    build: Any = find(MODELS, name, "model")
    weights = torchvision_weights(build, options)
    given, keywords = _arguments(name, build, options, n_classes)
    if weights is not None:
        given, keywords = [], dict(options)
    listed = [*map(repr, given), *(f"{key}={value!r}" for key, value in keywords.items())]
    try:
        model = build(*given, **keywords)
    except OSError as error:  # urllib's and requests' errors are of this kind, too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"What model '{name}' begins with cannot be fetched or read ({reason}): fetch it where "
            "there is a network, or name a file of weights with weights_file."
        ) from error
    except Exception as error:
        raise ConfigError(
            f"Model '{name}' must be a function (num_classes) -> nn.Module, but calling it with "
            f"{', '.join(listed)} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"Model '{name}' must return a torch.nn.Module, but returned {type(model).__name__}."
        )
    if weights is not None:
        replace_heads(config, model, len(weights.meta["categories"]), n_classes)
    return model


def _arguments(
    name: str, build: Any, options: dict[str, Any], n_classes: int
) -> tuple[list[Any], dict[str, Any]]:
    """Return what a user's function is called with, in places and by keyword."""
    if CLASSES in options:
        raise ConfigError(
            f"model_options: {CLASSES} comes from the data, which have {n_classes} classes."
        )
    try:
        parameters = inspect.signature(build).parameters
    except (TypeError, ValueError):  # not a function, or one that does not tell
        return [n_classes], options
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for option in options:
        if option not in parameters and not takes_any:
            raise ConfigError(
                f"Unknown key 'model_options.{option}'.{suggestion(option, parameters)} "
                f"'{name}' takes: {', '.join(parameters)}."
            )
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    left = [
        key
        for key, one in parameters.items()
        if one.kind in places and one.default is one.empty and key not in options
    ]
    if CLASSES in parameters or (takes_any and not left):
        return [], {CLASSES: n_classes} | options
    return [n_classes], options


def _check_output(name: str, model: nn.Module, splits: Splits) -> None:
    images = splits.normalise(splits.train.images[:2]).cpu()
    mode = " in training mode" if model.training else ""
    try:
        with torch.no_grad():
            answer = model(images)
    except Exception as error:
        raise ConfigError(
            f"Model '{name}' fails{mode} on images of shape {tuple(images.shape)}: {error}"
        ) from error
    expected = (len(images), splits.n_classes)
    logits, _ = read_answer(answer)
    if logits is None or tuple(logits.shape) != expected:
        got = type(answer).__name__ if logits is None else tuple(logits.shape)
        raise ConfigError(
            f"Model '{name}' must return logits {expected}{mode}, but returned {got}."
        )


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image (C, H, W) through `model`.

    Neither the model's mode nor its running statistics change.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads Triton

    parameter = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    training = model.training
    model.eval()
    own = OwnRandomness(0, image.device, python=True)  # the user's may draw
    with own, torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    return int(counter.get_total_flops())

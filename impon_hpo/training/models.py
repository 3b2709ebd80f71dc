"""The deep model: ResNet18 for small images, torchvision's own, or the user's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import resnet18 as torchvision_resnet18
from torchvision.models.resnet import BasicBlock

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.own_randomness import OwnRandomness
from impon_hpo.training.splits import Splits


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

    A user's function, "module:function", is called with the number of classes.

    Raises:
        ConfigError: The name is unknown, or the user's function fails, does not return an
            `nn.Module`, or returns one that does not turn two images into logits (2, n_classes).
    """
    in_channels = splits.train.images.shape[3]
    with OwnRandomness(seed, torch.device("cpu")):  # layers draw from the global generator
        if config.model in MODELS:
            model = MODELS[config.model](splits.n_classes, config.width, in_channels)
        else:
            model = _user_model(config.model, splits.n_classes)
        _check_output(config.model, model, splits)
    return model


def _user_model(name: str, n_classes: int) -> nn.Module:
    build = find(MODELS, name, "model")
    try:
        model = build(n_classes)  # type: ignore[call-arg]
    except Exception as error:
        raise ConfigError(
            f"Model '{name}' must be a function (num_classes) -> nn.Module, but calling it with "
            f"{n_classes} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"Model '{name}' must return a torch.nn.Module, but returned {type(model).__name__}."
        )
    return model


def _check_output(name: str, model: nn.Module, splits: Splits) -> None:
    images = splits.normalise(splits.train.images[:2]).cpu()
    model.eval()
    try:
        with torch.no_grad():
            output = model(images)
    except Exception as error:
        raise ConfigError(
            f"Model '{name}' fails on images of shape {tuple(images.shape)}: {error}"
        ) from error
    expected = (len(images), splits.n_classes)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"Model '{name}' must return logits {expected}, but returned {got}.")


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image (C, H, W) through `model`.

    Neither the model's mode nor its running statistics change.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads Triton

    parameter = next(model.parameters())
    image = torch.zeros(1, *image_shape, device=parameter.device, dtype=parameter.dtype)
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    return int(counter.get_total_flops())

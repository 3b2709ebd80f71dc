"""Random transforms that are called for each image: torchvision's, and functions of the user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import load_object
from impon_hpo.training.augment_setting import BEFORE_STEP, options_of
from impon_hpo.training.own_randomness import OwnRandomness

Transform = Callable[[Tensor], Tensor]

TORCHVISION: dict[str, type[v2.Transform]] = {
    "resized-crop": v2.RandomResizedCrop,
    "trivial": v2.TrivialAugmentWide,
    "rand": v2.RandAugment,
    "erase": v2.RandomErasing,
}

COLOURED = ("trivial", "rand")
"""They change colours, which only images of 1 or 3 channels have."""

SMALLEST_CROP = 4
"""Pixels of the side of the smallest square that resized-crop may cut out."""


class ImageTransforms:
    """Calls random transforms for each image of a batch, one after the other.

    A function of the user's, "module:function", is called with one image (C, H, W) uint8, as
    torchvision's transforms are, and returns another. It may draw from the global generators of
    torch, numpy and `random`: while it runs, they go on from a state of the run's own. A generator
    that it keeps itself is no part of a checkpoint.

    Args:
        names: Any of resized-crop, trivial, rand, erase and "module:function", in their order;
            other names are passed over.
        options: The setting `augment_options`.
        image: One of the images (H, W, C) uint8, on their device, for a first try.
        seed: Where random numbers begin, 0 … 2³² - 1.

    Raises:
        ConfigError: A function cannot be imported or does not return such an image, or a transform
            does not fit the images.

    Example:
        >>> import torch
        >>> from impon_hpo.training.image_transforms import ImageTransforms
        >>> images = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).reshape(2, 8, 8, 3)
        >>> flip = "torchvision.transforms.v2.functional:vertical_flip"
        >>> transforms = ImageTransforms([flip], {}, images[0], seed=0)
        >>> torch.equal(transforms(images), images.flip(1))
        True
    """

    def __init__(
        self, names: Sequence[str], options: Mapping[str, Any], image: Tensor, seed: int
    ) -> None:
        height, width, channels = image.shape
        self._transforms: dict[str, Transform] = {}
        for name in names:
            if ":" in name:
                self._transforms[name] = _users_function(name)
            elif name in BEFORE_STEP:
                given = options_of(name, options)
                if name in COLOURED and channels not in (1, 3):
                    raise ConfigError(
                        f"augment: '{name}' needs images with 1 or 3 channels, but these have "
                        f"{channels}. crop, flip, resized-crop, erase, mixup and cutmix work with "
                        "any."
                    )
                if name == "resized-crop":
                    _check_crop(given, height, width)
                    given["size"] = (height, width)
                self._transforms[name] = TORCHVISION[name](**given)
        self.randomness: OwnRandomness | None = None
        if self._transforms:
            users = any(":" in name for name in self._transforms)
            with OwnRandomness(seed, image.device, python=users):
                self._called(image.clone())
            self.randomness = OwnRandomness(seed, image.device, python=users)

    def __repr__(self) -> str:
        return f"ImageTransforms({list(self._transforms)})"

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (k, H, W, C) uint8, each with new random changes.

        Raises:
            ConfigError: A function of the user's fails, or does not return such an image.
        """
        if self.randomness is None:
            return images
        with self.randomness:
            return torch.stack([self._called(image) for image in images])

    def _called(self, image: Tensor) -> Tensor:
        planes = image.permute(2, 0, 1)
        for name, transform in self._transforms.items():
            try:
                changed = transform(planes)
            except Exception as error:  # anything can go wrong inside the user's
                raise ConfigError(
                    f"augment: '{name}' was called with an image (C, H, W) = "
                    f"{tuple(planes.shape)} uint8 and raised {type(error).__name__}: {error}"
                ) from error
            if (
                not isinstance(changed, Tensor)
                or changed.shape != planes.shape
                or changed.dtype != torch.uint8
                or changed.device != planes.device
            ):
                raise ConfigError(
                    f"augment: '{name}' must return an image like the one that it is given, "
                    f"{_described(planes)}, but it returned {_described(changed)}."
                )
            planes = changed
        return planes.permute(1, 2, 0)


def _users_function(name: str) -> Transform:
    function = load_object(name)
    if not callable(function):
        raise ConfigError(
            f"augment: '{name}' must be a function (image) -> image, but it is "
            f"{type(function).__name__}."
        )
    return function  # type: ignore[no-any-return]


def _check_crop(options: Mapping[str, Any], height: int, width: int) -> None:
    least = (options["scale"][0] * height * width) ** 0.5
    if least < SMALLEST_CROP:
        fits = math.ceil(100 * SMALLEST_CROP**2 / (height * width)) / 100
        raise ConfigError(
            f"augment: resized-crop would cut down to {least:.1f} × {least:.1f} pixels out of "
            f"{height} × {width}, and {SMALLEST_CROP} × {SMALLEST_CROP} is the least. Set "
            f"augment_options.resized-crop.scale = [{fits}, 1.0], or use crop."
        )


def _described(image: Any) -> str:
    if not isinstance(image, Tensor):
        return type(image).__name__
    kind = str(image.dtype).removeprefix("torch.")
    return f"a tensor {tuple(image.shape)} {kind} on {image.device.type}"

"""Random crops and flips per image, a whole batch at once, on the device."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def crop_padding(side: int, names: Collection[str]) -> int:
    """Return how many pixels are added to each side of an image before it is cropped.

    Args:
        side: Height of the images in pixels.
        names: What is done to them; without "crop" there is no padding.
    """
    return max(1, side // 8) if "crop" in names else 0


class Augmentation:
    """Crops and flips images at random.

    A crop pads an image with zeros, by an eighth of its side, and cuts out a part of the original
    size. A flip mirrors it, left to right, with probability 1/2. Each row of a batch is drawn on
    its own.

    Args:
        height: Height of the images in pixels.
        width: Their width.
        names: "crop", "flip" or both; other names are passed over.
        seed: Seed of the crops and flips.
        device: Where the images are.
    """

    def __init__(
        self, height: int, width: int, names: Collection[str], seed: int, device: torch.device
    ) -> None:
        self.height, self.width = height, width
        self.padding = crop_padding(self.height, names)
        self.flips = "flip" in names
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self._down = torch.arange(self.height, device=device)
        self._across = torch.arange(self.width, device=device)

    def __repr__(self) -> str:
        return f"Augmentation(padding={self.padding}, flips={self.flips})"

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (k, H, W, C) uint8 with new crops and flips."""
        if not self.flips and not self.padding:
            return images
        count, down, across = len(images), self._down, self._across
        if self.flips:
            flip = self._random(2, count).bool()
            across = torch.where(flip[:, None], across.flip(0), across)
        if self.padding:
            offsets = self._random(2 * self.padding + 1, 2 * count)
            down = down + offsets[:count, None]
            across = across + offsets[count:, None]
            sides = (0, 0, self.padding, self.padding, self.padding, self.padding)
            images = torch.nn.functional.pad(images, sides)
        down = down.expand(count, self.height)
        across = across.expand(count, self.width)
        rows = torch.arange(count, device=images.device)
        return images[rows[:, None, None], down[:, :, None], across[:, None, :]]

    def _random(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.generator, device=self.generator.device)

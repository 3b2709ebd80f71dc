"""Augmentation: a random crop and flip per image, a whole batch at once, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.training.image_data import Augment


def crop_padding(side: int, augment: Augment) -> int:
    """Return how many pixels are added to each side of an image before it is cropped.

    Args:
        side: Height of the images in pixels.
        augment: What is done to them; without a crop there is no padding.
    """
    return max(1, side // 8) if "crop" in augment else 0


class Augmentation:
    """Crops and flips images at random.

    A crop pads an image with zeros, by an eighth of its side, and cuts out a part of the original
    size. A flip mirrors it, left to right, with probability 1/2. Each row of a batch is drawn on
    its own.

    Args:
        images: (n, H, W, C) uint8, the training images. They are kept padded, on their device.
        augment: "none", "crop", "flip" or "crop+flip".
        seed: Seed of the crops and flips.
    """

    def __init__(self, images: Tensor, augment: Augment, seed: int) -> None:
        self.height, self.width = images.shape[1:3]
        self.padding = crop_padding(self.height, augment)
        self.flips = "flip" in augment
        self.generator = torch.Generator(device=images.device).manual_seed(seed)
        sides = (0, 0, self.padding, self.padding, self.padding, self.padding)
        self._padded = torch.nn.functional.pad(images, sides) if self.padding else images
        self._down = torch.arange(self.height, device=images.device)
        self._across = torch.arange(self.width, device=images.device)

    def __repr__(self) -> str:
        return f"Augmentation(padding={self.padding}, flips={self.flips})"

    def read(self, rows: Tensor) -> Tensor:
        """Return the images (k, H, W, C) uint8 of `rows` (k,) int64, with new crops and flips."""
        count, down, across = len(rows), self._down, self._across
        if self.flips:
            flip = self._random(2, count).bool()
            across = torch.where(flip[:, None], across.flip(0), across)
        if self.padding:
            offsets = self._random(2 * self.padding + 1, 2 * count)
            down = down + offsets[:count, None]
            across = across + offsets[count:, None]
        if not self.flips and not self.padding:
            return self._padded[rows]
        down = down.expand(count, self.height)
        across = across.expand(count, self.width)
        return self._padded[rows[:, None, None], down[:, :, None], across[:, None, :]]

    def _random(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.generator, device=self.generator.device)

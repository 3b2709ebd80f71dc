"""The splits of one run: training, validation and test rows, as uint8 on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from impon_hpo.errors import DataError
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.corrections import corrected
from impon_hpo.training.data import Augment, ImageData, load_dataset

TEST_SHARE = 0.1
"""Share of the data that becomes the test split if the data set has none."""


@dataclass(frozen=True)
class Split:
    """Rows of one kind.

    Args:
        images: (n, H, W, C) uint8, on the device of the run.
        labels: (n,) int64, on the same device.
        names: (n,) what people call the images, where that is known; see `ImageData`.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shape, device = tuple(self.images.shape), self.images.device
        return f"Split({len(self)} rows, images={shape}, device='{device}')"

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (k, H, W, C) uint8 and labels (k,) of `rows` (k,) int64."""
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels of at most `size` rows at a time."""
        return zip(self.images.split(size), self.labels.split(size), strict=True)


@dataclass(frozen=True)
class Splits:
    """What one run trains on, is judged on, and is tested on after everything is decided.

    Args:
        train: The rows to train on.
        validation: Rows set aside from the training data, by seed, classes in proportion.
        test: Rows that training, pruner and choice never see.
        class_names: Names of the classes.
        augment: Which random changes keep the class of an image, for `augment = "auto"`.
        reference: What earlier training learnt about the rows of `train`, or None.

    Example:
        >>> import torch
        >>> from impon_hpo import Splits, TrainingConfig, load_splits
        >>> splits = load_splits(TrainingConfig(dataset="digits"), torch.device("cpu"))
        >>> isinstance(splits, Splits), splits.n_classes
        (True, 10)
        >>> splits.train
        Split(1455 rows, images=(1455, 8, 8, 1), device='cpu')
        >>> splits.normalise(splits.train.images[:2]).shape
        torch.Size([2, 1, 8, 8])
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    augment: Augment
    reference: Reference | None = None

    def __repr__(self) -> str:
        return (
            f"Splits(train={len(self.train)}, validation={len(self.validation)}, "
            f"test={len(self.test)} rows of {tuple(self.train.images.shape[1:])}, "
            f"classes={self.n_classes}, augment={self.augment!r}, "
            f"reference={'none' if self.reference is None else 'given'})"
        )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Number and shape of the training rows and the hashes of their images and labels."""
        return {
            "rows": len(self.train),
            "classes": self.n_classes,
            "image": "×".join(map(str, self.train.images.shape[1:])),
            "images": _hash(self.train.images),
            "labels": _hash(self.train.labels),
        }

    @cached_property
    def mean(self) -> Tensor:
        """Mean (C,) float32 of the training images, in units of 0 … 255."""
        return self._moments[0]

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation (C,) float32 of the training images, at least 1 of 255."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        total = torch.zeros(2, self.train.images.shape[3], dtype=torch.float64)
        for chunk in self.train.images.split(4096):
            pixels = chunk.to(torch.float32)
            per_image = torch.stack([pixels.mean((1, 2)), pixels.square().mean((1, 2))])
            total += per_image.double().sum(1).cpu()
        mean, square = total / len(self.train)
        std = (square - mean.square()).clamp_min(0).sqrt().clamp_min(1)
        device = self.train.images.device
        return mean.float().to(device), std.float().to(device)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images (k, H, W, C) uint8 into (k, C, H, W) float32, channels last in memory."""
        mean, std = self._pixel_moments(images.shape[1:])
        return images.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)

    def _pixel_moments(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        # Expanded to a whole image: long runs of memory are faster than 3 values at a time.
        if shape not in self._spread:
            self._spread[shape] = (
                self.mean.expand(shape).contiguous(),
                self.std.expand(shape).contiguous(),
            )
        return self._spread[shape]

    @cached_property
    def _spread(self) -> dict[torch.Size, tuple[Tensor, Tensor]]:
        return {}

    def rows(self) -> Rows:
        """Return the training rows as a batch sampler reads them."""
        return Rows(
            self.train.images, self.train.labels, self.n_classes, self.normalise, self.reference
        )


def load_splits(config: TrainingConfig, device: torch.device) -> Splits:
    """Load the data set of `config`, split it by seed and put it on `device`.

    Args:
        config: The settings of the run.
        device: Where training will run.

    Raises:
        ConfigError: The data set's name is unknown.
        DataError: The data are missing, broken, or too few for these settings.

    Example:
        >>> import torch
        >>> from impon_hpo import TrainingConfig, load_splits
        >>> config = TrainingConfig(dataset="digits", subset=1000, validation_size=200)
        >>> load_splits(config, torch.device("cpu"))
        Splits(train=1000, validation=200, test=180 rows of (8, 8, 1), classes=10, augment='crop', \
reference=none)
    """
    return split_data(load_dataset(config), config, device)


def split_data(data: ImageData, config: TrainingConfig, device: torch.device) -> Splits:
    """Split `data` by `config.seed`: test (if it has none of its own), validation, training.

    What is corrected by hand (`relabel`, `exclude`) is corrected afterwards, so that all other rows
    stay where they are.
    """
    order = _stratified_order(data.labels, config.seed)
    labels, kept = corrected(data, config)

    def part(rows: NDArray[np.int64]) -> Split:
        # Sorted, the rows keep the data set's order, which reads faster and favours no class.
        rows = np.sort(rows[kept[rows]])
        names = tuple(data.names[row] for row in rows.tolist())
        return _split(data.images[rows], labels[rows], config, device, names)

    if data.test_images is None or data.test_labels is None:
        n_test = _at_least_one_each(round(TEST_SHARE * len(order)), data.n_classes)
        test, order = part(order[:n_test]), order[n_test:]
    else:
        test = _split(data.test_images, data.test_labels, config, device)
    n_validation = (
        config.validation_size
        if isinstance(config.validation_size, int)
        else _at_least_one_each(round(config.validation_size * len(order)), data.n_classes)
    )
    n_left = len(order) - n_validation
    n_train = n_left if config.subset is None else config.subset
    validation_rows, train_rows = np.split(order, [n_validation])
    train_rows = train_rows[:n_train]
    if not config.batch_size <= n_train <= n_left:
        raise DataError(
            f"Data set '{config.dataset}' has {len(order)} rows for training and validation. "
            f"validation_size = {config.validation_size} leaves {max(0, n_left)} to train on. That "
            f"must be at least subset ({config.subset}) and batch_size ({config.batch_size}), and "
            "subset must be at least batch_size."
        )
    if kept[train_rows].sum() < config.batch_size or not kept[validation_rows].any():
        raise DataError(
            f"relabel and exclude leave {kept[train_rows].sum()} rows to train on, which must be "
            f"at least batch_size ({config.batch_size}), and {kept[validation_rows].sum()} rows of "
            "validation, which must be at least 1. Leave out fewer."
        )
    return Splits(
        train=part(train_rows),
        validation=part(validation_rows),
        test=test,
        class_names=data.class_names,
        augment=data.augment,
    )


def _stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return all rows in a random order in which every part has the classes in proportion."""
    shuffled = np.random.default_rng([seed, 0]).permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Stable, so that classes with equal positions come in shuffled order.
    return shuffled[np.argsort(position, kind="stable")]


def _at_least_one_each(n_rows: int, n_classes: int) -> int:
    return max(n_rows, n_classes)


def _split(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    config: TrainingConfig,
    device: torch.device,
    names: tuple[str, ...] = (),
) -> Split:
    pixels = torch.from_numpy(np.array(images))  # a copy: a memory-mapped cache is read-only
    if config.image_size is not None and pixels.shape[1:3] != (config.image_size,) * 2:
        pixels = torch.cat([resize(chunk, config.image_size) for chunk in pixels.split(4096)])
    targets = torch.from_numpy(np.array(labels, dtype=np.int64))
    return Split(pixels.to(device), targets.to(device), names)


def _hash(values: Tensor) -> str:
    digest = hashlib.sha256()
    for chunk in values.split(8192):
        digest.update(chunk.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images (k, H, W, C) uint8 to `size` × `size` pixels."""
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    # "area" averages when it shrinks. It would only repeat pixels when it enlarges.
    shrinks = min(planes.shape[2:]) >= size
    resized = interpolate(planes, (size, size), mode="area" if shrinks else "bicubic")
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

"""The splits of one run: training, validation and test rows, as uint8 on the device."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impon_hpo.errors import DataError, describing
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.corrections import corrected
from impon_hpo.training.data import load_dataset
from impon_hpo.training.drawn_rows import DrawnRows, draw_rows
from impon_hpo.training.groups import groups_of
from impon_hpo.training.image_data import Augment, ImageData, warn_of_missing
from impon_hpo.training.images import Images, placed
from impon_hpo.training.near_duplicates import say_twins
from impon_hpo.training.pixel_store import stored

log = logging.getLogger("impon_hpo")

PASS_ROWS, PASS_PIXELS = 1000, 2**22
"""Rows that are judged at a time, and their pixels: images of 224 a side go by 83."""

LARGEST_WHOLE = 64
"""Side in pixels up to which samplers may read whole images; above, they get thumbnails too."""

_LOOKED_THROUGH = set[tuple[object, ...]]()
"""Data sets of which this process has said how many near-duplicates there are across splits."""


@dataclass(frozen=True)
class Split:
    """Rows of one kind.

    Args:
        images: (n, H, W, C) uint8, read to the device of the run a few rows at a time.
        labels: (n,) int64, on that device.
        names: (n,) what people call the images, where that is known; see `ImageData`.
        groups: (n,) int64, on that device, the numbers of groups that must not be parted, or None.
    """

    images: Images
    labels: Tensor
    names: tuple[str, ...] = ()
    groups: Tensor | None = None

    def __repr__(self) -> str:
        shape, device = tuple(self.images.shape), self.images.device
        return f"Split({len(self)} rows, images={shape}, device='{device}')"

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (k, H, W, C) uint8 and labels (k,) of `rows` (k,) int64."""
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, as many rows at a time as a pass without gradients takes."""
        height, width = self.images.shape[1:3]
        size = max(1, min(PASS_ROWS, PASS_PIXELS // (height * width)))
        return zip(self.images.split(size), self.labels.split(size), strict=True)


class Normalise:
    """Turns images (k, H, W, C) uint8 into (k, C, H, W) float32, channels last in memory.

    Args:
        mean: (C,) float32 to subtract, in units of 0 … 255, on the device of the images.
        std: (C,) float32 to divide by, likewise.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.moments = mean, std
        self._spread: dict[torch.Size, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the images normalised."""
        shape = images.shape[1:]
        if shape not in self._spread:  # long runs of memory are faster than 3 values at a time
            mean, std = (moment.expand(shape).contiguous() for moment in self.moments)
            self._spread[shape] = mean, std
        mean, std = self._spread[shape]
        return images.to(torch.float32).sub_(mean).div_(std).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Splits:
    """What one run trains on, is judged on, and is tested on after everything is decided.

    Args:
        train: The rows to train on.
        validation: Rows that the data set has for it, or rows set aside from the training data, by
            seed, classes in proportion.
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
        """Number and shape of the training rows and the hashes of their images and labels, and of
        their groups where they have some."""
        groups = self.train.groups
        return {
            "rows": len(self.train),
            "classes": self.n_classes,
            "image": "×".join(map(str, self.train.images.shape[1:])),
            "images": self.train.images.fingerprint,
            "labels": _hash(self.train.labels),
        } | ({} if groups is None else {"groups": _hash(groups)})

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
        mean, square = self.train.images.moments
        std = (square - mean.square()).clamp_min(0).sqrt().clamp_min(1)
        device = self.train.images.device
        return mean.float().to(device), std.float().to(device)

    @cached_property
    def normalise(self) -> Normalise:
        """Turns images (k, H, W, C) uint8 into (k, C, H, W) float32, channels last in memory."""
        return Normalise(self.mean, self.std)

    def rows(self) -> Rows:
        """Return the training rows as a batch sampler reads them."""
        images = self.train.images
        large = max(images.shape[1:3]) > LARGEST_WHOLE
        return Rows(
            images,
            self.train.labels,
            self.n_classes,
            self.normalise,
            self.reference,
            images.thumbnails if large else None,
        )


def load_splits(config: TrainingConfig, device: torch.device) -> Splits:
    """Load the data set of `config`, split it by seed and put it on `device`.

    Once per process and data set, the log says how many validation and test images look like one
    that is trained on.

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
    splits = split_data(load_dataset(config), config, device)
    data = config.dataset, config.data_dir, config.image_size, config.groups
    if data not in _LOOKED_THROUGH:  # not for each seed and each trial of a process
        _LOOKED_THROUGH.add(data)
        trained, *judged = (
            (part.images, part.names) for part in (splits.train, splits.validation, splits.test)
        )
        with describing(
            "Near-duplicates could not be counted", "The data are loaded all the same."
        ):
            say_twins(trained, dict(zip(("validation", "test"), judged, strict=True)))
    return splits


def by_size(load: Callable[[TrainingConfig], Splits]) -> Callable[[TrainingConfig], Splits]:
    """Return `load` for settings that differ in `image_size` at most: each size is loaded once,
    however many threads ask for it."""
    loaded: dict[int | None, Splits] = {}
    one_at_a_time = threading.Lock()

    def splits_of(config: TrainingConfig) -> Splits:
        with one_at_a_time:
            if config.image_size not in loaded:
                loaded[config.image_size] = load(config)
            return loaded[config.image_size]

    return splits_of


def split_data(data: ImageData, config: TrainingConfig, device: torch.device) -> Splits:
    """Split `data` by `config.seed`: test and validation (if it has none of its own), training.

    Each class is in every split that is drawn. What is corrected by hand (`relabel`, `exclude`) is
    corrected afterwards, so that all other rows stay where they are. Images of one of the `groups`
    are in one split, except that `subset` leaves out rows and not groups.

    Raises:
        ConfigError: The corrections or groups do not fit the data.
        DataError: There are too few rows for these settings.
    """
    labels, kept = corrected(data, config)
    groups = groups_of(data, config)
    drawn = draw_rows(data, config, groups)
    _check_corrected(labels, kept, drawn, data, config)
    whole = Images(stored(data.images, config.image_size), device=device)
    names = data.names + data.validation_names

    def part(rows: NDArray[np.int64], images: Images = whole, before: int = 0) -> Split:
        # Sorted, the rows keep the data set's order, which reads faster and favours no class.
        rows = np.sort(rows[kept[rows]])
        return Split(
            images.of(torch.from_numpy(rows - before)),
            _numbers(labels[rows], device),
            tuple(names[row] for row in rows.tolist()),
            None if groups is None else _numbers(groups[rows], device),
        )

    if data.validation_images is None:
        validation = part(drawn.validation)
    else:
        own = Images(stored(data.validation_images, config.image_size), device=device)
        validation = part(drawn.validation, own, len(data.labels))
        log.info(
            "validation: %d images that the data set has for it; validation_size does not apply",
            len(own),
        )
    if data.test_images is None or data.test_labels is None:
        test = part(drawn.test)
    else:
        own = Images(stored(data.test_images, config.image_size), device=device)
        test = Split(own, _numbers(data.test_labels, device), data.test_names)
    parts = [part(drawn.train), validation, test]
    images = placed([split.images for split in parts], device)
    train, validation, test = (
        replace(split, images=there) for split, there in zip(parts, images, strict=True)
    )
    return Splits(
        train=train,
        validation=validation,
        test=test,
        class_names=data.class_names,
        augment=data.augment,
    )


def _check_corrected(
    labels: NDArray[np.int64],
    kept: NDArray[np.bool_],
    drawn: DrawnRows,
    data: ImageData,
    config: TrainingConfig,
) -> None:
    """Raise `DataError` where the corrections leave too few rows, or a class without any."""
    if config.relabel is None and config.exclude is None:
        return
    train, validation = (rows[kept[rows]] for rows in (drawn.train, drawn.validation))
    if len(train) < config.batch_size or len(validation) == 0:
        raise DataError(
            f"relabel and exclude leave {len(train)} rows to train on, which must be at least "
            f"batch_size ({config.batch_size}), and {len(validation)} rows of validation, which "
            "must be at least 1. Leave out fewer."
        )
    n_rows = np.bincount(labels[train], minlength=data.n_classes)
    if not n_rows.all():
        name = data.class_names[int(n_rows.argmin())]
        raise DataError(
            f"relabel and exclude leave {len(train)} rows to train on, but none of class "
            f"'{name}'. Leave out fewer, or train on more."
        )
    warn_of_missing("validation", labels[validation], data.class_names)


def _numbers(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(numbers, dtype=np.int64)).to(device)


def _hash(numbers: Tensor) -> str:
    return hashlib.sha256(numbers.cpu().numpy().tobytes()).hexdigest()[:16]

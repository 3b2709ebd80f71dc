"""Image data as it comes from disk: images, labels and class names, before any split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from impon_hpo.errors import DataError

Augment = Literal["none", "crop", "flip", "crop+flip"]


@dataclass(frozen=True)
class ImageData:
    """Images and labels of a data set, before validation is set aside.

    A data set function of your own, `load(*, root, download, image_size) -> ImageData`, returns
    one; `root` is a `pathlib.Path`, `image_size` an int or None (resizing to it is done later for
    every data set, so most functions need not read it).

    Args:
        images: (n, H, W, C) uint8 training images.
        labels: (n,) integer class indices, 0 … number of classes - 1.
        test_images: (m, H, W, C) uint8, or None: a test split is then taken off by seed.
        test_labels: (m,) integers, or None.
        class_names: Names of the classes, in the order of their indices; default "0", "1", …
        augment: What random change of an image keeps its class, for `augment = "auto"`.

    Raises:
        DataError: A shape, dtype or label does not fit, or a class has fewer than two images.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test_images: NDArray[np.uint8] | None = None
    test_labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    augment: Augment = "none"
    n_classes: int = field(init=False)

    def __post_init__(self) -> None:
        _check(self.images, self.labels, "training")
        if (self.test_images is None) != (self.test_labels is None):
            raise DataError("Test images and test labels must be given together, or neither.")
        names = self.class_names or tuple(str(i) for i in range(int(self.labels.max()) + 1))
        counts = np.bincount(self.labels, minlength=len(names))
        if len(counts) > len(names):
            raise DataError(f"Labels go up to {len(counts) - 1}, but there are {len(names)} names.")
        if len(names) < 2:
            raise DataError(f"There must be at least 2 classes, but there is only {list(names)}.")
        if self.test_images is not None and self.test_labels is not None:
            _check(self.test_images, self.test_labels, "test")
            if self.test_labels.max() >= len(names):
                raise DataError("The test split has a class that the training data do not have.")
            if self.test_images.shape[3] != self.images.shape[3]:
                raise DataError("Test images have another number of channels than training images.")
        # Training and validation need an image each, and the test split where it is taken off.
        least = 2 if self.test_images is not None else 3
        for name, count in zip(names, counts, strict=True):
            if count < least:
                parts = "training and validation" if least == 2 else "training, validation and test"
                raise DataError(
                    f"Each class needs at least {least} images for {parts}, but class '{name}' "
                    f"has {count}. Add images or remove the class."
                )
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "n_classes", len(names))


def _check(images: NDArray[np.uint8], labels: NDArray[np.int64], what: str) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        given = getattr(images, "dtype", type(images).__name__), getattr(images, "shape", "")
        raise DataError(f"{what} images must be uint8 (n, H, W, C), but got {given}.")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 1:
        given = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", "")
        raise DataError(f"{what} labels must be integers (n,), but got {given}.")
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(
            f"{what} images and labels must be equally many and at least one, but got "
            f"{len(images)} and {len(labels)}."
        )
    if labels.min() < 0:
        raise DataError(f"{what} labels must not be negative, but got {labels.min()}.")

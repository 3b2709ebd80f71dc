"""Image data as a function of the user's or a data set gives it, before any split."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from impon_hpo.errors import DataError
from impon_hpo.files import readable_name

log = logging.getLogger("impon_hpo")

Augment = Literal["none", "crop", "flip", "crop+flip"]


@dataclass(frozen=True)
class ImageData:
    r"""Images and labels of a data set, before any split.

    To use your own data set, write a function `load(*, root, download, image_size) -> ImageData`
    and name it: `dataset = "my_module:load"`. `root` is a `pathlib.Path`. Every data set is resized
    to `image_size` later on, so most functions can ignore it.

    Names are kept as text of one line: line breaks, control characters and bytes that are not UTF-8
    are written as Python writes them, such as `\n`.

    Args:
        images: (n, H, W, C) uint8 training images.
        labels: (n,) integer class indices, 0 … number of classes - 1.
        test_images: (m, H, W, C) uint8. None: a test split is taken from the training images.
        test_labels: (m,) integers, or None.
        class_names: Names of the classes, text or integers, in the order of their indices; default
            "0", "1", …
        augment: Which random changes keep the class of an image, for `augment = "auto"`.
        names: (n,) what people call the training images, such as their files; each once; default
            their row numbers "0", "1", …
        validation_images: (k, H, W, C) uint8. None: rows of validation are set aside from the
            training images, as `validation_size` says. Else that setting does not apply.
        validation_labels: (k,) integers, or None.
        validation_names: (k,) what people call the validation images, each once and none like a
            training image; default "validation/0", "validation/1", …
        test_names: (m,) what people call the test images, each once and none like another; default
            "test/0", "test/1", …

    Raises:
        DataError: A shape, dtype, label or name does not fit, or a class has too few images.

    Example:
        >>> import numpy as np
        >>> from impon_hpo import ImageData
        >>> images = np.zeros((60, 8, 8, 3), dtype=np.uint8)
        >>> ImageData(images, labels=np.arange(60) % 2, class_names=("cat", "dog"))
        ImageData(images=uint8 (60, 8, 8, 3), classes=2, test_images=None, augment='none')
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test_images: NDArray[np.uint8] | None = None
    test_labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    augment: Augment = "none"
    names: tuple[str, ...] = ()
    validation_images: NDArray[np.uint8] | None = None
    validation_labels: NDArray[np.int64] | None = None
    validation_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()
    n_classes: int = field(init=False)

    def __repr__(self) -> str:
        validation = (
            ""
            if self.validation_images is None
            else f"validation_images={_describe(self.validation_images)}, "
        )
        test = None if self.test_images is None else _describe(self.test_images)
        return (
            f"ImageData(images={_describe(self.images)}, classes={self.n_classes}, {validation}"
            f"test_images={test}, augment={self.augment!r})"
        )

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        _check(self.images, self.labels, "training")
        class_names = _names(self.class_names, "Names of classes") or _indices(self.labels)
        _check_class_names(class_names)
        keep("class_names", class_names)
        keep("n_classes", len(class_names))
        keep("labels", _known(self.labels, class_names, "training"))
        keep("names", _names(self.names, "Names of images") or _numbers(self.labels))
        for kind in ("validation", "test"):
            images, labels = getattr(self, f"{kind}_images"), getattr(self, f"{kind}_labels")
            if (images is None) != (labels is None):
                raise DataError(
                    f"{kind.capitalize()} images and {kind} labels must be given together, or "
                    "neither."
                )
            if images is not None:
                _check(images, labels, kind)
                keep(f"{kind}_labels", _known(labels, class_names, kind))
                if images.shape[3] != self.images.shape[3]:
                    raise DataError(
                        f"{kind.capitalize()} images and training images must have the same number "
                        f"of channels, but have {images.shape[3]} and {self.images.shape[3]}."
                    )
        for kind in ("validation", "test"):
            labels, names = getattr(self, f"{kind}_labels"), getattr(self, f"{kind}_names")
            if labels is not None:
                given = _names(names, "Names of images")
                keep(f"{kind}_names", given or _numbers(labels, f"{kind}/"))
            elif names:
                raise DataError(f"There are names of {kind} images, but no such images.")
        self._check_names()
        self._check_counts()

    def _check_names(self) -> None:
        every = self.names + self.validation_names + self.test_names
        labels = self.labels, self.validation_labels, self.test_labels
        n_rows = [0 if part is None else len(part) for part in labels]
        n_names = [len(part) for part in (self.names, self.validation_names, self.test_names)]
        if n_rows != n_names or len(set(every)) < len(every):
            raise DataError(
                "Each image must have a name of its own, or none any, "
                f"but there are {len(set(every))} different names for {sum(n_rows)} images."
            )

    def _check_counts(self) -> None:
        """Raise `DataError` where a class is too small to be in every split that is drawn."""
        drawn = ["validation"] * (self.validation_images is None)
        drawn += ["test"] * (self.test_images is None)
        parts = ", ".join(["training", *drawn[:-1]]) + "".join(
            f" and {last}" for last in drawn[-1:]
        )
        least = 1 + len(drawn)
        counts = np.bincount(self.labels, minlength=self.n_classes)
        for name, count in zip(self.class_names, counts.tolist(), strict=True):
            if count < least:
                raise DataError(
                    f"Each class needs at least {least} images for {parts}, but class '{name}' "
                    f"has {count}. Add images or remove the class."
                )
        for kind in ("validation", "test"):
            labels = getattr(self, f"{kind}_labels")
            if labels is not None:
                warn_of_missing(kind, labels, self.class_names)


def warn_of_missing(kind: str, labels: NDArray[np.int64], class_names: tuple[str, ...]) -> None:
    """Say in the log which classes are not among the labels (n,) of a split, if any."""
    n_rows = np.bincount(labels, minlength=len(class_names))
    lacking = [f"'{class_names[at]}'" for at in np.flatnonzero(n_rows == 0)]
    if lacking:
        log.warning(
            "The %d images of %s have none of %d of %d classes, which it does not judge: %s%s",
            len(labels),
            kind,
            len(lacking),
            len(class_names),
            ", ".join(lacking[:5]),
            " …" if len(lacking) > 5 else "",
        )


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def _check(images: NDArray[np.uint8], labels: NDArray[np.int64], what: str) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        kind = getattr(images, "dtype", type(images).__name__), getattr(images, "shape", "")
        raise DataError(f"{what} images must be uint8 (n, H, W, C), but got {kind}.")
    _, height, width, channels = images.shape
    # Square, or of more channels than any camera has: no picture is that low.
    if height in (1, 3, 4) and (channels > 16 or channels == width > 4):
        raise DataError(
            f"{what} images must be (n, H, W, C), channels last, but {images.shape} looks like "
            "(n, C, H, W). Give images.transpose(0, 2, 3, 1)."
        )
    if 0 in images.shape[1:]:
        raise DataError(f"{what} images must have pixels, but their shape is {images.shape}.")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 1:
        kind = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", "")
        raise DataError(f"{what} labels must be integers (n,), but got {kind}.")
    if len(images) == 0 or len(images) != len(labels):
        raise DataError(
            f"There must be as many {what} images as labels, and at least one, but got "
            f"{len(images)} and {len(labels)}."
        )
    if labels.min() < 0:
        raise DataError(f"{what} labels must not be negative, but got {labels.min()}.")


def _indices(labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names "0", "1", … of the classes of labels that have no gap."""
    different = np.unique(labels)
    if len(different) <= int(different[-1]):
        raise DataError(
            f"Without class_names, labels must be 0, 1, … without a gap, but {len(different)} "
            f"different ones go up to {different[-1]}. Give np.unique(labels, "
            "return_inverse=True)[1] as labels, and what it returns first as class_names."
        )
    return tuple(map(str, range(len(different))))


def _check_class_names(names: tuple[str, ...]) -> None:
    if len(names) < 2:
        raise DataError(f"There must be at least 2 classes, but there is only {list(names)}.")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not all(map(str.strip, names)):
        raise DataError(
            f"Each class must have a name of its own, but {twice[0]!r} is the name of several."
            if twice
            else f"Each class must have a name, but one of them is empty: {list(names)[:10]}."
        )


def _names(given: Any, what: str) -> tuple[str, ...]:
    """Return names as text that can be printed on one line and stored."""
    names = () if given is None else tuple(given)
    wrong = [name for name in names if not isinstance(name, str | int | np.integer | Path)]
    if isinstance(given, str | bytes) or wrong:
        got = wrong[0] if wrong else given
        raise DataError(
            f"{what} must be a tuple of text or integers, but got {got!r} ({type(got).__name__})."
        )
    return tuple(readable_name(str(name)) for name in names)


def _numbers(labels: NDArray[np.int64], before: str = "") -> tuple[str, ...]:
    return tuple(f"{before}{row}" for row in range(len(labels)))


def _known(labels: NDArray[np.int64], names: tuple[str, ...], what: str) -> NDArray[np.int64]:
    """Return labels as int64."""
    if labels.max() >= len(names):
        raise DataError(
            f"Labels of {what} go up to {labels.max()}, but there are {len(names)} classes, "
            f"whose labels are 0 … {len(names) - 1}."
        )
    return labels.astype(np.int64, copy=False)

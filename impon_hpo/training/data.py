"""Data sets by name, and image data as it comes from disk, before any split."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from impon_hpo.environment import cache_folder
from impon_hpo.errors import DataError, ImponHpoError
from impon_hpo.lookup import find
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_folder import class_folders, read_classes

Augment = Literal["none", "crop", "flip", "crop+flip"]


@dataclass(frozen=True)
class ImageData:
    """Images and labels of a data set, before any split.

    To use your own data set, write a function `load(*, root, download, image_size) -> ImageData`
    and name it: `dataset = "my_module:load"`. `root` is a `pathlib.Path`. Every data set is resized
    to `image_size` later on, so most functions can ignore it.

    Args:
        images: (n, H, W, C) uint8 training images.
        labels: (n,) integer class indices, 0 … number of classes - 1.
        test_images: (m, H, W, C) uint8. None: a test split is taken from the training images.
        test_labels: (m,) integers, or None.
        class_names: Names of the classes, in the order of their indices; default "0", "1", …
        augment: Which random changes keep the class of an image, for `augment = "auto"`.
        names: (n,) what people call the training images, such as their files; each once; default
            their row numbers "0", "1", …

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
    n_classes: int = field(init=False)

    def __repr__(self) -> str:
        test = None if self.test_images is None else _describe(self.test_images)
        return (
            f"ImageData(images={_describe(self.images)}, classes={self.n_classes}, "
            f"test_images={test}, augment={self.augment!r})"
        )

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
                raise DataError(
                    "Test images and training images must have the same number of channels."
                )
        # Training and validation need an image each, and so does a test split taken from them.
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
        images = self.names or tuple(map(str, range(len(self.labels))))
        if not len(self.labels) == len(images) == len(set(images)):
            raise DataError(
                "Each training image must have a name of its own, or none any, but there are "
                f"{len(set(images))} different names for {len(self.labels)} images."
            )
        object.__setattr__(self, "names", images)


def _describe(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"


def _check(images: NDArray[np.uint8], labels: NDArray[np.int64], what: str) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        kind = getattr(images, "dtype", type(images).__name__), getattr(images, "shape", "")
        raise DataError(f"{what} images must be uint8 (n, H, W, C), but got {kind}.")
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


DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def data_root(data_dir: str | None) -> Path:
    """Return the folder of data sets: `data_dir`, $IMPON_HPO_DATA, or in the cache folder."""
    if data_dir is not None:
        return Path(data_dir).expanduser()
    if "IMPON_HPO_DATA" in os.environ:
        return Path(os.environ["IMPON_HPO_DATA"]).expanduser()
    return cache_folder() / "data"


def load_digits(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """scikit-learn's digits: 1,797 real 8 × 8 images (UCI optical recognition), no download."""
    from sklearn.datasets import load_digits as load_sklearn_digits

    bunch = load_sklearn_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return ImageData(images, bunch.target.astype(np.int64), augment="crop")


def load_cifar10(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """CIFAR-10, 60,000 images of 32 × 32, as torchvision stores it."""
    from torchvision.datasets import CIFAR10

    return _train_and_test(CIFAR10, root, download, "CIFAR-10", "crop+flip")


def load_cifar100(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """CIFAR-100, 60,000 images of 32 × 32, as torchvision stores it."""
    from torchvision.datasets import CIFAR100

    return _train_and_test(CIFAR100, root, download, "CIFAR-100", "crop+flip")


def load_svhn(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """SVHN, cropped digits, 73,257 + 26,032 images of 32 × 32, as torchvision stores it."""
    from torchvision.datasets import SVHN

    parts = []
    for split in ("train", "test"):
        part = _open(SVHN, root, download, "SVHN", split=split)
        parts += [np.ascontiguousarray(part.data.transpose(0, 2, 3, 1)), part.labels]
    images, labels, test_images, test_labels = parts
    return ImageData(
        images,
        labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        augment="crop",
    )


def load_mnist(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """MNIST, 70,000 images of 28 × 28 with one channel, as torchvision stores it."""
    from torchvision.datasets import MNIST

    return _train_and_test(MNIST, root, download, "MNIST", "crop")


def load_fashion_mnist(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """Fashion-MNIST, as torchvision or Debian's package dataset-fashion-mnist stores it."""
    for folder in (root, DEBIAN_FASHION_MNIST):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return ImageData(
                _read_idx(folder / "train-images-idx3-ubyte.gz")[..., None],
                _read_idx(folder / "train-labels-idx1-ubyte.gz").astype(np.int64),
                _read_idx(folder / "t10k-images-idx3-ubyte.gz")[..., None],
                _read_idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64),
                augment="crop+flip",
            )
    from torchvision.datasets import FashionMNIST

    return _train_and_test(FashionMNIST, root, download, "Fashion-MNIST", "crop+flip")


def load_folder(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """A folder of images in the layout of `torchvision.datasets.ImageFolder`.

    Training images lie in `root/train/<class>/…`, test images, if there are any, in
    `root/test/<class>/…`. Without `train/`, the class folders lie in `root` itself.

    Raises:
        DataError: The folder is missing or empty, an image cannot be read, sizes differ, or `test/`
            has a class that `train/` does not have.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder '{root}'. Give it with --set data_dir=…")
    train_root = root / "train" if (root / "train").is_dir() else root
    names = class_folders(train_root)
    images, labels, files = read_classes(train_root, names, image_size)
    if not (root / "test").is_dir() or train_root == root:
        return ImageData(images, labels, class_names=names, augment="crop+flip", names=files)
    unknown = set(class_folders(root / "test")) - set(names)
    if unknown:
        raise DataError(
            f"'{root / 'test'}' has classes that '{train_root}' does not have: {sorted(unknown)}."
        )
    test_images, test_labels, _ = read_classes(root / "test", names, image_size)
    return ImageData(images, labels, test_images, test_labels, names, "crop+flip", files)


DATASETS: dict[str, Callable[..., ImageData]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "svhn": load_svhn,
    "fashion-mnist": load_fashion_mnist,
    "mnist": load_mnist,
    "folder": load_folder,
}


def load_dataset(config: TrainingConfig) -> ImageData:
    """Load the data set that `config` names.

    Raises:
        ConfigError: The name is unknown or does not import.
        DataError: The data are missing (and `download` is false), broken or too small, or the
            user's function does not return `ImageData`.
    """
    load = find(DATASETS, config.dataset, "data set")
    try:
        data = load(
            root=data_root(config.data_dir), download=config.download, image_size=config.image_size
        )
    except Exception as error:
        if isinstance(error, ImponHpoError) or config.dataset in DATASETS:
            raise
        raise DataError(  # the user's function: anything can go wrong inside it
            f"Data set '{config.dataset}' must be a function (*, root, download, image_size) -> "
            f"impon_hpo.ImageData, but calling it raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(data, ImageData):
        raise DataError(
            f"Data set '{config.dataset}' must return impon_hpo.ImageData, but returned "
            f"{type(data).__name__}."
        )
    return data


def _open(cls: Callable[..., Any], root: Path, download: bool, name: str, **which: Any) -> Any:
    try:
        return cls(str(root), download=download, **which)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        if download:
            raise DataError(f"{name} could not be downloaded to '{root}': {error}") from error
        raise DataError(
            f"{name} is not in '{root}', or is broken there. Give its folder with "
            "--set data_dir=…, or download it with --set download=true."
        ) from error


def _train_and_test(
    cls: Callable[..., Any], root: Path, download: bool, name: str, augment: Any
) -> ImageData:
    train = _open(cls, root, download, name, train=True)
    test = _open(cls, root, download, name, train=False)
    return ImageData(
        _with_channels(np.asarray(train.data)),
        np.asarray(train.targets, dtype=np.int64),
        _with_channels(np.asarray(test.data)),
        np.asarray(test.targets, dtype=np.int64),
        class_names=tuple(train.classes),
        augment=augment,
    )


def _with_channels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images if images.ndim == 4 else images[..., None]


def _read_idx(path: Path) -> NDArray[np.uint8]:
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError) as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error
    n_dims = content[3] if content[:3] == b"\x00\x00\x08" else 0
    header = 4 + 4 * n_dims
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    if n_dims == 0 or len(content) != header + int(np.prod(shape)):
        raise DataError(f"'{path}' is not a complete IDX file of unsigned bytes.")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape).copy()

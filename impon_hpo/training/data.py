"""Data sets by name."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impon_hpo.environment import cache_folder
from impon_hpo.errors import DataError, DataMissingError, ImponHpoError
from impon_hpo.files import expanded
from impon_hpo.lookup import find
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.image_folder import read_pictures
from impon_hpo.training.picture_files import find_pictures

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def data_root(data_dir: str | None) -> Path:
    """Return the folder of data sets: `data_dir`, $IMPON_HPO_DATA, or in the cache folder."""
    if data_dir is not None:
        return expanded(data_dir)
    if "IMPON_HPO_DATA" in os.environ:
        return expanded(os.environ["IMPON_HPO_DATA"])
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


def load_folder(
    *, root: Path, download: bool, image_size: int | None, skip_broken: bool = False
) -> ImageData:
    """A folder of images in the layout of `torchvision.datasets.ImageFolder`.

    Training images lie in `root/train/<class>/…`, and, if there are any, those of validation in
    `root/val/<class>/…` and of the test in `root/test/<class>/…`. Without `train/`, the class
    folders lie in `root` itself. `find_pictures` says which other names will do. All that Pillow
    can open is read, and `decode` says how it becomes RGB.

    Args:
        root: The folder.
        download: Has no meaning here.
        image_size: Side in pixels; None: as they are, all of the same size.
        skip_broken: Whether pictures that cannot be read are left out, with a warning.

    Raises:
        DataError: The folder is missing or empty, an image cannot be read, sizes differ, or `val/`
            or `test/` has a class that `train/` does not have.
    """
    if not os.path.isdir(root):  # noqa: PTH112  # never raises
        raise DataMissingError(f"There is no folder '{root}'. Give it with --set data_dir=…")
    found = find_pictures(root)
    images, labels, names = read_pictures(found.training, image_size, skip_broken=skip_broken)
    others: dict[str, Any] = {}
    if found.validation is not None:
        part = read_pictures(found.validation, image_size, skip_broken=skip_broken)
        others["validation_images"], others["validation_labels"], files = part
        others["validation_names"] = tuple(f"{found.validation.place}/{file}" for file in files)
    if found.test is not None:
        part = read_pictures(found.test, image_size, skip_broken=skip_broken)
        others["test_images"], others["test_labels"], files = part
        others["test_names"] = tuple(f"{found.test.place}/{file}" for file in files)
    return ImageData(
        images, labels, class_names=found.class_names, augment="crop+flip", names=names, **others
    )


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
    if load is load_folder:
        load = partial(load_folder, skip_broken=config.skip_broken)
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
        raise DataMissingError(
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

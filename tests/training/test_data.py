"""The table of data sets: genuine tiny files through torchvision's loaders, and what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from sklearn.datasets import load_digits as load_sklearn_digits
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, SVHN

from impon_hpo.errors import ConfigError, DataError
from impon_hpo.training import data as data_module
from impon_hpo.training.data import DATASETS, data_root, load_dataset
from impon_hpo.training.image_data import ImageData
from tests.settings import training_config

TORCHVISION = ("cifar10", "cifar100", "svhn", "mnist", "fashion-mnist")
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture(autouse=True)
def _no_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "DEBIAN_FASHION_MNIST", tmp_path / "debian")


def load(name: str, root: Path, **settings: Any) -> ImageData:
    return load_dataset(training_config({"dataset": name, "data_dir": str(root)} | settings))


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(
    cls: type[CIFAR10], root: Path, key: str, n_classes: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[NDArray[np.uint8], list[int]]:
    """Write the files of CIFAR with 2 training images and 1 test image a class."""
    folder = root / cls.base_folder
    folder.mkdir(parents=True)
    n_files = len(cls.train_list)
    rows = noise(3 * n_classes, 3072)
    labels = [at % n_classes for at in range(3 * n_classes)]
    train, test = slice(0, 2 * n_classes), slice(2 * n_classes, None)
    parts = np.array_split(np.arange(2 * n_classes), n_files)
    contents = {
        name: {"data": rows[train][part], key: [labels[i] for i in part]}
        for (name, _), part in zip(cls.train_list, parts, strict=True)
    }
    contents[cls.test_list[0][0]] = {"data": rows[test], key: labels[test]}
    contents[cls.meta["filename"]] = {cls.meta["key"]: [f"class {i}" for i in range(n_classes)]}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    # The loader is torchvision's own; only the checksums are those of our files.
    for which in ("train_list", "test_list"):
        files = [[name, md5(folder / name)] for name, _ in getattr(cls, which)]
        monkeypatch.setattr(cls, which, files)
    meta = cls.meta | {"md5": md5(folder / cls.meta["filename"])}
    monkeypatch.setattr(cls, "meta", meta)
    return rows, labels


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return a file in the format of MNIST: magic number, big-endian sides, bytes."""
    sides = b"".join(side.to_bytes(4, "big") for side in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sides + array.tobytes()


def mnist_arrays() -> list[NDArray[np.uint8]]:
    """Return training images and labels, test images and labels, of 10 classes."""
    labels = np.arange(20, dtype=np.uint8) % 10
    return [noise(20, 28, 28), labels, noise(10, 28, 28, seed=1), labels[:10]]


def write_mnist(folder: Path, *, zipped: bool = False) -> list[NDArray[np.uint8]]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = mnist_arrays()
    for name, array in zip(IDX_FILES, arrays, strict=True):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


def assert_is_mnist(data: ImageData, arrays: list[NDArray[np.uint8]]) -> None:
    assert data.test_images is not None
    assert data.test_labels is not None
    assert np.array_equal(data.images, arrays[0][..., None])
    assert np.array_equal(data.labels, arrays[1])
    assert np.array_equal(data.test_images, arrays[2][..., None])
    assert np.array_equal(data.test_labels, arrays[3])
    assert data.labels.dtype == data.test_labels.dtype == np.int64
    assert data.n_classes == 10


@pytest.mark.parametrize(
    ("name", "cls", "key", "n_classes"),
    [("cifar10", CIFAR10, "labels", 10), ("cifar100", CIFAR100, "fine_labels", 100)],
)
def test_cifar_is_read_as_torchvision_stores_it(
    name: str,
    cls: type[CIFAR10],
    key: str,
    n_classes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, labels = write_cifar(cls, tmp_path, key, n_classes, monkeypatch)
    data = load(name, tmp_path)
    assert data.images.shape == (2 * n_classes, 32, 32, 3)
    assert data.test_images is not None
    assert data.test_labels is not None
    # A file holds each image as a red, a green and a blue plane.
    assert data.images[1, 5, 7].tolist() == [rows[1, c * 1024 + 5 * 32 + 7] for c in range(3)]
    last = rows[-1].reshape(3, 32, 32)
    assert np.array_equal(data.test_images[-1], np.stack(list(last), axis=-1))
    assert data.labels.tolist() == labels[: 2 * n_classes]
    assert data.test_labels.tolist() == labels[2 * n_classes :]
    assert data.class_names == tuple(f"class {i}" for i in range(n_classes))
    assert data.augment == "crop+flip"


def test_cifar_with_a_wrong_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(CIFAR10, tmp_path, "labels", 10, monkeypatch)
    with (tmp_path / CIFAR10.base_folder / "data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"CIFAR-10 is not in .* or is broken there"):
        load("cifar10", tmp_path)


def test_svhn_is_read_as_torchvision_stores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, list[str]] = {}
    pixels = {"train": noise(32, 32, 3, 20), "test": noise(32, 32, 3, 10, seed=1)}
    for split, images in pixels.items():
        path = tmp_path / f"{split}_32x32.mat"
        digits = np.arange(1, images.shape[3] + 1, dtype=np.uint8) % 10
        # SVHN writes 10 for the digit 0.
        y = np.where(digits == 0, 10, digits)[:, None].astype(np.uint8)
        scipy.io.savemat(path, {"X": images, "y": y})
        files[split] = ["", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", files)
    data = load("svhn", tmp_path)
    assert data.test_images is not None
    assert data.test_labels is not None
    assert data.images.shape == (20, 32, 32, 3)
    assert np.array_equal(data.images[3], pixels["train"][..., 3])
    assert np.array_equal(data.test_images[9], pixels["test"][..., 9])
    assert data.labels.tolist() == [*range(1, 10), 0, *range(1, 10), 0]
    assert data.test_labels.tolist() == [*range(1, 10), 0]
    assert data.images.flags.c_contiguous
    assert data.augment == "crop"  # a mirrored 2 is no 2


def test_mnist_is_read_as_torchvision_stores_it(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / "MNIST" / "raw")
    data = load("mnist", tmp_path)
    assert_is_mnist(data, arrays)
    assert data.augment == "crop"
    assert data.class_names == tuple(MNIST.classes)


def test_fashion_mnist_is_read_as_torchvision_stores_it(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / "FashionMNIST" / "raw")
    data = load("fashion-mnist", tmp_path)
    assert_is_mnist(data, arrays)
    assert data.augment == "crop+flip"
    assert "Sneaker" in data.class_names


@pytest.mark.parametrize("folder", ["data", "debian"])
def test_fashion_mnist_is_read_from_zipped_files_or_debians(folder: str, tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / folder, zipped=True)
    data = load("fashion-mnist", tmp_path / "data")
    assert_is_mnist(data, arrays)
    assert data.augment == "crop+flip"


@pytest.mark.parametrize(
    "broken",
    [
        b"no gzip at all",
        gzip.compress(idx(noise(20, 28, 28)))[:-300],
        gzip.compress(idx(noise(20, 28, 28))[:-1]),
        gzip.compress(idx(noise(20, 28, 28)) + b"x"),
        gzip.compress(b"\x00\x00\x0d\x03" + idx(noise(20, 28, 28))[4:]),
        gzip.compress(b""),
        gzip.compress(b"\x00\x00\x08\x00"),
    ],
    ids=["text", "cut zip", "too short", "too long", "floats", "empty", "no sides"],
)
def test_broken_idx_file_is_refused_by_name(broken: bytes, tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(broken)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz'"):
        load("fashion-mnist", tmp_path)


def test_missing_one_of_the_idx_files_is_refused_by_name(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz' cannot be read"):
        load("fashion-mnist", tmp_path)


@pytest.mark.parametrize("name", TORCHVISION)
def test_missing_data_set_says_where_it_was_looked_for_and_what_to_do(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        load(name, tmp_path / "nowhere")
    assert f"is not in '{tmp_path / 'nowhere'}'" in str(caught.value)
    assert "--set download=true" in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("name", "fetch"),
    [
        ("cifar10", "cifar.download_and_extract_archive"),
        ("cifar100", "cifar.download_and_extract_archive"),
        ("svhn", "svhn.download_url"),
        ("mnist", "mnist.download_and_extract_archive"),
        ("fashion-mnist", "mnist.download_and_extract_archive"),
    ],
)
def test_failed_download_says_why(
    name: str, fetch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("the network is down")

    monkeypatch.setattr(f"torchvision.datasets.{fetch}", fail)
    with pytest.raises(DataError, match=r"(?s)could not be downloaded to .*the network is down"):
        load(name, tmp_path, download=True)


@pytest.mark.parametrize("name", TORCHVISION)
def test_nothing_is_downloaded_unasked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("a download was begun")

    for module in ("cifar.download_and_extract_archive", "svhn.download_url"):
        monkeypatch.setattr(f"torchvision.datasets.{module}", fail)
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    with pytest.raises(DataError):
        load(name, tmp_path)


def test_digits_are_scikit_learns_in_bytes(tmp_path: Path) -> None:
    data = load("digits", tmp_path)
    bunch = load_sklearn_digits()
    assert data.images.shape == (1797, 8, 8, 1)
    assert data.n_classes == 10
    assert data.test_images is None
    assert np.array_equal(data.labels, bunch.target)
    # 16 levels of ink are spread over 0 … 255.
    assert np.array_equal(np.unique(bunch.images), np.arange(17))
    for level, byte in ((0, 0), (1, 16), (8, 128), (15, 239), (16, 255)):
        assert set(data.images[..., 0][bunch.images == level]) == {byte}


def test_every_data_set_of_the_documentation_is_in_the_table() -> None:
    assert sorted(DATASETS) == sorted([*TORCHVISION, "digits", "folder"])
    described = training_config({}).__class__.model_fields["dataset"].description or ""
    assert all(name in described for name in DATASETS)


def test_unknown_data_set_gets_a_suggestion_and_the_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown data set 'cifar-10'\. Did you mean 'cifar10'"):
        load("cifar-10", tmp_path)


given_to_user: dict[str, Any] = {}


def users_data(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    given_to_user.update(root=root, download=download, image_size=image_size)
    return ImageData(noise(8, 6, 6, 3), np.arange(8) % 2)


def no_image_data(*, root: Path, download: bool, image_size: int | None) -> list[int]:
    return [1]


def test_function_of_the_users_is_called_with_root_download_and_size(tmp_path: Path) -> None:
    data = load(f"{__name__}:users_data", tmp_path, download=True, image_size=8)
    assert given_to_user == {"root": tmp_path, "download": True, "image_size": 8}
    assert np.array_equal(data.images, noise(8, 6, 6, 3))


def test_function_of_the_users_must_return_image_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no_image_data' must return .*ImageData, but .* list"):
        load(f"{__name__}:no_image_data", tmp_path)


def test_function_that_does_not_import_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'no_such_module_here:load' cannot be imported"):
        load("no_such_module_here:load", tmp_path)


@pytest.mark.parametrize(
    ("data_dir", "variable", "expected"),
    [
        ("/given", "/variable", lambda home: Path("/given")),
        ("~/given", None, lambda home: home / "given"),
        (None, "/variable", lambda home: Path("/variable")),
        (None, "~/variable", lambda home: home / "variable"),
        (None, None, lambda home: home / ".cache" / "impon-hpo" / "data"),
    ],
)
def test_data_lie_in_the_given_folder_the_variables_or_the_cache(
    data_dir: str | None,
    variable: str | None,
    expected: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    if variable is not None:
        monkeypatch.setenv("IMPON_HPO_DATA", variable)
    assert data_root(data_dir) == expected(tmp_path)


def test_cache_of_the_desktop_standard_is_heeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert data_root(None) == tmp_path / "elsewhere" / "impon-hpo" / "data"

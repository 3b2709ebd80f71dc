"""Data sets with wrong labels, for `dataset = "worlds:digits_20"`, and the true labels of each.

Training and validation labels are wrong in part, the same ones in every run. The hidden test split
is clean.
"""

from __future__ import annotations

import csv
import lzma
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from impon_hpo.errors import DataError, DataMissingError
from impon_hpo.lookup import load_object
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.data import data_root, load_digits, load_fashion_mnist, load_folder
from impon_hpo.training.image_data import ImageData
from impon_hpo.training.picture_files import picture_extensions
from impon_hpo.training.splits import split_data

SEED = 0
HIDDEN = 0.2
"""Share of a data set without a test split of its own that is hidden, classes in proportion."""

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """A data set, and the labels that training and validation rows have in it.

    Args:
        clean: Loads the data set with its true labels and its hidden test split.
        given: Returns the labels (n,) to train on, from the clean data and the folder of the data.

    Example:
        >>> from pathlib import Path
        >>> from worlds import digits_20
        >>> digits_20(root=Path("data"), download=False, image_size=None).images.shape
        (1437, 8, 8, 1)
    """

    clean: Callable[..., ImageData]
    given: Callable[[ImageData, Path], Labels]

    def __call__(self, *, root: Path, download: bool, image_size: int | None) -> ImageData:
        clean = self.clean(root=root, download=download, image_size=image_size)
        return replace(clean, labels=self.given(clean, root))


def truth(config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Return the true labels (n,) int64 of the training rows and of the validation rows, in the
    order that `load_splits` gives them.

    Args:
        config: The settings of a run; its `dataset` names a world.

    Raises:
        DataError: Its data set is not a world, or the data are missing.

    Example:
        >>> import torch
        >>> from impon_hpo import TrainingConfig, load_splits
        >>> from worlds import truth
        >>> config = TrainingConfig(dataset="worlds:digits_20", batch_size=32)
        >>> train, validation = truth(config)
        >>> wrong = train != load_splits(config, torch.device("cpu")).train.labels
        >>> len(wrong), int(wrong.sum())
        (1293, 250)
    """
    world = load_object(config.dataset) if ":" in config.dataset else None
    if not isinstance(world, World):
        raise DataError(
            f"dataset must name a world, as 'worlds:digits_20', not {config.dataset!r}."
        )
    root = data_root(config.data_dir)
    clean = world.clean(root=root, download=config.download, image_size=config.image_size)
    if clean.test_labels is None:
        raise DataError(f"World '{config.dataset}' has no hidden test split.")
    # Split as the images are, but with the true label as the only pixel.
    marked = ImageData(
        images=_pixels(clean.labels),
        labels=world.given(clean, root),
        test_images=_pixels(clean.test_labels),
        test_labels=clean.test_labels,
        class_names=clean.class_names,
    )
    splits = split_data(marked, config.model_copy(update={"image_size": None}), torch.device("cpu"))
    return splits.train.images[:].flatten().long(), splits.validation.images[:].flatten().long()


def _pixels(labels: Labels) -> NDArray[np.uint8]:
    return labels.astype(np.uint8).reshape(-1, 1, 1, 1)


def with_hidden_test(data: ImageData) -> ImageData:
    """Hide the same fifth of the rows each time as test split, classes in proportion."""
    rows, hidden = _visible_and_hidden(data.labels)
    return replace(
        data,
        images=np.asarray(data.images[rows]),
        labels=data.labels[rows],
        names=tuple(data.names[row] for row in rows),
        test_images=np.asarray(data.images[hidden]),
        test_labels=data.labels[hidden],
    )


def _visible_and_hidden(labels: Labels) -> tuple[Labels, Labels]:
    from sklearn.model_selection import train_test_split

    rows, hidden = train_test_split(
        np.arange(len(labels)), test_size=HIDDEN, stratify=labels, random_state=SEED
    )
    return np.sort(rows), np.sort(hidden)  # reads faster, and favours no class


def flipped(share: float) -> Callable[[ImageData, Path], Labels]:
    """Return what gives `share` of all rows another class, each other class equally likely.

    What is wrong at a low share is wrong in the same way at a higher one.
    """

    def given(clean: ImageData, root: Path) -> Labels:
        # Not default_rng(0), which draws the rows that a run with seed 0 validates with.
        random = np.random.default_rng([SEED, 1])
        n = len(clean.labels)
        rows = random.permutation(n)[: round(share * n)]
        ahead = random.integers(1, clean.n_classes, size=n)[rows]
        labels = clean.labels.copy()
        labels[rows] = (labels[rows] + ahead) % clean.n_classes
        return labels

    return given


def cifar10n(kind: str) -> Callable[[ImageData, Path], Labels]:
    """Return what gives the labels of CIFAR-10N, by people who disagree.

    Wei et al. (2022), "Learning with noisy labels revisited", CC BY-NC 4.0: not in this repository.
    They are read from the file that $CIFAR10N_LABELS names, or from cifar10n-labels.csv.xz or .csv
    in the folder of the data: a line a training image, by the names of its file and its classes.

    Args:
        kind: A column: "aggregate" (majority of three people), "random1" (one of them) or "worst"
            (a wrong label if any of them gave one).
    """

    def given(clean: ImageData, root: Path) -> Labels:
        path = _cifar10n_file(root)
        names = _read_column(path, kind)
        index = {name: label for label, name in enumerate(clean.class_names)}
        files = [
            (name, file)
            for name in clean.class_names
            for file in sorted(entry.name for entry in (_train_folder(root) / name).iterdir())
            if Path(file).suffix.lower() in picture_extensions()
        ]
        rows, _ = _visible_and_hidden(np.asarray([index[name] for name, _ in files]))
        keys = [f"train/{'/'.join(files[row])}" for row in rows]
        for key in keys:
            if names.get(key) not in index:
                raise DataError(
                    f"'{path}' must name a class of CIFAR-10 for each image, but has "
                    f"{names.get(key)!r} for '{key}'."
                )
        return np.asarray([index[names[key]] for key in keys], dtype=np.int64)

    return given


def _cifar10n_file(root: Path) -> Path:
    places = [root / "cifar10n-labels.csv.xz", root / "cifar10n-labels.csv"]
    if "CIFAR10N_LABELS" in os.environ:
        places = [Path(os.environ["CIFAR10N_LABELS"]).expanduser()]
    for path in places:
        if path.is_file():
            return path
    raise DataMissingError(
        f"There are no labels of CIFAR-10N: no file '{places[0]}'. Set CIFAR10N_LABELS to a CSV "
        "file with the columns file, aggregate, random1 and worst. They are not in this "
        "repository, since their licence is CC BY-NC 4.0: http://noisylabels.com."
    )


def _read_column(path: Path, column: str) -> dict[str, str]:
    """Return what a column of a CSV file says of each file."""
    try:
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
            return {line["file"]: line[column] for line in csv.DictReader(file)}
    except KeyError as error:
        raise DataError(f"'{path}' must have a column {error}.") from error
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error


def clean_digits(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """scikit-learn's digits: 1,437 rows to train and validate with, and 360 hidden ones."""
    return with_hidden_test(load_digits(root=root, download=download, image_size=image_size))


def clean_cifar10(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """CIFAR-10's training images as files: 40,000 rows to train and validate with, 10,000 hidden.

    Raises:
        DataError: `root/train`, or `root`, has not one folder for each class of CIFAR-10.
    """
    train = _train_folder(root)
    data = load_folder(root=train, download=download, image_size=image_size)
    if data.class_names != CIFAR10:
        raise DataError(
            f"'{train}' must have a folder for each class of CIFAR-10 ({', '.join(CIFAR10)}), but "
            f"has {', '.join(data.class_names)}. Give another with --set data_dir=…"
        )
    return with_hidden_test(data)


def _train_folder(root: Path) -> Path:
    return root / "train" if (root / "train").is_dir() else root


digits_0 = World(clean_digits, flipped(0.0))
digits_20 = World(clean_digits, flipped(0.2))
digits_40 = World(clean_digits, flipped(0.4))
fashion_mnist_0 = World(load_fashion_mnist, flipped(0.0))
fashion_mnist_20 = World(load_fashion_mnist, flipped(0.2))
fashion_mnist_40 = World(load_fashion_mnist, flipped(0.4))
cifar10_0 = World(clean_cifar10, flipped(0.0))
cifar10_20 = World(clean_cifar10, flipped(0.2))
cifar10_40 = World(clean_cifar10, flipped(0.4))
cifar10n_aggregate = World(clean_cifar10, cifar10n("aggregate"))
cifar10n_random1 = World(clean_cifar10, cifar10n("random1"))
cifar10n_worst = World(clean_cifar10, cifar10n("worst"))

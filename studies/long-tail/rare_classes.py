"""A data set with a long tail, for `dataset = "rare_classes:cifar10"`: few rows of most classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from impon_hpo.errors import DataError
from impon_hpo.training.data import load_folder
from impon_hpo.training.image_data import ImageData

SEED = 0
HIDDEN = 0.2
"""Share of each class that is hidden."""

RATIO = 50
"""Rows of the most frequent class for each of the rarest one."""

CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def cifar10(*, root: Path, download: bool, image_size: int | None) -> ImageData:
    """CIFAR-10's training images as files: 4,000 airplanes, and ever fewer rows of the later
    classes, down to 80 trucks, to train and validate with. 1,000 of each class are hidden.

    Class c of 10 keeps RATIO ** (-c / 9) of its visible rows, always the same ones.

    Raises:
        DataError: `root/train`, or `root`, has not one folder for each class of CIFAR-10.

    Example:
        >>> from pathlib import Path
        >>> from impon_hpo.errors import DataError
        >>> from rare_classes import cifar10
        >>> try:
        ...     cifar10(root=Path("nowhere"), download=False, image_size=16)
        ... except DataError as error:
        ...     print(error)
        There is no folder 'nowhere'. Give it with --set data_dir=…
    """
    train = root / "train" if (root / "train").is_dir() else root
    data = load_folder(root=train, download=download, image_size=image_size)
    if data.class_names != CIFAR10:
        raise DataError(
            f"'{train}' must have a folder for each class of CIFAR-10 ({', '.join(CIFAR10)}), but "
            f"has {', '.join(data.class_names)}. Give another with --set data_dir=…"
        )
    random = np.random.default_rng([SEED, 1])
    sizes = np.bincount(data.labels)
    n_hidden = round(HIDDEN * sizes.min())  # as many of each class
    kept, hidden = [], []
    for label, size in enumerate(sizes):
        rows = random.permutation(np.flatnonzero(data.labels == label))
        n_kept = round((size - n_hidden) * RATIO ** (-label / (len(sizes) - 1)))
        hidden.append(rows[:n_hidden])
        kept.append(rows[n_hidden : n_hidden + n_kept])
    train_rows, test_rows = np.sort(np.concatenate(kept)), np.sort(np.concatenate(hidden))
    return replace(
        data,
        images=np.asarray(data.images[train_rows]),
        labels=data.labels[train_rows],
        names=tuple(data.names[row] for row in train_rows),
        test_images=np.asarray(data.images[test_rows]),
        test_labels=data.labels[test_rows],
    )

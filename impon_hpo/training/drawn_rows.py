"""Which rows are drawn into a split: by seed, classes in proportion, each class at least once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from impon_hpo.errors import DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.groups import parted_by_group
from impon_hpo.training.image_data import ImageData

log = logging.getLogger("impon_hpo")

Rows = NDArray[np.int64]

TEST_SHARE = 0.1
"""Share of the data that becomes the test split if the data set has none."""


@dataclass(frozen=True)
class DrawnRows:
    """The rows of each split, in random order.

    Args:
        train: (n,) rows to train on.
        validation: (m,) rows of validation; if the data set has its own, all of those, which are
            counted on behind the training images.
        test: (k,) rows of the test; none if the data set has its own.
    """

    train: Rows
    validation: Rows
    test: Rows


def draw_rows(data: ImageData, config: TrainingConfig, groups: Rows | None) -> DrawnRows:
    """Draw the rows of each split by `config.seed`, classes in proportion, each class in each.

    Args:
        data: The data.
        config: The settings; `validation_size`, `subset` and `batch_size` say how many.
        groups: (n,) numbers of groups that stay in one split, or None. `subset` parts them.

    Raises:
        DataError: There are too few rows, or groups, for these settings.
    """
    left = stratified_order(data.labels, config.seed)
    test = np.zeros(0, np.int64)
    own = data.validation_labels
    if data.test_labels is None:
        n_test = max(round(TEST_SHARE * len(left)), data.n_classes)
        test, left = _drawn("test", left, n_test, 2 if own is None else 1, data, groups)
    n_validation = _n_validation(len(left), data, config)
    _check_sizes(len(left), n_validation, data, config)
    if own is None:
        validation, train = _drawn("validation", left, n_validation, 1, data, groups)
    else:
        validation, train = np.arange(len(own)) + len(data.labels), left
    if groups is not None:  # which came near what was asked for
        _check_sizes(len(left), len(left) - len(train), data, config)
    n_train = len(train) if config.subset is None else config.subset
    train, _ = parted(train, data.labels, n_train, left=0)
    return DrawnRows(train, validation, test)


def _drawn(
    what: str, rows: Rows, n: int, left: int, data: ImageData, groups: Rows | None
) -> tuple[Rows, Rows]:
    if groups is None:
        return parted(rows, data.labels, n, left=left)
    first, others = parted_by_group(
        rows, data.labels, groups, n, left=left, class_names=data.class_names
    )
    log.info(
        "%s: %d images of %d groups; %d were wanted",
        what,
        len(first),
        len(np.unique(groups[first])),
        n,
    )
    return first, others


def _n_validation(n_rows: int, data: ImageData, config: TrainingConfig) -> int:
    """Return how many of the rows that are left beside the test are set aside."""
    if data.validation_images is not None:
        return 0
    if isinstance(config.validation_size, int):
        return config.validation_size
    return max(round(config.validation_size * n_rows), data.n_classes)


def _check_sizes(n_rows: int, n_validation: int, data: ImageData, config: TrainingConfig) -> None:
    n_left = n_rows - n_validation
    n_train = n_left if config.subset is None else config.subset
    if not config.batch_size <= n_train <= n_left:
        own = data.validation_images is not None
        given = (
            f"{n_rows} rows for training."
            if own
            else f"{n_rows} rows for training and validation. "
            f"validation_size = {config.validation_size} leaves {max(0, n_left)} to train on."
        )
        subset = (
            "" if config.subset is None else f"subset ({config.subset}), which must be at least "
        )
        raise DataError(
            f"Data set '{config.dataset}' has {given} That must be at least {subset}"
            f"batch_size ({config.batch_size}). Lower them, or add images."
        )
    least = data.n_classes
    if n_train < least or (n_validation < least and data.validation_images is None):
        raise DataError(
            f"Each split needs a row of each of the {least} classes, but validation_size = "
            f"{config.validation_size} and subset = {config.subset} give {n_validation} rows of "
            f"validation and {n_train} to train on. Each must be at least {least}."
        )


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return all rows (n,) in a random order in which every part has the classes in proportion.

    Args:
        labels: (n,) class indices.
        seed: The same seed gives the same order.
    """
    shuffled = np.random.default_rng([seed, 0]).permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Stable, so that classes with equal positions come in shuffled order.
    return shuffled[np.argsort(position, kind="stable")]


def parted(
    order: NDArray[np.int64], labels: NDArray[np.int64], n_first: int, *, left: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part rows into the first `n_first` and the others, so that each class has at least 1 row
    among the first and `left` among the others.

    Where that holds anyway, nothing is changed; else as few rows as possible change places.

    Args:
        order: (m,) rows; each class has at least `left` + 1.
        labels: (n,) class indices of all rows.
        n_first: At least the number of classes.
        left: 0 or more; the others are at least that times the number of classes.

    Example:
        >>> import numpy as np
        >>> from impon_hpo.training.drawn_rows import parted
        >>> labels = np.array([0, 0, 0, 0, 1, 1])
        >>> parted(np.arange(6), labels, 2, left=1)
        (array([0, 4]), array([2, 3, 1, 5]))
    """
    first, others = order[:n_first].copy(), order[n_first:].copy()
    classes = np.unique(labels[order])

    def counts(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(labels[rows], minlength=int(classes[-1]) + 1)[classes]

    def change_places(
        wanted: int, taker: NDArray[np.int64], giver: NDArray[np.int64], least: int
    ) -> None:
        gained = np.flatnonzero(labels[giver] == wanted)[0]
        spare = classes[counts(taker) > least]
        lost = np.flatnonzero(np.isin(labels[taker], spare))[-1]
        taker[lost], giver[gained] = giver[gained], taker[lost]

    for wanted in classes[counts(first) < 1]:
        change_places(wanted, first, others, 1)
    while (counts(others) < left).any():
        change_places(classes[counts(others) < left][0], others, first, left)
    return first, others

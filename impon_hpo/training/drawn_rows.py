"""Which rows are drawn into a split: by seed, classes in proportion, each class at least once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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

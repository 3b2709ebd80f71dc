"""Groups: images of one patient, one scene or one burst, which stay together in one split."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from impon_hpo.errors import ConfigError, DataError
from impon_hpo.training.config import TrainingConfig
from impon_hpo.training.corrections import csv_rows, find_name
from impon_hpo.training.image_data import ImageData

log = logging.getLogger("impon_hpo")

Rows = NDArray[np.int64]


def groups_of(data: ImageData, config: TrainingConfig) -> Rows | None:
    """Return the group numbers (n,) of the images, as `config.groups` says: first the training
    images, behind them the validation images and the test images that the data set has. Without
    that setting there are none.

    An image of which nothing is said is a group of its own. Where the data set itself has images of
    one group in two splits, that is said in a warning: they are not moved.

    Raises:
        ConfigError: The file cannot be read, lacks a column, has an image that the data set does
            not have or two groups for an image; or no image is in a group.
    """
    if config.groups is None:
        return None
    names = data.names + data.validation_names + data.test_names
    pattern = config.group_pattern
    if pattern is None:
        named = _read(config.groups, names)
    else:
        found = map(pattern.search, names)
        named = [(match[1] or "") if match is not None else "" for match in found]
    n_alone = named.count("")
    if n_alone == len(names):
        raise ConfigError(
            f"groups = '{config.groups}' must find a group in the names of images, but it finds "
            f"none in {len(names):,} names, such as '{names[0]}' and '{names[-1]}'."
        )
    number_of = {group: number for number, group in enumerate(dict.fromkeys(named))}
    numbers = np.array([number_of[group] for group in named], dtype=np.int64)
    alone = np.array([group == "" for group in named])
    numbers[alone] = len(number_of) + np.arange(n_alone)
    log.info(
        "groups: %d of %d images are in %d groups%s",
        len(names) - n_alone,
        len(names),
        len(number_of) - ("" in number_of),
        f"; each of the other {n_alone} is a group of its own" if n_alone else "",
    )
    _warn_of_shared(data, numbers, named)
    return numbers


def _read(path: str, names: Sequence[str]) -> list[str]:
    row_of = {name: row for row, name in enumerate(names)}
    given: dict[str, str] = {}
    named = [""] * len(names)
    for place, file, written in csv_rows(path, "group"):
        group = written.strip()
        row = find_name(row_of, file, f"{place} has the image", "the images of the data set")
        if given.setdefault(file, group) != group:
            raise ConfigError(
                f"{place} puts '{file}' into the group '{group}', but a line above puts it into "
                f"'{given[file]}'. Keep one of them."
            )
        named[row] = group
    return named


def _warn_of_shared(data: ImageData, numbers: Rows, named: Sequence[str]) -> None:
    begin = len(data.labels)
    trained_on = np.unique(numbers[:begin])
    for kind, labels in (("validation", data.validation_labels), ("test", data.test_labels)):
        if labels is None:
            continue
        shared = begin + np.flatnonzero(np.isin(numbers[begin : begin + len(labels)], trained_on))
        begin += len(labels)
        if len(shared):
            groups = list(dict.fromkeys(f"'{named[row]}'" for row in shared.tolist()))
            log.warning(
                "The data set has %d of its %d %s images in groups that its training images are "
                "in, too, so that they are easier than new ones: %s%s",
                len(shared),
                len(labels),
                kind,
                ", ".join(groups[:5]),
                f" and {len(groups) - 5} more groups" if len(groups) > 5 else "",
            )


def parted_by_group(
    order: Rows,
    labels: Rows,
    groups: Rows,
    n_first: int,
    *,
    left: int,
    class_names: Sequence[str],
) -> tuple[Rows, Rows]:
    """Part rows into about `n_first` and the others, so that no group is in both and the classes
    are in proportion as well as groups allow.

    Each class has a group among the first and `left` among the others. The number of first rows
    misses `n_first` by at most half of the largest group, unless that rule leaves no choice.

    Args:
        order: (m,) rows in random order, which decides who is drawn.
        labels: (n,) class indices of all rows.
        groups: (n,) group numbers of all rows.
        n_first: 1 or more.
        left: 1 or more.
        class_names: Names of the classes, for the error.

    Returns:
        Both parts, in the order of `order`.

    Raises:
        DataError: A class has too few groups.

    Example:
        >>> import numpy as np
        >>> from impon_hpo.training.groups import parted_by_group
        >>> labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> groups = np.array([7, 7, 8, 8, 9, 9, 5, 5])
        >>> first, others = parted_by_group(
        ...     np.arange(8), labels, groups, 4, left=1, class_names=("cat", "dog")
        ... )
        >>> groups[first], groups[others]
        (array([7, 7, 9, 9]), array([8, 8, 5, 5]))
    """
    numbers, group_of = np.unique(groups[order], return_inverse=True)
    classes, class_of = np.unique(labels[order], return_inverse=True)
    counts = csr_array(
        (np.ones(len(order)), (group_of, class_of)), shape=(len(numbers), len(classes))
    )
    counts.sum_duplicates()
    # The first place of any of its rows would favour large groups; that of one row does not.
    by_row = np.argsort(order)
    _, one_row = np.unique(group_of[by_row], return_index=True)
    visited = np.argsort(by_row[one_row])
    drawn = _Drawn(counts, n_first, left)
    rarest_first = np.argsort(np.array(drawn.n_left), kind="stable")
    of_class = counts[visited].tocsc()
    for label in rarest_first.tolist():
        rows = np.sort(of_class.indices[of_class.indptr[label] : of_class.indptr[label + 1]])
        if not drawn.take_one(visited[rows].tolist()):
            raise DataError(
                f"Each class must be in every split, but class '{class_names[classes[label]]}' has "
                f"{int(counts[:, [label]].sum())} images in {len(rows)} group(s), which cannot be "
                f"parted into {1 + left} splits that have all classes. Add groups, or leave out "
                "the class; where groups have images of several classes, another seed may do."
            )
    drawn.fill(visited.tolist())
    drawn.mend()
    is_first = drawn.chosen[group_of]
    return order[is_first], order[~is_first]


class _Drawn:
    """The groups that are drawn so far.

    Args:
        counts: (groups, classes), how many rows of each class a group has.
        n_first: Rows that are wanted.
        left: Groups of each class that must stay behind.
    """

    def __init__(self, counts: csr_array, n_first: int, left: int) -> None:
        self._counts, self._left = counts, left
        totals = counts.sum(0)
        # Lists: of single numbers, NumPy would take ten times as long.
        self._begins = counts.indptr.tolist()
        self._entries = list(zip(counts.indices.tolist(), counts.data.tolist(), strict=True))
        self._weights: list[float] = (1 / totals).tolist()
        # Rows that each class has too many.
        self._gap: list[float] = (-totals * n_first / totals.sum()).tolist()
        self.n_left = np.bincount(counts.indices).tolist()  # groups of a class that stay behind
        self._n_chosen = [0] * len(self.n_left)
        self.chosen = np.zeros(counts.shape[0], dtype=np.bool_)

    def _parts(self, group: int) -> list[tuple[int, float]]:
        """Return the classes of a group and its rows of each."""
        return self._entries[self._begins[group] : self._begins[group + 1]]

    def _move(self, group: int) -> None:
        sign = -1 if self.chosen[group] else 1
        for label, rows in self._parts(group):
            self._gap[label] += sign * rows
            self.n_left[label] -= sign
            self._n_chosen[label] += sign
        self.chosen[group] = sign > 0

    def _worse(self, group: int) -> float:
        """Return by how much the classes are further from what is wanted with one more group."""
        gap, weights = self._gap, self._weights
        return sum(
            rows * (rows + 2 * gap[label]) * weights[label] for label, rows in self._parts(group)
        )

    def _may_take(self, group: int) -> bool:
        return all(self.n_left[label] > self._left for label, _ in self._parts(group))

    def take_one(self, groups: Sequence[int]) -> bool:
        """Draw one of the groups of a class, unless it has one; return False if it can have none.

        It is the first that is not too large, or else the one that is the least so.
        """
        if self.chosen[groups].any():
            return True
        taken = next((g for g in groups if self._worse(g) < 0 and self._may_take(g)), None)
        if taken is None:
            taken = min(filter(self._may_take, groups), key=self._worse, default=None)
        if taken is not None:
            self._move(taken)
        return taken is not None

    def fill(self, groups: Sequence[int]) -> None:
        """Draw each group that brings the classes closer to what is wanted."""
        for group in groups:
            if not self.chosen[group] and self._worse(group) < 0 and self._may_take(group):
                self._move(group)

    def mend(self) -> None:
        """Draw or put back groups as long as that brings the number of rows closer to what is
        wanted; each time the one that suits the classes best."""
        sizes, held = self._counts.sum(1), (self._counts > 0).astype(np.int64)
        weights = np.array(self._weights)
        squares = self._counts.multiply(self._counts) @ weights
        while True:
            gaps = np.array(self._gap)
            gap = float(gaps.sum())
            sign = 1 if gap < 0 else -1
            short = np.array(self.n_left) <= self._left if gap < 0 else np.array(self._n_chosen) < 2
            movable = (self.chosen == (gap > 0)) & (sizes < 2 * abs(gap) - 1e-6)
            movable &= held @ short.astype(np.int64) == 0
            if not movable.any():
                return
            worse = squares + 2 * sign * (self._counts @ (gaps * weights))
            self._move(int(np.where(movable, worse, np.inf).argmin()))

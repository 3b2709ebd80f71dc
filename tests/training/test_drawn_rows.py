"""Rows parted into splits: each class in both parts, and nothing changed where that holds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.training.drawn_rows import parted, stratified_order


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=12),
    left=st.integers(0, 2),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_each_class_is_in_both_parts_and_few_rows_change_places(
    counts: list[int], left: int, seed: int, data: st.DataObject
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, seed)
    n_first = data.draw(st.integers(len(counts), len(labels) - left * len(counts)))
    first, others = parted(order, labels, n_first, left=left)
    assert len(first) == n_first
    assert sorted([*first, *others]) == list(range(len(labels)))
    assert (np.bincount(labels[first], minlength=len(counts)) >= 1).all()
    assert (np.bincount(labels[others], minlength=len(counts)) >= left).all()
    of_first = np.bincount(labels[order[:n_first]], minlength=len(counts))
    of_others = np.array(counts) - of_first
    lacking = (of_first < 1).sum() + np.maximum(left - of_others, 0).sum()
    assert (first != order[:n_first]).sum() <= lacking
    if lacking == 0:
        assert np.array_equal(others, order[n_first:])


def test_rows_of_before_stay_as_they_are() -> None:
    order = np.arange(8)
    first, others = parted(order, np.arange(8) % 2, 3, left=1)
    assert (first.tolist(), others.tolist()) == ([0, 1, 2], [3, 4, 5, 6, 7])
    assert order.tolist() == list(range(8))

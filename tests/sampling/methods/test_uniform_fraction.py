"""Uniform fraction: the pool of an epoch, how it is gone through, and its sizes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.errors import ConfigError
from tests.sampling.courses import Course, rows_of


def epoch_rows(course: Course, epoch: int, n_steps: int) -> list[int]:
    return [row for batch in rows_of(course.epoch(epoch, n_steps)) for row in batch]


def test_pool_is_gone_through_before_a_row_repeats() -> None:
    course = Course("uniform-fraction", n_rows=240, batch_size=8)  # a third: ten batches
    rows = epoch_rows(course, 1, 30)
    rounds = [rows[:80], rows[80:160], rows[160:]]
    assert [len(set(one)) for one in rounds] == [80, 80, 80]
    assert set(rounds[0]) == set(rounds[1]) == set(rounds[2])
    assert rounds[0] != rounds[1] != rounds[2] != rounds[0]


@given(
    n_rows=st.integers(4, 60),
    fraction=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    data=st.data(),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=40)
def test_epoch_stays_within_a_pool_of_the_size_told(
    n_rows: int, fraction: float, data: st.DataObject, seed: int
) -> None:
    n_pool = n_rows * round(4 * fraction) // 4
    batch_size = data.draw(st.integers(1, n_pool))
    course = Course("uniform-fraction", n_rows, batch_size, seed=seed, fraction=fraction)
    per_round = n_pool // batch_size
    rows = epoch_rows(course, 1, 4 * per_round)
    for start in range(0, len(rows), per_round * batch_size):
        assert len(set(rows[start : start + per_round * batch_size])) == per_round * batch_size
    assert len(set(rows)) <= n_pool
    if n_pool % batch_size == 0:
        assert len(set(rows)) == n_pool


def test_rows_left_over_take_part_in_the_next_round() -> None:
    course = Course("uniform-fraction", n_rows=20, batch_size=4, fraction=0.5)
    assert len(set(epoch_rows(course, 1, 2))) == 8
    assert len(set(epoch_rows(course, 2, 60))) == 10


def test_each_epoch_has_its_own_pool() -> None:
    course = Course("uniform-fraction", n_rows=60, batch_size=10)
    pools = [frozenset(epoch_rows(course, epoch, 2)) for epoch in range(1, 7)]
    assert all(len(pool) == 20 for pool in pools)
    assert len(set(pools)) == 6
    assert len(frozenset.union(*pools)) > 40


def test_every_row_is_in_the_pool_equally_often() -> None:
    course = Course("uniform-fraction", n_rows=30, batch_size=10)
    seen: Counter[int] = Counter()
    for epoch in range(1, 301):
        seen.update(epoch_rows(course, epoch, 1))
    # 300 epochs, each row with probability 1/3: 100 ± 8.2.
    assert set(seen) == set(range(30))
    assert all(100 - 4.5 * 8.2 < count < 100 + 4.5 * 8.2 for count in seen.values())


@pytest.mark.parametrize(
    ("fraction", "n_rows", "expected"),
    [(1 / 3, 240, 80), (0.5, 9, 4), (1.0, 7, 7), (0.99, 10, 9), (0.1, 10, 1)],
)
def test_pool_is_the_fraction_rounded_down(fraction: float, n_rows: int, expected: int) -> None:
    course = Course("uniform-fraction", n_rows, batch_size=1, fraction=fraction)
    assert len(set(epoch_rows(course, 1, 3 * n_rows))) == expected


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_fraction_out_of_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"fraction must be above 0.*fraction={fraction}"):
        Course("uniform-fraction", fraction=fraction)


def test_fraction_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fraction=0\.25 of 28 rows is 7.* \(8\)"):
        Course("uniform-fraction", n_rows=28, batch_size=8, fraction=0.25)
    assert len(Course("uniform-fraction", n_rows=32, batch_size=8, fraction=0.25).step().rows) == 8

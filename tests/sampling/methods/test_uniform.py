"""Uniform: shuffled epochs without replacement, anew each epoch and when the rows are used up."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling.courses import Course, rows_of


def batches(course: Course, epoch: int, n_steps: int) -> list[list[int]]:
    return rows_of(course.epoch(epoch, n_steps))


def flat(rows: list[list[int]]) -> list[int]:
    return [row for batch in rows for row in batch]


@given(n_rows=st.integers(1, 60), data=st.data(), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=40)
def test_full_epoch_sees_each_row_at_most_once(n_rows: int, data: st.DataObject, seed: int) -> None:
    batch_size = data.draw(st.integers(1, n_rows))
    course = Course("uniform", n_rows=n_rows, batch_size=batch_size, seed=seed)
    n_steps = n_rows // batch_size
    for epoch in (1, 2, 3):
        rows = flat(batches(course, epoch, n_steps))
        assert len(rows) == n_steps * batch_size
        assert len(set(rows)) == len(rows)


def test_epoch_of_whole_batches_sees_every_row() -> None:
    course = Course("uniform", n_rows=48, batch_size=8)
    for epoch in (1, 2):
        assert sorted(flat(batches(course, epoch, 6))) == list(range(48))


@pytest.mark.parametrize("n_rows", [48, 50])
def test_longer_epoch_shuffles_again(n_rows: int) -> None:
    course = Course("uniform", n_rows=n_rows, batch_size=8)
    rows = batches(course, 1, 18)
    rounds = [rows[:6], rows[6:12], rows[12:]]
    assert all(len(set(flat(one))) == 48 for one in rounds)
    assert rounds[0] != rounds[1] != rounds[2] != rounds[0]


def test_epochs_differ_and_are_in_no_order() -> None:
    course = Course("uniform", n_rows=48, batch_size=8)
    result = [flat(batches(course, epoch, 6)) for epoch in range(1, 6)]
    assert all(one not in result[:at] for at, one in enumerate(result))
    assert all(one != sorted(one) for one in result)


def test_epoch_begins_anew_where_the_last_one_stopped_early() -> None:
    # Were an order continued, two half epochs would see every row once.
    course = Course("uniform", n_rows=48, batch_size=8)
    first, second = (set(flat(batches(course, epoch, 3))) for epoch in (1, 2))
    assert len(first) == len(second) == 24
    assert first & second


def test_short_epochs_see_every_row_equally_often() -> None:
    course = Course("uniform", n_rows=40, batch_size=10)
    seen: Counter[int] = Counter()
    for epoch in range(1, 401):
        seen.update(flat(batches(course, epoch, 1)))
    # 400 epochs, each row with probability 1/4: 100 ± 8.7.
    assert set(seen) == set(range(40))
    assert all(100 - 5 * 8.7 < count < 100 + 5 * 8.7 for count in seen.values())


def test_nothing_is_weighted_scored_or_learnt() -> None:
    course = Course("uniform")
    course.sampler.start_epoch(1)
    draw = course.step()
    assert draw.weights is None
    assert draw.scores is None
    assert draw.context is None
    other = Course("uniform")
    other.sampler.start_epoch(1)
    other.sampler.draw()  # never told the losses
    assert rows_of([course.step()]) == rows_of([other.sampler.draw()])

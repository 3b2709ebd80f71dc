"""The stream: orders without repeats, a new one where too few rows are left, and its state."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.sampling.stream import Stream
from tests.sampling.courses import through_a_file


def stream_of(n_rows: int, seed: int = 0) -> Stream:
    return Stream(n_rows, torch.Generator().manual_seed(seed))


def take(stream: Stream, *sizes: int) -> list[list[int]]:
    return [stream.take(k).tolist() for k in sizes]


@given(
    n_rows=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=60)
def test_no_row_repeats_within_an_order(n_rows: int, sizes: list[int], seed: int) -> None:
    stream = stream_of(n_rows, seed)
    seen: set[int] = set()
    for size in sizes:
        k = min(size, n_rows)
        if len(seen) + k > n_rows:  # too few are left
            seen = set()
        taken = stream.take(k)
        assert taken.dtype == torch.int64
        rows = set(taken.tolist())
        assert len(rows) == k
        assert rows <= set(range(n_rows))
        assert not rows & seen
        seen |= rows


def test_order_is_used_up_to_its_last_row() -> None:
    first, second, third, fourth = take(stream_of(20), 12, 8, 12, 8)
    assert sorted(first + second) == sorted(third + fourth) == list(range(20))
    assert first + second != third + fourth


def test_too_few_rows_left_begin_a_new_order() -> None:
    stream = stream_of(20)
    old = stream.order.tolist()
    first, second = take(stream, 12, 9)  # 8 are left
    new = stream.order.tolist()
    assert first == old[:12]
    assert second == new[:9]
    assert new != old
    assert take(stream, 11) == [new[9:]]


def test_all_rows_can_be_taken_at_once() -> None:
    found = take(stream_of(30), 30, 30, 30)
    assert [sorted(rows) for rows in found] == [list(range(30))] * 3
    assert found[0] != found[1] != found[2] != found[0]


def test_a_new_order_can_be_begun_at_any_time() -> None:
    stream = stream_of(20)
    take(stream, 5)
    old = stream.order.tolist()
    stream.shuffle()
    assert stream.order.tolist() != old
    first, second = take(stream, 5, 15)
    assert sorted(first + second) == list(range(20))


def test_every_order_is_equally_likely() -> None:
    stream = stream_of(3)
    found = Counter(tuple(rows) for rows in take(stream, *[3] * 3000))
    assert len(found) == 6
    # 5 degrees of freedom: 0.1 % lie above 20.5.
    assert sum((count - 500) ** 2 / 500 for count in found.values()) < 20.5


def test_seed_decides() -> None:
    assert take(stream_of(50, 1), 20) == take(stream_of(50, 1), 20)
    assert take(stream_of(50, 1), 20) != take(stream_of(50, 2), 20)


def test_stream_saved_in_the_middle_goes_on() -> None:
    saved, loaded = stream_of(20), stream_of(20, seed=1)
    first = take(saved, 7)[0]
    order = saved.order.tolist()
    state = through_a_file(saved.state_dict())
    generator = saved.generator.get_state()
    following = take(saved, 7, 7, 7)
    loaded.load_state_dict(state)
    loaded.generator.set_state(generator)
    assert take(loaded, 7, 7, 7) == following
    assert first + following[0] == order[:14]
    assert not set(first) & set(following[0])

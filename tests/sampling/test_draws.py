"""Draws: choices as often as their importance says, resampling, the bank and the stream."""

from __future__ import annotations

import math
from collections import Counter
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.sampling import draws
from impon_hpo.sampling.draws import (
    Stream,
    choose_distinct,
    choose_repeatedly,
    draw_bank,
    gumbel,
    random_order,
    resample,
)
from tests.sampling.courses import through_a_file
from tests.sampling.waiting import nothing_waits

T = TypeVar("T")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(result: Counter[T], expected: dict[T, float]) -> float:
    """χ² of counts against probabilities; nothing else may have been found."""
    assert set(result) <= set(expected)
    n = result.total()
    return sum((result[key] - n * p) ** 2 / (n * p) for key, p in expected.items())


IMPORTANCES = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=30)


@given(importance=IMPORTANCES, data=st.data(), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_distinct_positions_never_repeat_and_zeros_come_last(
    importance: list[float], data: st.DataObject, seed: int
) -> None:
    k = data.draw(st.integers(1, len(importance)))
    chosen = choose_distinct(torch.tensor(importance), k, source(seed))
    assert chosen.dtype == torch.int64
    assert len(set(chosen.tolist())) == k
    is_zero = [importance[at] == 0 for at in chosen.tolist()]
    assert is_zero == sorted(is_zero)
    n_positive = sum(value > 0 for value in importance)
    assert is_zero.count(False) == min(k, n_positive)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_first_distinct_position_is_in_proportion_to_importance(scale: float) -> None:
    importance, generator = scale * torch.tensor([1.0, 2.0, 3.0, 4.0]), source()
    result = Counter(int(choose_distinct(importance, 1, generator)) for _ in range(4000))
    # 3 degrees of freedom: 0.1 % lie above 16.3.
    assert distance(result, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}) < 16.3


def test_second_distinct_position_is_in_proportion_to_what_is_left() -> None:
    importance, generator = torch.tensor([1.0, 2.0, 3.0]), source(1)
    result: Counter[tuple[int, ...]] = Counter(
        tuple(choose_distinct(importance, 2, generator).tolist()) for _ in range(6000)
    )
    expected: dict[tuple[int, ...], float] = {
        (2, 1): 1 / 2 * 2 / 3,
        (2, 0): 1 / 2 * 1 / 3,
        (1, 2): 1 / 3 * 3 / 4,
        (1, 0): 1 / 3 * 1 / 4,
        (0, 2): 1 / 6 * 3 / 5,
        (0, 1): 1 / 6 * 2 / 5,
    }
    # 5 degrees of freedom: 0.1 % lie above 20.5.
    assert distance(result, expected) < 20.5


@pytest.mark.parametrize(
    "importance", [[1.0, 0.0, 3.0, 4.0], [0.0, 2.0, 6.0], [5.0, 3.0, 0.0], [0.0, 1e-30, 0.0]]
)
def test_repeated_positions_are_in_proportion_and_never_of_importance_zero(
    importance: list[float],
) -> None:
    n_chosen = 4000  # far more than there are positions
    chosen = choose_repeatedly(torch.tensor(importance), n_chosen, source(2))
    assert chosen.shape == (n_chosen,)
    assert chosen.dtype == torch.int64
    total = sum(importance)
    expected = {at: value / total for at, value in enumerate(importance) if value > 0}
    # At most 2 degrees of freedom: 0.1 % lie above 13.8.
    assert distance(Counter(chosen.tolist()), expected) < 13.8


@given(importance=IMPORTANCES.filter(any), k=st.integers(1, 60), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_repeated_positions_have_some_importance(
    importance: list[float], k: int, seed: int
) -> None:
    chosen = choose_repeatedly(torch.tensor(importance), k, source(seed)).tolist()
    assert len(chosen) == k
    assert all(importance[at] > 0 for at in chosen)


def test_repeated_positions_come_in_no_order() -> None:
    chosen = choose_repeatedly(torch.ones(50), 50, source(3)).tolist()
    assert chosen != sorted(chosen)
    assert len(set(chosen)) < 50


def test_every_order_is_equally_likely() -> None:
    generator = source(4)
    result: Counter[tuple[int, ...]] = Counter(
        tuple(random_order(3, generator).tolist()) for _ in range(3000)
    )
    orders: list[tuple[int, ...]] = [
        (0, 1, 2),
        (0, 2, 1),
        (1, 0, 2),
        (1, 2, 0),
        (2, 0, 1),
        (2, 1, 0),
    ]
    assert distance(result, dict.fromkeys(orders, 1 / 6)) < 20.5


def test_noise_is_standard_gumbel() -> None:
    like = torch.zeros(400, 500)
    noise = gumbel(like, source(5))
    assert noise.shape == like.shape
    assert noise.dtype == torch.float64
    assert noise.isfinite().all()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.015)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.04)
    # Its distribution function is exp(-exp(-x)).
    for x, expected in [(-1.0, 0.0660), (0.0, 0.3679), (2.0, 0.8734)]:
        assert float((noise < x).double().mean()) == pytest.approx(expected, abs=0.006)


def test_shares_and_weights_are_those_worked_by_hand() -> None:
    picked, weights = resample(torch.tensor([1.0, 3.0, 0.0, 4.0]), 8000, source())
    shares = (picked.bincount(minlength=4) / 8000).tolist()
    assert shares == pytest.approx([0.125, 0.375, 0.0, 0.5], abs=0.03)
    assert shares[2] == 0
    assert weights.dtype == torch.float32
    for position, weight in {0: 2.0, 1: 2 / 3, 3: 0.5}.items():
        assert weights[picked == position].tolist() == pytest.approx(
            [weight] * int((picked == position).sum())
        )


def test_weighted_mean_is_on_average_that_of_all() -> None:
    values = torch.tensor([1.0, 10.0, -4.0, 2.0])  # mean 2.25
    picked, weights = resample(torch.tensor([0.5, 2.0, 1.0, 0.1]), 40_000, source())
    assert float((weights * values[picked]).mean()) == pytest.approx(2.25, abs=0.1)
    assert float(values[picked].mean()) > 4


def test_scale_of_the_scores_does_not_matter() -> None:
    scores = torch.tensor([1.0, 2.0, 5.0])
    expected = resample(scores, 20, source())
    for scale in (1e-30, 1e30):
        picked, weights = resample(scores * scale, 20, source())
        assert picked.tolist() == expected[0].tolist()
        torch.testing.assert_close(weights, expected[1])


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, 1e-45])
def test_all_are_equally_likely_where_no_score_says_otherwise(value: float) -> None:
    picked, weights = resample(torch.full((4,), value), 4000, source())
    assert (picked.bincount(minlength=4) / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert weights.tolist() == pytest.approx([1.0] * 4000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_taken_for_zero(value: float) -> None:
    picked, weights = resample(torch.tensor([1.0, value, 1.0]), 300, source())
    assert set(picked.tolist()) == {0, 2}
    assert weights.tolist() == pytest.approx([2 / 3] * 300)


def test_weights_are_finite_for_the_most_unlikely_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draws, "choose_repeatedly", lambda *_: torch.tensor([0, 1]))
    for score in (0.0, 1e-40, 1e-30):
        _, weights = resample(torch.tensor([score, 1.0]), 2, source())
        assert weights.tolist() == pytest.approx([5e11, 0.5])


def test_resampling_would_not_wait_for_a_gpu() -> None:
    scores = torch.tensor([1.0, math.nan, 1.0])
    with nothing_waits():
        picked, _ = resample(scores, 5, source())
    assert len(picked) == 5


BOTH = pytest.mark.parametrize(
    ("n_rows", "bank_size"), [(60, 12), (1280, 10), (1281, 10), (700, 2)], ids=str
)
N_DRAWS = 2500


def many_banks(n_rows: int, bank_size: int) -> Tensor:
    generator = source()
    return torch.stack([draw_bank(n_rows, bank_size, generator) for _ in range(N_DRAWS)])


def excess(counts: Tensor, expected: float, spread: float) -> float:
    """How many standard deviations chi-square is from its mean, if a count varies by `spread`."""
    freedom = len(counts) - 1
    chi_square = float((counts.double() - expected).square().sum()) / spread
    return (chi_square - freedom) / math.sqrt(2 * freedom)


@given(bank_size=st.integers(1, 60), more=st.integers(0, 12_000), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=100)
def test_rows_of_a_bank_are_different_and_in_range(bank_size: int, more: int, seed: int) -> None:
    n_rows = bank_size + more
    bank = draw_bank(n_rows, bank_size, source(seed))
    assert bank.shape == (bank_size,)
    assert bank.dtype == torch.int64
    assert len(bank.unique()) == bank_size
    assert int(bank.min()) >= 0
    assert int(bank.max()) < n_rows


@pytest.mark.parametrize("n_rows", [129, 257, 1281, 12000])
def test_no_row_stands_twice_in_the_fullest_bank_without_a_permutation(n_rows: int) -> None:
    bank_size = (n_rows - 1) // 128
    generator = source()
    for _ in range(300):
        assert len(draw_bank(n_rows, bank_size, generator).unique()) == bank_size


@pytest.mark.parametrize("n_rows", [1, 2, 200])
def test_full_bank_is_a_permutation(n_rows: int) -> None:
    bank = draw_bank(n_rows, n_rows, source())
    assert sorted(bank.tolist()) == list(range(n_rows))
    assert n_rows < 3 or bank.tolist() != sorted(bank.tolist())


@BOTH
def test_every_row_is_equally_likely(n_rows: int, bank_size: int) -> None:
    counts = many_banks(n_rows, bank_size).flatten().bincount(minlength=n_rows)
    assert min(counts[0], counts[-1]) > 0
    share = bank_size / n_rows
    expected = N_DRAWS * share
    # Without replacement: the counts of rows hang together, which takes (1 - share) off.
    spread = expected * (1 - share) * n_rows / (n_rows - 1)
    assert abs(excess(counts, expected, spread)) < 5


@BOTH
def test_every_row_is_equally_likely_at_every_place(n_rows: int, bank_size: int) -> None:
    banks = many_banks(n_rows, bank_size)
    for place in (0, bank_size - 1):
        eighths = (banks[:, place] * 8 // n_rows).bincount(minlength=8)
        sizes = (torch.arange(n_rows) * 8 // n_rows).bincount()
        expected = N_DRAWS * sizes.double() / n_rows
        assert float(((eighths - expected).square() / expected).sum()) < 7 + 5 * 14**0.5


@BOTH
def test_pairs_of_rows_do_not_attract_each_other(n_rows: int, bank_size: int) -> None:
    banks = many_banks(n_rows, bank_size)
    apart = (banks[:, 0] - banks[:, 1]) % n_rows
    counts = (apart - 1).bincount(minlength=n_rows - 1)
    assert int(apart.min()) >= 1
    expected = N_DRAWS / (n_rows - 1)
    assert abs(excess(counts, expected, expected)) < 5


def test_bank_of_a_huge_data_set_costs_no_more() -> None:
    bank = draw_bank(10**15, 200, source())
    assert len(bank.unique()) == 200
    assert int(bank.max()) > 10**14


@BOTH
def test_same_generator_gives_the_same_banks_and_goes_on(n_rows: int, bank_size: int) -> None:
    generator, twin = source(5), source(5)
    banks = [draw_bank(n_rows, bank_size, generator).tolist() for _ in range(3)]
    assert banks == [draw_bank(n_rows, bank_size, twin).tolist() for _ in range(3)]
    assert banks[0] != banks[1] != banks[2]
    assert banks[0] != draw_bank(n_rows, bank_size, source(6)).tolist()


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
    result = take(stream_of(30), 30, 30, 30)
    assert [sorted(rows) for rows in result] == [list(range(30))] * 3
    assert result[0] != result[1] != result[2] != result[0]


def test_a_new_order_can_be_begun_at_any_time() -> None:
    stream = stream_of(20)
    take(stream, 5)
    old = stream.order.tolist()
    stream.shuffle()
    assert stream.order.tolist() != old
    first, second = take(stream, 5, 15)
    assert sorted(first + second) == list(range(20))


def test_every_order_of_a_stream_is_equally_likely() -> None:
    stream = stream_of(3)
    result = Counter(tuple(rows) for rows in take(stream, *[3] * 3000))
    assert len(result) == 6
    # 5 degrees of freedom: 0.1 % lie above 20.5.
    assert sum((count - 500) ** 2 / 500 for count in result.values()) < 20.5


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

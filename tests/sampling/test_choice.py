"""Choice: positions as often as their importance says, without and with repeats, and its noise."""

from __future__ import annotations

import math
from collections import Counter
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.sampling.choice import choose_distinct, choose_repeatedly, gumbel, random_order

T = TypeVar("T")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(found: Counter[T], expected: dict[T, float]) -> float:
    """χ² of counts against probabilities; nothing else may have been found."""
    assert set(found) <= set(expected)
    n = found.total()
    return sum((found[key] - n * p) ** 2 / (n * p) for key, p in expected.items())


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
    found = Counter(int(choose_distinct(importance, 1, generator)) for _ in range(4000))
    # 3 degrees of freedom: 0.1 % lie above 16.3.
    assert distance(found, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}) < 16.3


def test_second_distinct_position_is_in_proportion_to_what_is_left() -> None:
    importance, generator = torch.tensor([1.0, 2.0, 3.0]), source(1)
    found: Counter[tuple[int, ...]] = Counter(
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
    assert distance(found, expected) < 20.5


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
    found: Counter[tuple[int, ...]] = Counter(
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
    assert distance(found, dict.fromkeys(orders, 1 / 6)) < 20.5


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

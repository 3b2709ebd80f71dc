"""The bank: different rows, every set equally likely, at a cost that does not grow."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.sampling.bank import draw_bank

BOTH = pytest.mark.parametrize(
    ("n_rows", "bank_size"), [(60, 12), (1280, 10), (1281, 10), (700, 2)], ids=str
)
N_DRAWS = 2500


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def many_banks(n_rows: int, bank_size: int) -> Tensor:
    source = generator()
    return torch.stack([draw_bank(n_rows, bank_size, source) for _ in range(N_DRAWS)])


def excess(counts: Tensor, expected: float, spread: float) -> float:
    """How many standard deviations chi-square is from its mean, if a count varies by `spread`."""
    freedom = len(counts) - 1
    chi_square = float((counts.double() - expected).square().sum()) / spread
    return (chi_square - freedom) / math.sqrt(2 * freedom)


@given(bank_size=st.integers(1, 60), more=st.integers(0, 12_000), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=100)
def test_rows_of_a_bank_are_different_and_in_range(bank_size: int, more: int, seed: int) -> None:
    n_rows = bank_size + more
    bank = draw_bank(n_rows, bank_size, generator(seed))
    assert bank.shape == (bank_size,)
    assert bank.dtype == torch.int64
    assert len(bank.unique()) == bank_size
    assert int(bank.min()) >= 0
    assert int(bank.max()) < n_rows


@pytest.mark.parametrize("n_rows", [129, 257, 1281, 12000])
def test_no_row_stands_twice_in_the_fullest_bank_without_a_permutation(n_rows: int) -> None:
    bank_size = (n_rows - 1) // 128
    source = generator()
    for _ in range(300):
        assert len(draw_bank(n_rows, bank_size, source).unique()) == bank_size


@pytest.mark.parametrize("n_rows", [1, 2, 200])
def test_full_bank_is_a_permutation(n_rows: int) -> None:
    bank = draw_bank(n_rows, n_rows, generator())
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
    bank = draw_bank(10**15, 200, generator())
    assert len(bank.unique()) == 200
    assert int(bank.max()) > 10**14


@BOTH
def test_same_generator_gives_the_same_banks_and_goes_on(n_rows: int, bank_size: int) -> None:
    source, twin = generator(5), generator(5)
    banks = [draw_bank(n_rows, bank_size, source).tolist() for _ in range(3)]
    assert banks == [draw_bank(n_rows, bank_size, twin).tolist() for _ in range(3)]
    assert banks[0] != banks[1] != banks[2]
    assert banks[0] != draw_bank(n_rows, bank_size, generator(6)).tolist()

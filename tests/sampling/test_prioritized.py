"""prioritized: the blocks of priorities, the probabilities, and the weights against the bias."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.priorities import Priorities
from impon_hpo.sampling.prioritized import Prioritized
from tests.sampling.courses import deep_model, flat_rows

CPU = torch.device("cpu")


def sampler(n_rows: int = 6, **given_options: Any) -> Prioritized:
    options: dict[str, Any] = {"batch_size": 3, "model": deep_model(), "total_steps": 10}
    return Prioritized(flat_rows(torch.zeros(n_rows, 1)), **(options | given_options))


def priorities_of(one: Prioritized) -> Tensor:
    return one._priorities.of(torch.arange(len(one.rows))).clone()


def observe(one: Prioritized, rows: list[int], losses: list[float]) -> None:
    one.observe(Draw(torch.tensor(rows)), torch.tensor(losses))


@given(
    n_rows=st.integers(1, 60),
    fanout=st.sampled_from([2, 3, 256]),
    changes=st.lists(st.tuples(st.integers(0, 59), st.floats(1e-6, 1e6)), max_size=30),
)
@settings(max_examples=50)
def test_sums_are_those_of_the_weights(
    n_rows: int, fanout: int, changes: list[tuple[int, float]]
) -> None:
    priorities = Priorities(n_rows, CPU, fanout=fanout)
    expected = torch.ones(n_rows, dtype=torch.float64)
    for row, weight in changes:
        row %= n_rows  # noqa: PLW2901
        priorities.set(torch.tensor([row, row]), torch.tensor([weight, weight]))
        expected[row] = float(torch.tensor(weight))
    assert torch.equal(priorities.of(torch.arange(n_rows)), expected)
    torch.testing.assert_close(priorities.total, expected.sum(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("fanout", [2, 3, 256])
def test_rows_are_drawn_in_proportion_to_their_weights(fanout: int) -> None:
    priorities = Priorities(7, CPU, fanout=fanout)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    priorities.set(torch.arange(7), weights)
    drawn = priorities.draw(28_000, torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=7)
    # Five standard deviations of a count of about 1,000 · weight.
    assert ((counts - 1000 * weights).abs() < 5 * (1000 * weights).sqrt()).all()


def test_many_changes_leave_no_rounding_behind() -> None:
    priorities = Priorities(100, CPU)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        rows = torch.randperm(100, generator=generator)[:50]
        priorities.set(rows, torch.rand(50, generator=generator) * 1e8 + 1e-3)
    priorities.set(torch.arange(100), torch.full((100,), 1e-3))
    torch.testing.assert_close(
        priorities.total, torch.tensor(100 * float(torch.tensor(1e-3)), dtype=torch.float64)
    )


@pytest.mark.parametrize("fanout", [2, 3, 256])
def test_weight_of_almost_nothing_is_almost_never_drawn(fanout: int) -> None:
    priorities = Priorities(10, CPU, fanout=fanout)
    priorities.set(torch.arange(9), torch.full((9,), 1e-12))
    assert priorities.draw(1000, torch.Generator().manual_seed(0)).unique().tolist() == [9]


@pytest.mark.parametrize(("n_rows", "largest"), [(100, 10), (65_536, 256), (10_000_000, 216)])
def test_blocks_stay_small_however_many_rows_there_are(n_rows: int, largest: int) -> None:
    assert Priorities(n_rows, CPU).block_size <= largest


def test_every_row_of_many_can_be_drawn() -> None:
    n_rows = 70_000  # on three levels
    priorities = Priorities(n_rows, CPU)
    drawn = priorities.draw(200_000, torch.Generator().manual_seed(0))
    assert int(drawn.min()) < 5
    assert int(drawn.max()) > n_rows - 6
    sevenths = (drawn * 7 // n_rows).bincount(minlength=7).double()
    expected = 200_000 / 7
    assert float(((sevenths - expected).square() / expected).sum()) < 6 + 5 * 12**0.5


def test_priority_is_a_power_of_the_loss() -> None:
    one = sampler(alpha=0.5, eps=0.01)
    observe(one, [0, 1, 2], [3.99, 0.24, 0.0])
    found = priorities_of(one)
    torch.testing.assert_close(
        found[:4], torch.tensor([2.0, 0.5, 0.1, 1.0], dtype=torch.float64), rtol=1e-6, atol=0.0
    )


def test_rows_never_seen_follow_the_highest_priority_at_the_next_epoch() -> None:
    one = sampler(alpha=0.5, eps=1e-9)
    observe(one, [0, 1, 2], [16.0, 1.0, 1.0])
    one.start_epoch(2)
    found = priorities_of(one)
    assert found.tolist() == pytest.approx([4, 1, 1, 4, 4, 4])


def test_weights_undo_the_bias_up_to_the_largest_of_the_batch() -> None:
    one = sampler(alpha=1.0, beta=1.0, eps=1e-9)
    observe(one, [0, 1, 2], [1.0, 2.0, 4.0])
    observe(one, [3, 4, 5], [1.0, 1.0, 1.0])
    losses = {0: 1.0, 1: 2.0, 2: 4.0, 3: 1.0, 4: 1.0, 5: 1.0}
    for _ in range(20):
        draw = one.draw()
        assert draw.weights is not None
        inverse = torch.tensor([1 / losses[row] for row in draw.rows.tolist()])
        torch.testing.assert_close(draw.weights, inverse / inverse.max())


def test_beta_grows_to_one_over_the_run_and_stays_without_its_length() -> None:
    one = sampler(beta=0.4)
    betas = []
    for _ in range(11):
        betas.append(one.beta)
        one.draw()
    assert betas == pytest.approx([0.4 + 0.06 * step for step in range(11)])
    assert sampler(beta=0.4, total_steps=None).beta == 0.4


def test_alpha_of_nothing_is_uniform_with_weights_of_one() -> None:
    one = sampler(alpha=0.0)
    observe(one, [0, 1, 2], [5.0, 0.1, 100.0])
    draw = one.draw()
    assert draw.weights is not None
    assert draw.weights.tolist() == [1.0, 1.0, 1.0]


def test_row_that_repeats_keeps_the_highest_of_its_losses() -> None:
    one = sampler(alpha=1.0, eps=1e-9)
    observe(one, [2, 2, 2], [1.0, 7.0, math.nan])
    found = priorities_of(one)
    assert found.tolist() == pytest.approx([1, 1, 7, 1, 1, 1])


def test_losses_that_are_not_finite_change_nothing() -> None:
    one = sampler()
    before = priorities_of(one)
    observe(one, [0, 1, 2], [math.nan, math.inf, -math.inf])
    assert torch.equal(priorities_of(one), before)
    assert bool(one.state_dict()["unseen"].all())


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", -0.1), ("alpha", 1.1), ("beta", -1), ("beta", 2), ("eps", 0.0)]
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        sampler(**{option: value})

"""p-sgd and c-sgd: the history of the true class's probability, the pools, and their smoothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.p_sgd import CSgd, PSgd
from tests.sampling.courses import deep_model, flat_rows

N = 12


def sampler(kind: type[PSgd] = PSgd, n_rows: int = N, **given: Any) -> PSgd:
    settings: dict[str, Any] = {"batch_size": 3, "model": deep_model(), "warmup_epochs": 0}
    return kind(flat_rows(torch.zeros(n_rows, 1)), **(settings | given))


def observe(one: PSgd, rows: list[int], believed: list[float]) -> None:
    """Let rows have been trained on with such probabilities of their true class."""
    draw = Draw(torch.tensor(rows))
    labels = one.rows.labels[draw.rows]
    p = torch.tensor(believed)
    logits = torch.where(
        torch.arange(2) == labels[:, None], p.log()[:, None], (1 - p).log()[:, None]
    )
    one.observe(draw, -p.log(), logits)


def test_score_is_the_mean_over_visits_of_one_minus_the_probability() -> None:
    one = sampler()
    observe(one, [0, 1, 2], [0.9, 0.5, 0.2])
    observe(one, [0, 1, 3], [0.7, 0.5, 1.0 - 1e-7])
    torch.testing.assert_close(
        one.scores()[:5], torch.tensor([0.2, 0.5, 0.8, 0.0, 0.8]), atol=1e-6, rtol=1e-5
    )  # row 4 was never seen: the highest score


def test_closeness_is_highest_at_one_half_and_unseen_rows_get_the_highest() -> None:
    one = sampler(CSgd)
    observe(one, [0, 1, 2], [0.9, 0.4, 0.2])
    expected = torch.tensor([0.09, 0.24, 0.16, 0.24])
    torch.testing.assert_close(one.scores()[:4], expected, atol=1e-6, rtol=1e-5)


def test_arazo_s_unseen_rows_are_mapped_after_they_got_the_highest_doubt() -> None:
    one = sampler(CSgd, unseen="arazo")
    observe(one, [0, 1, 2], [0.9, 0.4, 0.1])
    expected = torch.tensor([0.09, 0.24, 0.09, 0.09])  # the doubt of 0.9 maps to 0.09
    torch.testing.assert_close(one.scores()[:4], expected, atol=1e-6, rtol=1e-5)


def test_without_logits_the_loss_tells_the_probability() -> None:
    with_logits, without = sampler(), sampler()
    observe(with_logits, [0, 1, 2], [0.9, 0.5, 0.2])
    without.observe(Draw(torch.tensor([0, 1, 2])), -torch.tensor([0.9, 0.5, 0.2]).log())
    torch.testing.assert_close(without.scores(), with_logits.scores())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_not_finite_is_no_visit(bad: float) -> None:
    one = sampler()
    observe(one, [0, 1, 2], [0.9, 0.5, 0.2])
    before = one.scores()
    one.observe(Draw(torch.tensor([0, 1, 2])), torch.tensor([bad] * 3))
    assert torch.equal(one.scores(), before)


def pool_shares(one: PSgd, n_pools: int = 400) -> Tensor:
    """How often each row is in a pool."""
    counts = torch.zeros(len(one.rows))
    for epoch in range(2, n_pools + 2):
        one.start_epoch(epoch)
        for _ in range(one.n_pool // one.batch_size):
            counts[one.draw().rows] += 1
    return counts / n_pools


def test_pools_favour_doubt_in_proportion_to_score_plus_mean() -> None:
    one = sampler(n_rows=100, budget=0.03)
    observe(one, list(range(50)), [0.1] * 50)  # doubt 0.9
    observe(one, list(range(50, 100)), [0.9] * 50)  # doubt 0.1, so the mean is 0.5
    shares = pool_shares(one)
    ratio = float(shares[:50].mean() / shares[50:].mean())
    assert ratio == pytest.approx((0.9 + 0.5) / (0.1 + 0.5), rel=0.15)


def test_pool_is_trained_on_once_before_the_next() -> None:
    one = sampler(budget=0.5)
    one.start_epoch(1)
    for _ in range(3):
        rows = torch.cat([one.draw().rows for _ in range(2)])
        assert len(rows.unique()) == 6


def test_budget_of_one_is_uniform() -> None:
    one = sampler(budget=1.0)
    observe(one, [0, 1, 2], [0.01, 0.99, 0.5])
    for epoch in (1, 2):
        one.start_epoch(epoch)
        rows = torch.cat([one.draw().rows for _ in range(4)])
        assert sorted(rows.tolist()) == list(range(N))


def test_warm_up_draws_from_all_rows() -> None:
    one = sampler(warmup_epochs=1, budget=0.25)
    one.start_epoch(1)
    assert len(torch.cat([one.draw().rows for _ in range(4)]).unique()) == N
    one.start_epoch(2)
    assert len(torch.cat([one.draw().rows for _ in range(1)]).unique()) == 3


def test_constant_smoothing_keeps_the_first_mean() -> None:
    one = sampler(smoothing="constant", warmup_epochs=1)
    one.start_epoch(1)
    observe(one, list(range(N)), [0.6] * N)
    one.start_epoch(2)
    assert float(one.state_dict()["constant"]) == pytest.approx(0.4)
    observe(one, list(range(N)), [0.0001] * N)
    one.start_epoch(3)
    assert float(one.state_dict()["constant"]) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("budget", 0.0),
        ("budget", 1.1),
        ("budget", 0.1),  # one row, less than a batch
        ("warmup_epochs", -1),
        ("smoothing", "median"),
        ("unseen", "zero"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        sampler(**{option: value})

"""infobatch: which rows are left out, the weights of those that stay, and the last share."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.infobatch import InfoBatch
from tests.sampling.courses import deep_model, flat_rows

N = 40


def sampler(losses: Tensor | None = None, **given: Any) -> InfoBatch:
    """Rows 0 … 19 learnt well, rows 20 … 39 not, in the second epoch, unless told otherwise."""
    settings: dict[str, Any] = {"batch_size": 4, "model": deep_model(), "total_steps": 1000}
    one = InfoBatch(flat_rows(torch.zeros(N, 1)), **(settings | given))
    known = (
        torch.cat([torch.full((20,), 0.1), torch.full((20,), 2.0)]) if losses is None else losses
    )
    for rows in torch.arange(N).split(4):
        one.observe(Draw(rows), known[rows])
    one.start_epoch(2)
    return one


def kept_of(one: InfoBatch) -> Tensor:
    """Return the rows of the next passes."""
    kept: Tensor = one.state_dict()["kept"]["order"]
    return kept


def one_pass(one: InfoBatch) -> tuple[Tensor, Tensor]:
    """Return rows and weights of the whole batches of one pass."""
    draws = [one.draw() for _ in range(len(kept_of(one)) // one.batch_size)]
    weights = [draw.weights for draw in draws if draw.weights is not None]
    return torch.cat([draw.rows for draw in draws]), torch.cat(weights)


def test_rows_below_the_mean_are_left_out_or_weigh_double() -> None:
    one = sampler()
    kept = set(kept_of(one).tolist())
    assert set(range(20, N)) <= kept  # what is not learnt always stays
    assert 4 <= len(kept & set(range(20))) <= 16  # about half of what is
    rows, weights = one_pass(one)
    assert len(rows.unique()) == len(rows)
    assert torch.equal(weights, torch.where(rows < 20, 2.0, 1.0))


def test_on_average_every_row_weighs_one() -> None:
    one = sampler(r=0.75)
    total = torch.zeros(N)
    for epoch in range(3, 1003):
        one.start_epoch(epoch)
        kept = kept_of(one)
        total[kept] += one.state_dict()["weights"][kept]
    torch.testing.assert_close(total / 1000, torch.ones(N), atol=0.25, rtol=0.0)
    assert float((total / 1000).mean()) == pytest.approx(1.0, abs=0.05)


def test_rows_never_seen_stay_and_do_not_count_in_the_mean() -> None:
    losses = torch.full((N,), math.nan)
    losses[:8] = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0])
    one = sampler(losses, r=0.99)
    kept = set(kept_of(one).tolist())
    assert set(range(4, N)) <= kept
    assert len(kept & {0, 1, 2, 3}) <= 1


def test_last_share_trains_on_all_rows_with_weight_one() -> None:
    one = sampler(total_steps=100, delta=0.2)
    for _ in range(79):
        one.draw()
    one.start_epoch(3)
    assert len(kept_of(one)) < N
    one.draw()
    rows, weights = [], []
    for _ in range(10):  # the 81st to the 90th step, within an epoch
        draw = one.draw()
        assert draw.weights is not None
        rows.append(draw.rows)
        weights.append(draw.weights)
    assert sorted(torch.cat(rows).tolist()) == list(range(N))
    assert torch.cat(weights).unique().tolist() == [1.0]


def test_pass_that_is_used_up_is_shuffled_again() -> None:
    one = sampler()
    first, second = one_pass(one)[0], one_pass(one)[0]
    assert not torch.equal(first, second)
    assert set(second.tolist()) <= set(kept_of(one).tolist())


def test_nothing_is_left_out_when_all_losses_are_alike_or_r_is_nothing() -> None:
    assert len(kept_of(sampler(torch.ones(N)))) == N
    assert len(kept_of(sampler(r=0.0))) == N


def test_pass_never_falls_below_a_batch() -> None:
    losses = torch.full((N,), 0.1)
    losses[0] = 100.0
    one = sampler(losses, r=0.999, batch_size=40)
    rows, weights = one_pass(one)
    assert len(rows) == N
    assert weights.unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("option", "value"),
    [("r", -0.1), ("r", 1.0), ("delta", -0.1), ("delta", 1.1), ("total_steps", None)],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        sampler(**{option: value})

"""loss-rank: probabilities by rank, their pressure, and the recomputation of all losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.loss_rank import LossRank
from tests.sampling.courses import deep_model, flat_rows

N = 20


def sampler(n_rows: int = N, **given: Any) -> LossRank:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "model": deep_model(),
        "warmup_epochs": 0,
        "total_steps": 100,
    }
    return LossRank(flat_rows(torch.zeros(n_rows, 1)), **(settings | given))


def know(one: LossRank, losses: Tensor) -> None:
    """Let all rows have been trained on with such losses, and a new epoch begin."""
    for rows in torch.arange(len(losses)).split(one.batch_size):
        one.observe(Draw(rows), losses[rows])
    one.start_epoch(5)


def frequencies(one: LossRank, n_draws: int = 3000) -> Tensor:
    counts = torch.zeros(len(one.rows))
    for _ in range(n_draws):
        counts.index_add_(0, one.draw().rows, torch.ones(one.batch_size))
    return counts / counts.sum()


def test_first_rank_is_s_e_times_as_likely_as_the_last() -> None:
    one = sampler(s_e0=50.0, s_end=50.0)
    know(one, torch.arange(N).float())  # row 19 has the highest loss
    result = frequencies(one).flip(0)
    ranks = torch.arange(N, dtype=torch.float64)
    expected = 50.0 ** (-ranks / N)
    expected /= expected.sum()
    assert float(expected[0] / expected[-1]) == pytest.approx(50 ** (19 / 20))
    torch.testing.assert_close(result, expected.float(), atol=0.012, rtol=0.0)


def test_pressure_of_one_is_uniform() -> None:
    one = sampler(s_e0=1.0, s_end=1.0)
    know(one, torch.arange(N).float())
    torch.testing.assert_close(frequencies(one), torch.full((N,), 1 / N), atol=0.012, rtol=0.0)


def test_pressure_falls_exponentially_over_the_run() -> None:
    one = sampler(s_e0=100.0, s_end=1.0)
    pressures = []
    for epoch in range(1, 5):
        one.start_epoch(epoch)
        pressures.append(one.pressure)
        for _ in range(25):
            one.draw()
    assert pressures == pytest.approx([100.0, 100**0.75, 10.0, 100**0.25])


def test_rows_never_seen_rank_first() -> None:
    one = sampler(s_e0=1e6, s_end=1e6)
    one.observe(Draw(torch.tensor([0, 1, 2, 3])), torch.tensor([9.0, 8.0, 7.0, 6.0]))
    one.start_epoch(5)
    order = one.state_dict()["hardest_first"].tolist()
    assert order[-4:] == [0, 1, 2, 3]
    assert sorted(order[:-4]) == list(range(4, N))


def test_losses_of_all_rows_are_recomputed_when_asked() -> None:
    scored: list[Tensor] = []

    def forward(rows: Tensor) -> tuple[Tensor, Tensor]:
        scored.append(rows)
        return -rows.float(), torch.zeros(len(rows), 2)

    one = sampler(recompute=2, warmup_epochs=1, s_e0=1e6, s_end=1e6)
    assert one.needs_forward
    for epoch in (1, 2, 3, 4):
        one.start_epoch(epoch)
        for _ in range(3):
            one.draw(forward)
        assert sum(map(len, scored)) == (0 if epoch < 3 else N), epoch
    assert one.state_dict()["hardest_first"].tolist() == list(range(N))


def test_without_recomputation_no_forward_is_needed() -> None:
    one = sampler()
    assert not one.needs_forward
    one.start_epoch(1)
    assert one.draw().rows.shape == (4,)


def test_warm_up_is_a_shuffled_epoch() -> None:
    one = sampler(warmup_epochs=1)
    one.start_epoch(1)
    assert len(torch.cat([one.draw().rows for _ in range(5)]).unique()) == N


def test_last_row_can_be_drawn_and_none_beyond() -> None:
    one = sampler(n_rows=3, batch_size=3, s_e0=1.5, s_end=1.5)
    assert sorted(frequencies(one, 200).nonzero()[:, 0].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("s_e0", 0.5),
        ("s_e0", math.inf),
        ("s_end", 0.0),
        ("s_end", math.nan),
        ("warmup_epochs", -1),
        ("recompute", -1),
        ("total_steps", None),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        sampler(**{option: value})

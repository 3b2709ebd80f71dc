"""Tests of the sampling benchmark: shares add up, memory is that of the sampler alone."""

from __future__ import annotations

import pytest
import torch

from benchmarks.sampling import (
    make_bench_sampler,
    measure_growth,
    measure_sampling,
    state_bytes,
)
from benchmarks.step import N_CLASSES, made_reference
from impon_hpo import SAMPLERS, Rows


def _rows(n: int) -> Rows:
    labels = torch.arange(n) % N_CLASSES
    reference = made_reference(n, torch.device("cpu"))
    return Rows(torch.randn(n, 8), labels, N_CLASSES, reference=reference)


def test_share_of_a_step_is_the_time_over_that_of_the_step() -> None:
    measured = measure_sampling(
        samplers=["uniform", "rho-loss"],
        width=2,
        side=8,
        n_rows=200,
        batch_size=16,
        rounds=1,
        device="cpu",
    )
    assert [row["sampler"] for row in measured.rows] == ["uniform", "rho-loss"]
    assert [row["forward"] for row in measured.rows] == ["no", "yes"]
    for row in measured.rows:
        share = 100 * row["ms"] / measured.settings["step_ms"]
        assert row["percent_of_step"] == pytest.approx(share, rel=0.01)


def test_growth_is_against_the_smallest() -> None:
    measured = measure_growth(samplers=["uniform"], n_rows=[200, 400], batch_size=16, rounds=1)
    small, large = measured.rows
    assert (small["rows"], large["rows"]) == (200, 400)
    assert small["times_smallest"] == 1
    assert large["times_smallest"] == pytest.approx(large["ms"] / small["ms"], rel=0.01)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_can_be_measured(name: str) -> None:
    sampler = make_bench_sampler(name, _rows(300), 16, torch.nn.Linear(8, N_CLASSES))
    assert state_bytes(sampler) >= 4 * 300  # the counts of visits, which every sampler has


def test_memory_is_the_order_and_the_visits_of_uniform() -> None:
    sampler = make_bench_sampler("uniform", _rows(300), 16, torch.nn.Linear(8, N_CLASSES))
    # The order; visits before the epoch that runs, and those of it that a checkpoint brought.
    assert state_bytes(sampler) == (8 + 4 + 4) * 300

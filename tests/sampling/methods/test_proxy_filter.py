"""Proxy filter: the rows that the proxy found hardest at this stage, and its errors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.methods.proxy_filter import ProxyFilter
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import deep_model, field, flat_rows

STAGES = [[8.0, 6.0, 2.0, 0.0], [0.0, 7.0, 10.0, 4.0], [0.0, 1.0, 2.0, 16.0]]
"""Losses of four rows over three epochs of the proxy."""


def rows_with(trajectory: list[list[float]] | None, n_rows: int = 4) -> Rows:
    # The final loss is higher the lower the row: it must not matter.
    reference = Reference(
        torch.arange(n_rows, 0, -1.0),
        torch.full((n_rows, 2), 0.5),
        None if trajectory is None else torch.tensor(trajectory),
    )
    return replace(flat_rows(torch.zeros(n_rows, 1)), reference=reference)


def proxy_filter(rows: Rows | None = None, **given: Any) -> ProxyFilter:
    usual: dict[str, Any] = {"batch_size": 2, "model": deep_model(), "total_steps": 4}
    sampler = ProxyFilter(rows_with(STAGES) if rows is None else rows, **(usual | given))
    sampler.start_epoch(1)
    return sampler


def test_hardest_rows_of_the_stage_are_those_worked_by_hand() -> None:
    sampler = proxy_filter()  # of all four rows, two
    expected: list[tuple[list[int], list[float]]] = [
        ([0, 1], [8, 6]),  # the first epoch
        ([1, 2], [6.5, 6]),  # half-way: 4, 6.5, 6, 2
        ([2, 1], [10, 7]),  # the second
        ([3, 2], [10, 6]),  # half-way: 0, 4, 6, 10
        ([3, 2], [16, 2]),  # the third, and then on
        ([3, 2], [16, 2]),
    ]
    for rows, scores in expected:
        draw = sampler.draw()
        assert draw.rows.tolist() == rows
        assert field(draw.scores).tolist() == pytest.approx(scores)
        assert draw.weights is None


def test_stage_is_a_share_of_the_run_not_an_epoch() -> None:
    sampler = proxy_filter(total_steps=8)
    for epoch in (2, 3):
        sampler.start_epoch(epoch)
        sampler.draw()
    # A quarter of the run lies half-way between the first two epochs: 4, 6.5, 6, 2.
    assert field(sampler.draw().scores).tolist() == pytest.approx([6.5, 6])
    # Three eighths: ¾ of the way: 2, 6.75, 8, 3.
    assert field(sampler.draw().scores).tolist() == pytest.approx([8, 6.75])


def test_trajectory_of_one_epoch_serves_the_whole_run() -> None:
    sampler = proxy_filter(rows_with([[1.0, 4.0, 2.0, 3.0]]))
    assert [sampler.draw().rows.tolist() for _ in range(6)] == [[1, 3]] * 6


@pytest.mark.parametrize(
    ("keep", "n_drawn"), [(0.5, 6), (1.0, 3), (0.4, 8), (0.25, 12), (0.2, 15), (0.1, 20)]
)
def test_hardest_are_kept_of_a_batch_over_keep(keep: float, n_drawn: int) -> None:
    rows = rows_with([[float(row) for row in range(20)]], n_rows=20)
    sampler = proxy_filter(rows, batch_size=3, keep=keep)
    order: list[int] = sampler.state_dict()["stream"]["order"].tolist()
    assert sampler.draw().rows.tolist() == sorted(order[:n_drawn])[:-4:-1]
    if 2 * n_drawn <= 20:
        assert sampler.draw().rows.tolist() == sorted(order[n_drawn : 2 * n_drawn])[:-4:-1]


def test_keeping_all_sees_every_row_of_an_epoch() -> None:
    sampler = proxy_filter(keep=1.0)
    for epoch in (1, 2):
        sampler.start_epoch(epoch)
        drawn = sampler.draw().rows.tolist() + sampler.draw().rows.tolist()
        assert sorted(drawn) == [0, 1, 2, 3]


def test_rows_without_a_reference_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ProxyFilter.*Give Rows a reference"):
        proxy_filter(flat_rows(torch.zeros(4, 1)))
    with pytest.raises(ConfigError, match="reference with a trajectory"):
        proxy_filter(rows_with(None))
    assert ProxyFilter.wants_reference({})


def test_run_of_unknown_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ProxyFilter.*total_steps"):
        proxy_filter(total_steps=None)


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, math.nan, math.inf])
def test_share_kept_out_of_its_range_is_refused(keep: float) -> None:
    with pytest.raises(ConfigError, match=f"keep must be above 0.*keep={keep}"):
        proxy_filter(keep=keep)

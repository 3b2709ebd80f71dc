"""Rho loss: the most reducible rows of a bank by hand, and how many rows are sent forward."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.methods.rho_loss import RhoLoss
from impon_hpo.sampling.reference import Reference
from tests.sampling.courses import deep_model, field, flat_rows


class Scored:
    """RhoLoss on rows whose losses are given; keeps the banks that it sends forward."""

    def __init__(self, losses: list[float], reference: list[float], **given: Any) -> None:
        self.losses = torch.tensor(losses)
        self.banks: list[list[int]] = []
        probabilities = torch.full((len(losses), 2), 0.5)
        rows = replace(
            flat_rows(torch.zeros(len(losses), 1)),
            reference=Reference(torch.tensor(reference), probabilities),
        )
        usual: dict[str, Any] = {"batch_size": 2, "model": deep_model()}
        self.sampler = RhoLoss(rows, **(usual | given))
        self.sampler.start_epoch(1)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.banks.append(rows.tolist())
        return self.losses[rows], torch.zeros(len(rows), 2)


def plain(n_rows: int, **given: Any) -> Scored:
    return Scored([float(row) for row in range(n_rows)], [0.0] * n_rows, **given)


def test_most_reducible_rows_are_those_worked_by_hand() -> None:
    # Excess: 0.5, 3, 0.1, 1.75, -0.5, 0.4; row 0 is hard, and known to stay so.
    given = Scored([5, 4, 3, 2, 1, 0.5], [4.5, 1, 2.9, 0.25, 1.5, 0.1])
    draw = given.sampler.draw(given.forward)
    assert draw.rows.tolist() == [1, 3]
    assert field(draw.scores).tolist() == pytest.approx([3, 1.75])
    assert draw.weights is None
    given.losses = torch.tensor([4.5, 1.0, 3.0, 0.25, 1.75, 0.5])  # 0, 0, 0.1, 0, 0.25, 0.4
    assert given.sampler.draw(given.forward).rows.tolist() == [5, 4]


def test_choice_is_made_within_the_bank() -> None:
    given = plain(12, ratio=1 / 3)
    for _ in range(4):
        picked = given.sampler.draw(given.forward).rows.tolist()
        assert picked == sorted(given.banks[-1])[:-3:-1]


@pytest.mark.parametrize(
    ("ratio", "n_sent"),
    [(0.1, 80), (0.5, 16), (0.3, 27), (1.0, 8), (0.08, 100), (0.05, 100), (1e-9, 100)],
)
def test_bank_is_a_batch_over_the_ratio_or_all_rows(ratio: float, n_sent: int) -> None:
    given = plain(100, batch_size=8, ratio=ratio)
    for _ in range(3):
        given.sampler.draw(given.forward)
    assert [len(bank) for bank in given.banks] == [n_sent] * 3
    assert all(len(set(bank)) == n_sent for bank in given.banks)


def test_default_bank_is_ten_batches() -> None:
    given = plain(100, batch_size=3)
    given.sampler.draw(given.forward)
    assert len(given.banks[0]) == 30


def test_banks_are_taken_from_shuffled_epochs() -> None:
    given = plain(60, batch_size=4, ratio=0.2)
    epochs = []
    for epoch in (1, 2):
        given.sampler.start_epoch(epoch)
        given.banks.clear()
        for _ in range(3):
            given.sampler.draw(given.forward)
        epochs.append([row for bank in given.banks for row in bank])
        assert sorted(epochs[-1]) == list(range(60))
    assert epochs[0] != epochs[1]


def test_draw_without_a_forward_pass_is_refused() -> None:
    given = plain(20)
    with pytest.raises(ConfigError, match=r"RhoLoss.*draw\(forward\)"):
        given.sampler.draw()


def test_rows_without_a_reference_are_refused_and_wanted() -> None:
    with pytest.raises(ConfigError, match=r"RhoLoss.*Give Rows a reference"):
        RhoLoss(flat_rows(torch.zeros(20, 1)), batch_size=2, model=deep_model())
    assert RhoLoss.wants_reference({})


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_ratio_out_of_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match=f"ratio must be above 0.*ratio={ratio}"):
        plain(20, ratio=ratio)


def test_loss_that_is_no_number_is_not_picked() -> None:
    given = Scored([5.0, math.nan, math.inf, 6.0], [0.0] * 4, ratio=0.5)
    assert given.sampler.draw(given.forward).rows.tolist() == [3, 0]

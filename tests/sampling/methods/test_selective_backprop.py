"""Selective backprop: percentiles and probabilities by hand, order of the batch, and its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.history import RecentLosses
from impon_hpo.sampling.methods.selective_backprop import SelectiveBackprop
from tests.sampling.courses import (
    Course,
    assert_finite,
    assert_same,
    assert_well_formed,
    deep_model,
    flat_rows,
    rows_of,
    through_a_file,
)

CPU = torch.device("cpu")


class Told:
    """A forward pass that gives each row the loss it was told, and notes the rows it is given."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = torch.tensor(losses)
        self.calls: list[list[int]] = []

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(rows.tolist())
        return self.losses[rows], torch.zeros(len(rows), 2)


def sampler_of(n_rows: int, batch_size: int, **given: Any) -> SelectiveBackprop:
    settings: dict[str, Any] = {"batch_size": batch_size, "model": deep_model()}
    return SelectiveBackprop(flat_rows(torch.zeros(n_rows, 1)), **(settings | given))


def scoring(n_rows: int, batch_size: int, **given: Any) -> SelectiveBackprop:
    """A sampler past its first epoch, with an empty history."""
    sampler = sampler_of(n_rows, batch_size, **given)
    sampler.start_epoch(2)
    return sampler


def percentile(history: RecentLosses, *losses: float) -> list[float]:
    result: list[float] = history.percentile(torch.tensor(losses)).tolist()
    return result


def test_percentiles_are_those_worked_by_hand() -> None:
    history = RecentLosses(4, CPU)
    history.add(torch.tensor([1.0, 2.0, 3.0]))
    assert percentile(history, 0.5, 1.0, 2.0, 2.5, 3.5) == pytest.approx([0, 0, 1 / 3, 2 / 3, 1])
    # 1 goes out: 2, 3, 5, 0 are left.
    history.add(torch.tensor([math.nan, 5.0, math.inf, 0.0, -math.inf]))
    assert percentile(history, 0.0, 2.0, 3.0, 4.0, 5.0, 9.0) == [0, 0.25, 0.5, 0.75, 0.75, 1]
    # More than it remembers: 12 … 15 are left.
    history.add(torch.tensor([10.0, 11.0, 12.0, 13.0, 14.0, 15.0]))
    assert percentile(history, 11.0, 12.0, 13.0, 14.0, 15.0) == [0, 0, 0.25, 0.5, 0.75]


def test_losses_equal_to_remembered_ones_do_not_count_as_higher() -> None:
    history = RecentLosses(8, CPU)
    history.add(torch.tensor([1.0, 1.0, 1.0, 4.0]))
    assert percentile(history, 1.0, 4.0) == [0, 0.75]


def test_losses_that_are_not_finite_have_the_lowest_percentile() -> None:
    history = RecentLosses(4, CPU)
    history.add(torch.tensor([1.0, 2.0]))
    assert percentile(history, math.nan, math.inf, -math.inf, 3.0) == [0, 0, 0, 1]


def test_percentile_is_one_before_anything_is_remembered() -> None:
    history = RecentLosses(4, CPU)
    assert percentile(history, 0.0, 3.0) == [1, 1]
    history.add(torch.tensor([math.nan, math.inf]))
    assert percentile(history, 0.0, 3.0) == [1, 1]


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 1.0), (1.0, 0.375), (2.0, 0.21875)])
def test_share_accepted_is_that_worked_by_hand(beta: float, expected: float) -> None:
    # Percentiles 0, ¼, ½, ¾ at every step, since the history is the bank just scored.
    sampler = scoring(4, 1, beta=beta, history_size=4, bank_size=4)
    forward = Told([3.0, 1.0, 4.0, 2.0])
    for _ in range(2000):
        sampler.draw(forward)
    assert sampler.diagnostics()["share_accepted"] == pytest.approx(expected, abs=0.02)


def test_share_accepted_begins_anew_each_epoch() -> None:
    sampler = sampler_of(4, 1, beta=0.0, bank_size=4)
    sampler.start_epoch(1)
    sampler.draw(Told([1.0] * 4))
    assert math.isnan(sampler.diagnostics()["share_accepted"])
    sampler.start_epoch(2)
    sampler.draw(Told([1.0] * 4))
    assert sampler.diagnostics()["share_accepted"] == 1
    sampler.start_epoch(3)
    assert math.isnan(sampler.diagnostics()["share_accepted"])


def share_of_row_one(sampler: SelectiveBackprop) -> float:
    forward = Told([1.0, 2.0])
    picked = torch.cat([sampler.draw(forward).rows for _ in range(4000)])
    return float(picked.double().mean())


def test_row_nearest_to_acceptance_fills_the_batch() -> None:
    # Row 1 is kept with probability ½, row 0 never; where none is, row 1 is nearer in ¾ of cases.
    sampler = scoring(2, 1, history_size=2, bank_size=2)
    assert share_of_row_one(sampler) == pytest.approx(0.5 + 0.5 * 0.75, abs=0.03)


def test_placebo_keeps_all_rows_alike() -> None:
    sampler = scoring(2, 1, history_size=2, bank_size=2)
    sampler.blind = True
    assert share_of_row_one(sampler) == pytest.approx(0.5, abs=0.03)


def test_accepted_rows_come_in_order_of_arrival() -> None:
    sampler = scoring(8, 3, beta=0.0, bank_size=8)
    forward = Told([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    for _ in range(5):
        assert sampler.draw(forward).rows.tolist() == forward.calls[-1][:3]


@pytest.mark.parametrize("n_high", [5, 3, 1])
def test_accepted_rows_come_before_all_others(n_high: int) -> None:
    # Rows of loss 0 are never accepted; the others, above 1000 losses of 1, almost surely.
    sampler = scoring(8, 3, beta=1e-4, history_size=2000, bank_size=8)
    sampler._history.add(torch.ones(1000))
    forward = Told([5.0] * n_high + [0.0] * (8 - n_high))
    for _ in range(5):
        rows = sampler.draw(forward).rows.tolist()
        high = [row for row in forward.calls[-1] if row < n_high]
        assert rows[: min(3, n_high)] == high[:3]
        assert len(set(rows)) == 3


def test_first_epoch_is_a_shuffled_epoch_without_scores() -> None:
    for told in (True, False):
        sampler = sampler_of(12, 4)
        if told:
            sampler.start_epoch(1)
        forward = Told([1.0] * 12)
        draws = [sampler.draw(forward) for _ in range(3)]
        assert sorted(row for batch in rows_of(draws) for row in batch) == list(range(12))
        assert forward.calls == []


def test_bank_is_taken_without_replacement_over_an_epoch() -> None:
    sampler = scoring(12, 2, bank_size=4)
    forward = Told([1.0] * 12)
    for _ in range(3):
        sampler.draw(forward)
    assert sorted(row for call in forward.calls for row in call) == list(range(12))


def test_losses_of_training_fill_the_history_in_the_first_epoch_only() -> None:
    sampler = sampler_of(6, 2, bank_size=3)
    forward = Told([1.0] * 6)
    sampler.start_epoch(1)
    sampler.observe(sampler.draw(forward), torch.tensor([7.0, 8.0]))
    assert sampler.state_dict()["history"]["losses"][:3].tolist() == [7, 8, 0]
    sampler.start_epoch(2)
    sampler.observe(sampler.draw(forward), torch.tensor([9.0, 9.0]))
    history = sampler.state_dict()["history"]
    assert history["losses"][:6].tolist() == [7, 8, 1, 1, 1, 0]
    assert int(history["n_added"]) == 5


@pytest.mark.parametrize(
    ("batch_size", "beta", "expected"), [(8, 1.0, 16), (8, 0.0, 8), (5, 1.5, 13), (8, 3.0, 20)]
)
def test_bank_is_by_default_so_large_that_a_batch_is_kept(
    batch_size: int, beta: float, expected: int
) -> None:
    sampler = scoring(20, batch_size, beta=beta)
    forward = Told([1.0] * 20)
    sampler.draw(forward)
    assert len(forward.calls[0]) == expected


def test_bank_of_a_batch_is_the_batch() -> None:
    sampler = scoring(10, 5, bank_size=5)
    forward = Told([float(row) for row in range(10)])
    for _ in range(4):
        assert sorted(sampler.draw(forward).rows.tolist()) == sorted(forward.calls[-1])


def test_equal_losses_leave_the_choice_to_chance() -> None:
    sampler = scoring(4, 1, bank_size=4)
    forward = Told([2.0] * 4)
    picked = torch.cat([sampler.draw(forward).rows for _ in range(4000)])
    assert (picked.bincount(minlength=4) / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert sampler.diagnostics()["share_accepted"] == 0


def test_scores_that_are_not_finite_leave_full_batches_and_a_finite_state() -> None:
    for bad in (math.nan, math.inf):
        sampler = scoring(8, 3)
        assert len(set(sampler.draw(Told([bad] * 8)).rows.tolist())) == 3
        assert sampler.diagnostics()["share_accepted"] == 1  # nothing is remembered
        sampler.draw(Told([1.0, bad] * 4))
        assert len(set(sampler.draw(Told([bad] * 8)).rows.tolist())) == 3
        assert_finite(sampler.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, r"beta must be at least 0 .*beta=-0\.1"),
        ({"beta": math.inf}, r"beta must be .*finite.*beta=inf"),
        ({"beta": math.nan}, r"beta must be .*beta=nan"),
        ({"history_size": 0}, r"history_size must be positive.*history_size=0"),
        ({"bank_size": 3}, r"between batch_size \(4\).*bank_size=3"),
        ({"bank_size": 11}, r"rows \(10\).*bank_size=11"),
    ],
)
def test_options_out_of_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampler_of(10, 4, **options)


@pytest.mark.parametrize("n_epochs", [0, 1, 3])
def test_loaded_sampler_goes_on_in_the_middle_of_an_epoch(n_epochs: int) -> None:
    saved, loaded = (Course("selective-backprop", beta=2.0, history_size=7) for _ in range(2))
    saved.epochs(n_epochs, 4)
    saved.epoch(n_epochs + 1, 2)
    loaded.sampler.load_state_dict(through_a_file(saved.sampler.state_dict()))
    following = [[course.step() for _ in range(6)] for course in (saved, loaded)]
    assert rows_of(following[0]) == rows_of(following[1])
    assert_same(saved.sampler.state_dict(), loaded.sampler.state_dict())
    for draw in following[1]:
        assert_well_formed(draw, loaded)

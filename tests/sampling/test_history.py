"""The loss history: the last finite loss of a row, when it was seen, and what is never seen."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from impon_hpo.sampling.history import LossHistory
from tests.sampling.courses import assert_finite, assert_same, through_a_file


def history_of(n_rows: int, *, repeats: bool = False) -> LossHistory:
    return LossHistory(n_rows, torch.device("cpu"), repeats=repeats)


def note(history: LossHistory, losses: dict[int, float], step: int) -> None:
    history.update(torch.tensor(list(losses)), torch.tensor(list(losses.values())), step)


def assert_last(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=0, equal_nan=True)


def test_nothing_is_seen_at_first() -> None:
    history = history_of(3)
    assert_last(history.last, [0.0] * 3)
    assert history.seen_at.tolist() == [-1, -1, -1]
    assert history.last.dtype == torch.float32
    assert history.seen_at.dtype == torch.int32


def test_the_last_loss_and_its_step_are_kept() -> None:
    history = history_of(4)
    note(history, {2: 0.5, 0: 3.0}, step=0)
    note(history, {0: 1.25, 3: -2.0}, step=7)
    assert_last(history.last, [1.25, 0.0, 0.5, -2.0])
    assert history.seen_at.tolist() == [7, -1, 0, 7]


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_changes_nothing(bad: float, repeats: bool) -> None:
    history = history_of(3, repeats=repeats)
    note(history, {0: 1.0}, step=1)
    note(history, {0: bad, 1: bad, 2: 4.0}, step=2)
    assert_last(history.last, [1.0, 0.0, 4.0])
    assert history.seen_at.tolist() == [1, -1, 2]


def test_loss_too_large_to_be_kept_changes_nothing() -> None:
    history = history_of(1)
    history.update(torch.tensor([0]), torch.tensor([1e300], dtype=torch.float64), 5)
    assert_last(history.last, [0.0])
    assert history.seen_at.tolist() == [-1]


def test_row_that_stands_several_times_keeps_its_highest_finite_loss() -> None:
    history = history_of(3, repeats=True)
    note(history, {0: 9.0, 2: 9.0}, step=1)
    rows = torch.tensor([0, 1, 0, 1, 0, 2, 2])
    losses = torch.tensor([1.0, math.nan, 2.0, 0.5, math.inf, math.nan, -math.inf])
    history.update(rows, losses, 3)
    assert_last(history.last, [2.0, 0.5, 9.0])
    assert history.seen_at.tolist() == [3, 3, 1]


@pytest.mark.parametrize(
    ("unseen", "expected"),
    [(7.0, [7.0, 2.0, 7.0]), (torch.tensor([4.0, 5.0, 6.0]), [4.0, 2.0, 6.0])],
)
def test_rows_never_seen_can_be_filled(unseen: float | Tensor, expected: list[float]) -> None:
    history = history_of(3)
    note(history, {1: 2.0}, step=0)
    filled = history.filled(unseen)
    assert filled.dtype == torch.float32
    assert filled.tolist() == expected
    assert_last(history.last, [0.0, 2.0, 0.0])  # which filling leaves as it is


def test_state_is_finite_and_brings_back_rows_never_seen() -> None:
    saved, loaded = history_of(4), history_of(4)
    note(saved, {1: 2.5, 3: 0.0}, step=6)
    note(loaded, {0: 8.0, 1: 8.0}, step=9)  # to be forgotten
    state = saved.state_dict()
    assert_finite(state)
    loaded.load_state_dict(through_a_file(state))
    assert_last(loaded.last, [0.0, 2.5, 0.0, 0.0])
    assert loaded.seen_at.tolist() == [-1, 6, -1, 6]


def test_state_stays_as_saved() -> None:
    saved, loaded = history_of(2), history_of(2)
    note(saved, {0: 1.0}, step=0)
    state = saved.state_dict()
    kept = through_a_file(state)
    loaded.load_state_dict(state)
    for history in (saved, loaded):
        note(history, {0: 5.0, 1: 6.0}, step=3)
    assert_same(state, kept)


LOSSES = st.floats(-100, 100, width=32) | st.sampled_from([math.nan, math.inf, -math.inf])
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 5), LOSSES), min_size=1, max_size=8))


@given(batches=BATCHES)
@settings(max_examples=60)
def test_history_is_that_of_a_plain_dictionary(batches: list[list[tuple[int, float]]]) -> None:
    history = history_of(6, repeats=True)
    last: dict[int, float] = {}
    seen_at: dict[int, int] = {}
    for step, batch in enumerate(batches):
        rows, losses = zip(*batch, strict=True)
        history.update(torch.tensor(rows), torch.tensor(losses), step)
        for row in set(rows):
            finite = [loss for at, loss in batch if at == row and math.isfinite(loss)]
            if finite:
                last[row], seen_at[row] = max(finite), step
    assert_last(history.last, [last.get(row, 0.0) for row in range(6)])
    assert history.seen_at.tolist() == [seen_at.get(row, -1) for row in range(6)]


@given(batches=BATCHES)
@settings(max_examples=60)
def test_without_repeats_it_is_the_same_history(batches: list[list[tuple[int, float]]]) -> None:
    single, repeated = history_of(6), history_of(6, repeats=True)
    for step, batch in enumerate(batches):
        for history in (single, repeated):
            note(history, dict(batch), step)
    assert_same(single.state_dict(), repeated.state_dict())

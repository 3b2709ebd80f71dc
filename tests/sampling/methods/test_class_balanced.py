"""Class balanced: the share of each class, the order of its rows, and what continues."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.sampling.methods.class_balanced import ClassBalanced
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import Course, rows_of, through_a_file

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)


def sampler_of(sizes: list[int], batch_size: int, seed: int = 0) -> ClassBalanced:
    """A sampler over classes of these sizes, whose rows are mixed."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    rows = Rows(torch.zeros(len(labels), 1), labels[mixed], len(sizes))
    model = torch.nn.Linear(1, len(sizes))
    sampler = ClassBalanced(rows, batch_size=batch_size, model=model, seed=seed)
    sampler.start_epoch(1)
    return sampler


def drawn(sampler: ClassBalanced, n_steps: int) -> list[int]:
    return [row for _ in range(n_steps) for row in sampler.draw().rows.tolist()]


@given(sizes=SIZES, seed=st.integers(0, 2**31 - 1), data=st.data())
@settings(max_examples=40)
def test_classes_come_in_rounds_and_rows_of_a_class_in_turns(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    batch_size = data.draw(st.integers(1, sum(sizes)))
    sampler = sampler_of(sizes, batch_size, seed)
    rows = drawn(sampler, 3 * sum(sizes) // batch_size + 1)
    labels = sampler.rows.labels[rows].tolist()
    present = {label for label, size in enumerate(sizes) if size}
    n = len(present)
    for start in range(0, len(rows) - n + 1, n):
        assert set(labels[start : start + n]) == present
    for label in present:
        own = [row for row, given in zip(rows, labels, strict=True) if given == label]
        size = sizes[label]
        turns = [own[start : start + size] for start in range(0, len(own), size)]
        assert all(len(set(turn)) == len(turn) for turn in turns)


@pytest.mark.parametrize(("sizes", "batch_size"), [([4000, 200, 80], 30), ([50, 3], 7)])
def test_every_class_fills_its_share_of_each_batch(sizes: list[int], batch_size: int) -> None:
    sampler = sampler_of(sizes, batch_size)
    share = batch_size / len(sizes)
    for _ in range(60):
        counts = sampler.rows.labels[sampler.draw().rows].bincount(minlength=len(sizes))
        # A batch begins and ends within a round.
        assert all(abs(count - share) < 2 for count in counts.tolist())
        if batch_size % len(sizes) == 0:
            assert set(counts.tolist()) == {share}
    assert sampler.diagnostics()["class_balance"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("batch_size", [8, 30, 32])
def test_with_classes_of_equal_size_every_row_is_visited_once_an_epoch(batch_size: int) -> None:
    sampler = sampler_of([24] * 10, batch_size)
    rows: list[int] = []
    for epoch in range(1, 5):
        sampler.start_epoch(epoch)
        rows += drawn(sampler, 240 // batch_size)
    turns = [rows[start : start + 240] for start in range(0, len(rows), 240)]
    assert all(len(set(turn)) == len(turn) for turn in turns)
    assert turns[0] != turns[1]
    visits = Counter(rows)
    assert len(visits) == 240
    assert max(visits.values()) - min(visits.values()) <= 1


def test_a_rare_class_repeats_its_rows_and_a_frequent_one_does_not() -> None:
    sampler = sampler_of([100, 2], 20)
    rows = sampler.draw().rows
    rare = rows[sampler.rows.labels[rows] == 1].tolist()
    frequent = rows[sampler.rows.labels[rows] == 0].tolist()
    assert sorted(Counter(rare).values()) == [5, 5]
    assert len(set(frequent)) == 10


def test_rows_of_a_class_come_in_another_order_each_time() -> None:
    sampler = sampler_of([40, 40], 80)
    turns = [tuple(row for row in drawn(sampler, 1)) for _ in range(5)]
    assert len(set(turns)) == 5
    firsts = Counter(sampler_of([4, 4, 4], 3, seed).draw().rows[0].item() for seed in range(600))
    # Each of 12 rows comes first with probability 1/12: 50 ± 6.8.
    assert len(firsts) == 12
    assert all(abs(count - 50) < 4.5 * 6.8 for count in firsts.values())


@pytest.mark.parametrize("n_before", [1, 2, 7, 31])
def test_it_continues_in_the_middle_of_a_turn_with_the_same_rows(n_before: int) -> None:
    whole, begun, continued = (sampler_of([70, 9, 1], 13) for _ in range(3))
    expected = drawn(whole, n_before + 40)
    drawn(begun, n_before)
    continued.load_state_dict(through_a_file(begun.state_dict()))
    assert drawn(continued, 40) == expected[13 * n_before :]


def test_it_needs_no_forward_pass_and_no_weights() -> None:
    course = Course("class-balanced")
    draws = course.epochs(2, 40)
    assert course.rows_scored == 0
    assert all(draw.weights is None and draw.scores is None for draw in draws)
    assert len(rows_of(draws)) == 80

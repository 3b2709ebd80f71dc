"""Impon paced: the easiest share first, and then uniform epochs or the most reducible rows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Draw
from impon_hpo.sampling.methods.impon_paced import ImponPaced
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import deep_model, field, flat_rows, rows_of

N = 18
LOSS = [float((row - 5) % N) for row in range(N)]
"""Row 5 is the easiest, then 6 … 17, 0 … 4."""
EASIEST = [*range(5, N), *range(5)]
MODEL = deep_model()


def rows_with(loss: list[float]) -> Rows:
    reference = Reference(torch.tensor(loss), torch.full((len(loss), 2), 0.5))
    return replace(flat_rows(torch.zeros(len(loss), 1)), reference=reference)


def paced(loss: list[float] | None = None, *, blind: bool = False, **given: Any) -> ImponPaced:
    """Batches of 2 of 18 rows over 9 steps: 6, 12, then all rows are open."""
    usual: dict[str, Any] = {"batch_size": 2, "model": MODEL, "pacing": 2 / 9, "total_steps": 9}
    usual["balance"] = False
    sampler = ImponPaced(rows_with(LOSS if loss is None else loss), **(usual | given))
    sampler.blind = blind
    sampler.start_epoch(1)
    return sampler


def reducible(loss: list[float], **given: Any) -> ImponPaced:
    """From the first step on by the last seen loss - reference, of a bank of all rows."""
    usual: dict[str, Any] = {"easiest": 1.0, "then": "reducible", "bank_size": len(loss)}
    return paced(loss, **(usual | given))


def tell(sampler: ImponPaced, losses: dict[int, float]) -> None:
    sampler.observe(Draw(torch.tensor(list(losses))), torch.tensor(list(losses.values())))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [6, 12, 18]),
        ({"easiest": 0.5, "pacing": 1.0, "total_steps": 3}, [9, 12, 15, 18]),
        ({"easiest": 0.5, "shape": "step"}, [9, 9, 18]),
        # √(¼ + ¾ · ½) of 18 rows: 14.2.
        ({"easiest": 0.5, "shape": "root"}, [9, 14, 18]),
        ({"easiest": 0.01}, [2, 9]),  # at least a batch; 0.505 of 18
        ({"easiest": 1.0, "then": "reducible"}, [18]),
    ],
)
def test_easiest_rows_are_open_as_worked_by_hand(
    given: dict[str, Any], expected: list[int]
) -> None:
    result: list[Counter[int]] = [Counter() for _ in expected]
    for seed in range(100):
        sampler = paced(seed=seed, **given)
        for counts in result:
            batch = sampler.draw().rows.tolist()
            assert len(set(batch)) == 2
            counts.update(batch)
    for counts, n_open in zip(result, expected, strict=True):
        assert set(counts) == set(EASIEST[:n_open])


def test_epochs_are_shuffled_once_all_rows_are_open() -> None:
    sampler = paced()
    for _ in range(2):
        sampler.draw()
    epochs = []
    for epoch in (2, 3, 4):
        sampler.start_epoch(epoch)
        batches = rows_of([sampler.draw() for _ in range(9)])
        epochs.append([row for batch in batches for row in batch])
    assert [sorted(epoch) for epoch in epochs] == [list(range(N))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_losses_do_not_matter_to_uniform_epochs() -> None:
    told, left_alone = paced(easiest=1.0), paced(easiest=1.0)
    tell(told, {0: 100.0, 1: 0.0})
    assert rows_of([told.draw() for _ in range(9)]) == rows_of(
        [left_alone.draw() for _ in range(9)]
    )


def test_most_reducible_rows_are_those_worked_by_hand() -> None:
    sampler = reducible([1.0, 1.0, 0.3, 0.1, 9.0, 4.5], batch_size=3)
    tell(sampler, {0: 3.0, 1: 0.5, 5: 5.0})
    tell(sampler, {3: 1.1})
    # Seen - reference: 2, -0.5, 0 (never seen), 1, 0 (never seen), 0.5.
    draw = sampler.draw()
    assert draw.rows.tolist() == [0, 3, 5]
    assert field(draw.scores).tolist() == pytest.approx([2, 1, 0.5])
    tell(sampler, {0: 0.5, 3: math.nan, 4: 10.25})
    # -0.5, -0.5, 0, 1 (nan is not learnt from), 1.25, 0.5.
    assert sampler.draw().rows.tolist() == [4, 3, 5]


def test_losses_seen_while_pacing_count_afterwards() -> None:
    given: dict[str, Any] = {"easiest": 0.5, "shape": "step", "then": "reducible", "bank_size": 4}
    sampler, losses = paced([0.1, 0.2, 5.0, 6.0], **given), torch.tensor([0.6, 0.5, 0.0, 0.0])
    for _ in range(2):
        draw = sampler.draw()
        assert sorted(draw.rows.tolist()) == [0, 1]
        sampler.observe(draw, losses[draw.rows])
    draw = sampler.draw()  # rows 2 and 3 have never been seen
    assert draw.rows.tolist() == [0, 1]
    assert field(draw.scores).tolist() == pytest.approx([0.5, 0.3])


def test_bank_is_taken_from_shuffled_epochs() -> None:
    sampler = reducible([0.0] * 12, bank_size=6, batch_size=2)
    tell(sampler, {row: float(row) for row in range(12)})
    order: list[int] = sampler.state_dict()["stream"]["order"].tolist()
    for bank in (order[:6], order[6:]):
        assert sampler.draw().rows.tolist() == sorted(bank)[:-3:-1]


def test_default_bank_is_two_batches_or_all_rows() -> None:
    assert paced(batch_size=5).bank_size == 10
    assert paced(batch_size=12).bank_size == 18


def test_blind_run_opens_as_many_rows_but_any() -> None:
    counts: Counter[int] = Counter()
    for seed in range(400):
        sampler = paced(seed=seed, blind=True, easiest=1 / 3, pacing=1.0, shape="step")
        drawn = {row for batch in rows_of([sampler.draw() for _ in range(9)]) for row in batch}
        assert len(drawn) <= 6
        counts.update(drawn)
    # Every row is as likely as any other; a run sees about 5.8 of 18.
    mean = counts.total() / N
    assert mean > 100
    assert all(abs(counts[row] - mean) < 4.5 * math.sqrt(mean) for row in range(N))


def test_rows_without_a_reference_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"ImponPaced.*Give Rows a reference"):
        ImponPaced(flat_rows(torch.zeros(N, 1)), batch_size=2, model=MODEL, total_steps=9)
    assert ImponPaced.wants_reference({})


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"total_steps": None}, "ImponPaced.*total_steps"),
        ({"easiest": 0.0}, r"above 0 and at most 1, but got \w+=0\.0"),
        ({"easiest": 1.5}, r"above 0 and at most 1, but got \w+=1\.5"),
        ({"pacing": 0.0}, r"above 0 and at most 1, but got \w+=0\.0"),
        ({"pacing": math.nan}, r"above 0 and at most 1, but got \w+=nan"),
        ({"shape": "sudden"}, "'linear', 'root', 'step'.*'sudden'"),
        ({"then": "nothing"}, "then must be one of 'uniform', 'reducible'.*'nothing'"),
        ({"bank_size": 1}, r"batch_size \(2\).*bank_size=1\."),
        ({"bank_size": 19}, r"\(18\).*bank_size=19\."),
    ],
)
def test_option_out_of_its_range_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        paced(**given)


def test_open_rows_have_the_classes_in_proportion() -> None:
    # Labels alternate; all rows of class 0 are easier than all of class 1.
    loss = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]
    for balance, expected in ((True, {0, 2, 7, 5}), (False, {0, 2, 4, 6})):
        drawn: set[int] = set()
        for seed in range(30):
            given: dict[str, Any] = {"easiest": 0.5, "pacing": 1.0, "shape": "step"}
            drawn |= set(paced(loss, seed=seed, balance=balance, **given).draw().rows.tolist())
        assert drawn == expected

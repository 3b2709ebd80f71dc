"""Curriculum: only the easiest share is drawn from, it widens, and then epochs are shuffled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.methods.curriculum import Curriculum
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import deep_model, flat_rows, rows_of

N = 20
LOSS = torch.arange(float(N)).roll(7)
"""Row 7 is the easiest, then 8 … 19, 0 … 6."""
EASIEST = [*range(7, N), *range(7)]
MODEL = deep_model()


def rows_with_reference() -> Rows:
    return replace(
        flat_rows(torch.arange(float(N))[:, None]),
        reference=Reference(LOSS, torch.full((N, 2), 0.5)),
    )


def curriculum(rows: Rows | None = None, *, blind: bool = False, **given: Any) -> Curriculum:
    """Batches of 2 of 20 rows over 10 steps, all rows open from step 5 on."""
    usual: dict[str, Any] = {"batch_size": 2, "model": MODEL, "total_steps": 10}
    sampler = Curriculum(rows_with_reference() if rows is None else rows, **(usual | given))
    sampler.blind = blind
    sampler.start_epoch(1)
    return sampler


def drawn_at(n_steps: int, n_seeds: int = 100, **given: Any) -> list[Counter[int]]:
    """Count the rows drawn at each step over many seeds."""
    result: list[Counter[int]] = [Counter() for _ in range(n_steps)]
    for seed in range(n_seeds):
        sampler = curriculum(seed=seed, **given)
        for counts in result:
            batch = sampler.draw().rows.tolist()
            assert len(set(batch)) == len(batch)
            counts.update(batch)
    return result


def minus(inputs: Tensor) -> Tensor:
    return -inputs[:, 0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # 0.2 + 0.8 · step / 5 of 20 rows.
        ({}, [4, 7, 10, 14, 17, 20]),
        ({"shape": "step", "start": 0.3, "end": 0.2}, [6, 6, 20]),
        # √(0.36 + 0.64 · step / 2) of 20 rows: 12, 16.5.
        ({"shape": "root", "start": 0.6, "end": 0.2}, [12, 16, 20]),
        ({"start": 1.0}, [20]),
        ({"start": 0.01, "end": 1.0}, [2]),  # at least a batch
    ],
)
def test_easiest_rows_are_open_as_worked_by_hand(
    given: dict[str, Any], expected: list[int]
) -> None:
    for counts, n_open in zip(drawn_at(len(expected), **given), expected, strict=True):
        assert set(counts) == set(EASIEST[:n_open])


def test_open_rows_are_equally_likely() -> None:
    counts = drawn_at(1, n_seeds=600)[0]
    # 600 batches of 2 of 4 rows: 300 ± 12.2 each.
    assert [counts[row] for row in EASIEST[:4]] == pytest.approx([300] * 4, abs=50)


@pytest.mark.parametrize("difficulty", [minus, f"{__name__}:minus"])
def test_difficulty_can_be_a_function_of_the_prepared_inputs(
    difficulty: str | Callable[[Tensor], Tensor],
) -> None:
    plain = flat_rows(torch.arange(float(N))[:, None])
    assert set(drawn_at(1, rows=plain, difficulty=difficulty)[0]) == {16, 17, 18, 19}
    prepared = replace(plain, prepare=lambda inputs: (inputs - 12).abs())
    result = drawn_at(1, rows=prepared, difficulty=difficulty)[0]
    assert set(result) == {0, 1, 2, 3}  # the farthest from 12: 12, 11, 10, 9


def test_many_rows_are_read_in_parts() -> None:
    sizes: list[int] = []

    def difficulty(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return inputs[:, 0]

    rows = flat_rows(torch.arange(5000.0).flip(0)[:, None])
    sampler = curriculum(rows, difficulty=difficulty, start=0.0004)
    assert sizes == [4096, 904]
    assert set(sampler.draw().rows.tolist()) == {4998, 4999}


def test_equally_difficult_rows_keep_their_order() -> None:
    rows = flat_rows(torch.zeros(N, 1))
    assert set(drawn_at(1, rows=rows, difficulty=minus)[0]) == {0, 1, 2, 3}


def test_epochs_are_shuffled_once_all_rows_are_open() -> None:
    sampler = curriculum()
    for _ in range(5):
        sampler.draw()
    epochs = []
    for epoch in (2, 3, 4):
        sampler.start_epoch(epoch)
        batches = rows_of([sampler.draw() for _ in range(10)])
        epochs.append([row for batch in batches for row in batch])
    assert [sorted(epoch) for epoch in epochs] == [list(range(N))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_blind_run_opens_as_many_rows_but_not_the_easy_ones() -> None:
    given: dict[str, Any] = {"start": 0.2, "end": 1.0, "shape": "step", "total_steps": 40}
    sampler = curriculum(blind=True, **given)
    opened = {row for batch in rows_of([sampler.draw() for _ in range(40)]) for row in batch}
    assert len(opened) == 4
    assert opened != set(EASIEST[:4])
    counts = drawn_at(1, n_seeds=600, blind=True, **given)[0]
    # 600 batches of 2 of 20 rows: 60 ± 7.3 each.
    assert set(counts) == set(range(N))
    assert all(60 - 4.5 * 7.3 < count < 60 + 4.5 * 7.3 for count in counts.values())


def test_blind_run_that_is_continued_keeps_its_rows() -> None:
    given: dict[str, Any] = {"shape": "step", "end": 1.0, "total_steps": 100, "blind": True}
    saved, loaded = curriculum(seed=3, **given), curriculum(seed=4, **given)
    before = {row for batch in rows_of([saved.draw() for _ in range(30)]) for row in batch}
    loaded.load_state_dict(saved.state_dict())
    after = {row for batch in rows_of([loaded.draw() for _ in range(30)]) for row in batch}
    assert before == after


def test_reference_is_wanted_unless_there_is_a_function() -> None:
    assert Curriculum.wants_reference({})
    assert Curriculum.wants_reference({"difficulty": "reference", "start": 0.5})
    assert not Curriculum.wants_reference({"difficulty": minus})
    assert not Curriculum.wants_reference({"difficulty": "my_scores:difficulty"})


def test_function_needs_no_reference_but_its_absence_is_told() -> None:
    rows = flat_rows(torch.zeros(N, 1))
    assert len(curriculum(rows, difficulty=minus).draw().rows) == 2
    with pytest.raises(ConfigError, match="Give Rows a reference, or a function"):
        curriculum(rows)


def with_nan(inputs: Tensor) -> Tensor:
    return torch.where(inputs[:, 0] == 3, math.nan, inputs[:, 0])


@pytest.mark.parametrize(
    ("difficulty", "complaint"),
    [
        (lambda inputs: inputs, r"return a tensor \(rows,\)"),
        (lambda inputs: inputs.sum(), r"return a tensor \(rows,\)"),
        (lambda inputs: inputs[:, 0].tolist(), r"return a tensor \(rows,\)"),
        (lambda inputs: inputs[1:, 0], r"one finite number for each of the 20 rows.*\(19,\)"),
        (with_nan, r"one finite number for each of the 20 rows"),
        (lambda inputs: inputs[:, 0] / 0, r"one finite number for each of the 20 rows"),
        (7, "'reference' or a function, but got 7"),
        (f"{__name__}:N", "'reference' or a function"),
        (f"{__name__}:mins", "Did you mean 'minus'"),
        ("pixels", "'module:name'.*'pixels'"),
    ],
)
def test_difficulty_that_is_none_is_refused(difficulty: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        curriculum(difficulty=difficulty)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"total_steps": None}, "Curriculum.*total_steps"),
        ({"start": 0.0}, r"start=0\.0"),
        ({"start": 1.1}, r"start=1\.1"),
        ({"end": 0.0}, r"end=0\.0"),
        ({"end": math.nan}, "end=nan"),
        ({"shape": "cubic"}, "'linear', 'root', 'step'.*'cubic'"),
    ],
)
def test_option_out_of_its_range_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        curriculum(**given)

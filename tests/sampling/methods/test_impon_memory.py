"""Impon memory: its context and its choice by hand, what it learns, and what it is at its edges."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.methods.impon import Impon
from impon_hpo.sampling.methods.impon_memory import ImponMemory
from impon_hpo.sampling.methods.uniform import Uniform
from impon_hpo.sampling.reference import Reference
from impon_hpo.sampling.rows import Rows
from tests.sampling.courses import deep_model, field, flat_rows, points

N_FEATURES = 2 * 2 + 11
MODEL = deep_model()


def rows_with(loss: list[float]) -> Rows:
    probabilities = torch.tensor([[0.75, 0.25]]).expand(len(loss), 2)
    reference = Reference(torch.tensor(loss), probabilities)
    return replace(flat_rows(torch.zeros(len(loss), 1)), reference=reference)


def memory(
    rows: Rows | list[float], *, by_reference: bool = False, blind: bool = False, **given: Any
) -> ImponMemory:
    """Batches of 2, none explored, all rows open; `by_reference` predicts the reference loss."""
    usual: dict[str, Any] = {
        "batch_size": 2,
        "explore": 0.0,
        "easiest": 1.0,
        "balance": False,
        "temperature": 3.0,
        "total_steps": 10,
    }
    rows = rows_with(rows) if isinstance(rows, list) else rows
    sampler = ImponMemory(rows, model=MODEL, **(usual | given))
    sampler.blind = blind
    if by_reference:
        state = sampler.estimator.state_dict()
        state["weight"] = torch.zeros(N_FEATURES + 1, dtype=torch.float64)
        state["weight"][0] = 1.0
        sampler.estimator.load_state_dict(state)
    sampler.start_epoch(1)
    return sampler


def order_of(sampler: ImponMemory) -> list[int]:
    return [*sampler.state_dict()["stream"]["order"].tolist()]


def test_context_is_that_worked_by_hand() -> None:
    sampler = memory([0.25, 0.5, 1.0, 2.0], temperature=0.0)
    state = sampler.state_dict()
    state["steps"] = 6
    state["stream"]["order"] = torch.tensor([1, 0, 2, 3])
    state["history"]["seen_at"][1] = 1
    state["history"]["last"][1] = 2.0
    sampler.load_state_dict(state)
    context = field(sampler.draw().context)
    entropy = 0.5623351446  # of ¾ and ¼
    reference = [0.5, 0.25, entropy, 0.75, 0.25]
    # Row 1: class 1; 1.5 above its reference, five batches of half an epoch ago; 6 of 10 steps.
    moving = [1, 1.5, 1.5 * 2.5, 2.5, 0.6, 0.6 * 0.5, 0.6 * 1.5, 0.36]
    assert context[0].tolist() == pytest.approx([*reference, 0, 1, *moving])
    # Row 0: class 0; never seen.
    reference, moving = [0.25, 0.0625, entropy, 0.75, 0.25], [0, 0, 0, 0, 0.6, 0.15, 0, 0.36]
    assert context[1].tolist() == pytest.approx([*reference, 1, 0, *moving])
    assert context.shape == (2, N_FEATURES)


@given(seed=st.integers(0, 2**31 - 1), n_rows=st.integers(6, 40), batch_size=st.integers(1, 6))
@settings(max_examples=12)
def test_temperature_zero_draws_as_uniform(seed: int, n_rows: int, batch_size: int) -> None:
    common: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "total_steps": 30}
    given: dict[str, Any] = {"temperature": 0.0, "explore": 0.2, "bank_size": n_rows}
    rows = rows_with([float(row) for row in range(n_rows)])
    ours = memory(rows, by_reference=True, **common, **given)
    uniform = Uniform(rows, model=MODEL, **common)
    uniform.start_epoch(1)
    for epoch in (2, 3, 4):
        for _ in range(8):
            draw = ours.draw()
            assert draw.rows.tolist() == uniform.draw().rows.tolist()
            ours.observe(draw, draw.rows.float() + 1)
        ours.start_epoch(epoch)
        uniform.start_epoch(epoch)


SPREAD = [3.0, 0.5, 2.0, 7.0, 1.0, 4.0, 0.25, 5.0]


@pytest.mark.parametrize(
    ("temperature", "expected"), [(math.inf, [3, 7, 5]), (-math.inf, [6, 1, 4])]
)
def test_infinite_temperature_takes_the_top_or_the_bottom(
    temperature: float, expected: list[int]
) -> None:
    given: dict[str, Any] = {"temperature": temperature, "batch_size": 3, "bank_size": 8}
    draw = memory(SPREAD, by_reference=True, **given).draw()
    assert draw.rows.tolist() == expected
    assert field(draw.scores).tolist() == pytest.approx([SPREAD[row] for row in expected])


def test_bank_is_taken_from_shuffled_epochs() -> None:
    loss = [float(row) for row in range(18)]
    sampler = memory(loss, by_reference=True, temperature=math.inf)
    assert sampler.bank_size == 6  # three batches
    order = order_of(sampler)
    for start in (0, 6, 12):
        assert sampler.draw().rows.tolist() == sorted(order[start : start + 6])[:-3:-1]


@pytest.mark.parametrize(("explore", "n_explored"), [(1.0, 10), (0.3, 3), (0.26, 3), (0.04, 0)])
@pytest.mark.parametrize("temperature", [math.inf, 50.0])
def test_explored_rows_are_the_next_of_the_stream(
    temperature: float, explore: float, n_explored: int
) -> None:
    given: dict[str, Any] = {"temperature": temperature, "explore": explore, "batch_size": 10}
    sampler = memory([float(row) for row in range(60)], by_reference=True, bank_size=30, **given)
    order = order_of(sampler)
    for bank in (order[:30], order[30:]):
        picked = sampler.draw().rows.tolist()
        assert picked[:n_explored] == bank[:n_explored]
        if temperature == math.inf:
            best = sorted(bank[n_explored:], reverse=True)
            assert picked[n_explored:] == best[: 10 - n_explored]


@pytest.mark.parametrize(
    ("sign", "expected"), [(1, [2 / 7, 1 / 7, 4 / 7]), (-1, [2 / 7, 4 / 7, 1 / 7])]
)
def test_rows_are_picked_by_the_rank_of_their_prediction(sign: int, expected: list[float]) -> None:
    # T / N = ln 2: each rank is twice as likely as the one below, by however much it differs.
    given: dict[str, Any] = {"temperature": sign * 3 * math.log(2), "batch_size": 1, "bank_size": 3}
    sampler = memory([1.0, 0.99, 50.0], by_reference=True, **given)
    result = Counter(int(sampler.draw().rows) for _ in range(2000))
    # 2 degrees of freedom: 0.1 % lie above 13.8.
    wanted = [2000 * p for p in expected]
    assert sum((result[row] - n) ** 2 / n for row, n in enumerate(wanted)) < 13.8


@pytest.mark.parametrize(
    ("target", "extra", "expected"),
    [("reducible", 0.7, 0.7), ("loss", 0.7, None), ("reducible", -0.2, -0.2)],
)
def test_target_is_the_loss_above_the_reference_or_the_loss(
    target: str, extra: float, expected: float | None
) -> None:
    loss = [0.1 * row for row in range(30)]
    sampler = memory(loss, target=target, forgetting=1.0, ridge=1e-6, total_steps=200)
    for epoch in range(2, 12):
        for _ in range(8):
            draw = sampler.draw()
            sampler.observe(draw, draw.rows * 0.1 + extra)
        sampler.start_epoch(epoch)
    draw = sampler.draw()
    wanted = [loss[row] + extra if expected is None else expected for row in draw.rows.tolist()]
    assert field(draw.scores).tolist() == pytest.approx(wanted, abs=1e-3)


def test_temperature_runs_linearly() -> None:
    sampler = memory(SPREAD, temperature=2.0, temperature_end=-2.0, total_steps=4)
    result = []
    for _ in range(6):
        result.append(sampler.temperature)
        sampler.draw()
    assert result == pytest.approx([2, 1, 0, -1, -2, -2])
    assert memory(SPREAD, temperature=-1.5).temperature == -1.5
    assert memory(SPREAD, temperature=math.inf, temperature_end=math.inf).temperature == math.inf


def test_banks_are_drawn_from_the_easiest_rows_at_first() -> None:
    loss = [float((row - 5) % 20) for row in range(20)]  # row 5 is the easiest
    given: dict[str, Any] = {"easiest": 0.2, "pacing": 0.2, "bank_size": 3, "explore": 0.5}
    result: list[set[int]] = [set(), set(), set()]
    for seed in range(100):
        sampler = memory(loss, seed=seed, **given)
        for seen in result:
            seen.update(sampler.draw().rows.tolist())
    assert [sorted(seen) for seen in result[:2]] == [[5, 6, 7, 8], [*range(5, 17)]]
    assert result[2] == set(range(20))
    blind = [memory(loss, seed=at, blind=True, **given).draw().rows.tolist() for at in range(100)]
    assert {row for batch in blind for row in batch} == set(range(20))


@pytest.mark.parametrize("fallback", ["uniform", "impon"])
def test_without_a_reference_it_draws_as_told(fallback: str) -> None:
    rows = points(210)
    common: dict[str, Any] = {"batch_size": 8, "total_steps": 30, "seed": 5}
    ours = memory(rows, without_reference=fallback, explore=0.2, **common)
    kind = Uniform if fallback == "uniform" else Impon
    plain = kind(rows, model=MODEL, **common)
    plain.start_epoch(1)
    for epoch in (2, 3, 4):
        for _ in range(5):
            mine, its = ours.draw(), plain.draw()
            assert mine.rows.tolist() == its.rows.tolist()
            for sampler, draw in ((ours, mine), (plain, its)):
                sampler.observe(draw, rows.inputs[:][draw.rows, 0] * 1e6)
        ours.start_epoch(epoch)
        plain.start_epoch(epoch)


def test_fit_is_that_of_the_reducible_loss() -> None:
    sampler = memory(SPREAD, by_reference=True, batch_size=8, bank_size=8)
    draw = sampler.draw()
    sampler.observe(draw, 2 * torch.tensor(SPREAD)[draw.rows])  # above the reference by itself
    told = sampler.diagnostics()
    assert (told["rank_correlation"], told["r_squared"]) == pytest.approx((1, 1))


def test_reference_is_always_wanted() -> None:
    assert ImponMemory.wants_reference({})
    assert ImponMemory.wants_reference({"without_reference": "impon"})


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        (
            "temperature",
            math.nan,
            "must be finite, or the same infinity, but got temperature=nan",
        ),
        ("temperature_end", math.nan, r"got temperature=3\.0 and temperature_end=nan"),
        ("temperature_end", math.inf, r"got temperature=3\.0 and temperature_end=inf"),
        ("temperature_end", -math.inf, r"got temperature=3\.0 and temperature_end=-inf"),
        ("explore", -0.1, r"explore must be between 0 and 1, but got explore=-0\.1"),
        ("explore", 1.1, r"explore=1\.1"),
        ("explore", math.nan, "explore=nan"),
        ("bank_size", 1, r"batch_size \(2\).*bank_size=1\."),
        ("bank_size", 9, r"\(8\).*bank_size=9\."),
        ("target", "excess", "'reducible', 'loss'.*'excess'"),
        ("without_reference", "nothing", "'uniform', 'impon'.*'nothing'"),
        ("forgetting", 0.0, r"forgetting=0\.0"),
        ("ridge", 0.0, r"ridge=0\.0"),
        ("easiest", 0.0, r"above 0 and at most 1.*=0\.0"),
        ("pacing", 1.1, r"above 0 and at most 1.*=1\.1"),
        ("total_steps", None, "ImponMemory.*total_steps"),
    ],
)
def test_option_out_of_its_range_is_refused(option: str, value: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        memory(SPREAD, **{option: value})


@pytest.mark.parametrize("pair", [(math.inf, -math.inf), (math.inf, 0.0), (-math.inf, 1.0)])
def test_infinity_with_another_end_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=f"={pair[0]} and temperature_end={pair[1]}"):
        memory(SPREAD, temperature=pair[0], temperature_end=pair[1])


def test_banks_open_with_the_easiest_rows_of_each_class() -> None:
    # Labels alternate; all rows of class 0 are easier than all of class 1.
    loss = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]
    for balance, expected in ((True, {0, 2, 7, 5}), (False, {0, 2, 4, 6})):
        drawn: set[int] = set()
        for seed in range(40):
            sampler = memory(loss, easiest=0.5, balance=balance, bank_size=4, seed=seed)
            drawn |= set(sampler.draw().rows.tolist())
        assert drawn == expected

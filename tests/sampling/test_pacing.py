"""Pacing: the share that is open at points worked by hand, and the ranges that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.pacing import Pacing, Shape, easiest_first


@pytest.mark.parametrize(
    ("shape", "start", "end", "progress", "expected"),
    [
        ("linear", 0.2, 0.5, 0.0, 0.2),
        ("linear", 0.2, 0.5, 0.125, 0.4),
        ("linear", 0.2, 0.5, 0.25, 0.6),
        ("linear", 0.2, 0.5, 0.375, 0.8),
        ("linear", 0.5, 1.0, 0.9, 0.95),
        ("root", 0.6, 0.5, 0.0, 0.6),
        # 0.36 + 0.64 · 0.203125 = 0.49, 0.36 + 0.64 · 0.4375 = 0.64.
        ("root", 0.6, 0.5, 0.1015625, 0.7),
        ("root", 0.6, 0.5, 0.21875, 0.8),
        ("root", 0.6, 1.0, 0.4375, 0.8),
        ("step", 0.3, 0.4, 0.0, 0.3),
        ("step", 0.3, 0.4, 0.3999, 0.3),
    ],
)
def test_share_is_that_worked_by_hand(
    shape: Shape, start: float, end: float, progress: float, expected: float
) -> None:
    assert Pacing(start, end, shape).share(progress) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", ["linear", "root", "step"])
@pytest.mark.parametrize("end", [0.3, 1.0])
def test_all_rows_are_open_from_the_end_on(shape: Shape, end: float) -> None:
    pacing = Pacing(0.1, end, shape)
    assert pacing.share(end) == 1.0
    assert pacing.share(1.0) == 1.0
    assert pacing.share(end - 1e-3) < 1.0


@pytest.mark.parametrize("shape", ["linear", "root", "step"])
@given(progress=st.floats(0, 1))
@settings(max_examples=20)
def test_all_rows_are_open_all_the_time_where_all_are_at_first(
    shape: Shape, progress: float
) -> None:
    assert Pacing(1.0, 0.7, shape).share(progress) == 1.0


@given(
    start=st.floats(0.01, 1),
    end=st.floats(0.01, 1),
    points=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=60)
def test_share_widens_and_the_root_is_ahead(
    start: float, end: float, points: tuple[float, float]
) -> None:
    earlier, later = sorted(points)
    found: dict[Shape, float] = {}
    shapes: tuple[Shape, ...] = ("linear", "root", "step")
    for shape in shapes:
        pacing = Pacing(start, end, shape)
        found[shape] = pacing.share(earlier)
        assert start - 1e-9 <= found[shape] <= pacing.share(later) + 1e-9 <= 1 + 2e-9
    assert found["step"] - 1e-9 <= found["linear"] <= found["root"] + 1e-9


def test_linear_is_the_default() -> None:
    assert Pacing(0.2, 0.5) == Pacing(0.2, 0.5, "linear")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"start": 0.0}, r"start must be above 0 and at most 1, but got start=0\.0\."),
        ({"start": 1.1}, r"start=1\.1"),
        ({"start": math.nan}, "start=nan"),
        ({"end": 0.0}, r"end must be above 0 and at most 1, but got end=0\.0\."),
        ({"end": -0.5}, r"end=-0\.5"),
        ({"end": 2}, "end=2"),
    ],
)
def test_pacing_out_of_its_range_is_refused(options: dict[str, Any], complaint: str) -> None:
    usual: dict[str, Any] = {"start": 0.5, "end": 0.5}
    with pytest.raises(ConfigError, match=complaint):
        Pacing(**(usual | options))


def test_order_by_difficulty_alone_and_within_classes() -> None:
    difficulty = torch.tensor([5.0, 1.0, 3.0, 2.0, 9.0, 8.0])
    assert easiest_first(difficulty).tolist() == [1, 3, 2, 0, 5, 4]
    # Class 0 has rows 0 (5), 1 (1), 2 (3), 3 (2): shares 7/8, 1/8, 5/8, 3/8; class 1 has 4 (9)
    # and 5 (8): 3/4 and 1/4.
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    assert easiest_first(difficulty, labels).tolist() == [1, 5, 3, 2, 4, 0]


def test_class_without_rows_is_no_obstacle() -> None:
    assert easiest_first(torch.tensor([2.0, 1.0]), torch.tensor([3, 3])).tolist() == [1, 0]

"""Checks of options: each bound, and messages that name the option and what was given."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, Unpack

import pytest

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.checks import (
    Common,
    check_between,
    check_literals,
    check_positive,
    check_share,
    options_of,
)
from impon_hpo.sampling.rows import Rows


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


class Picking:
    def __init__(
        self,
        rows: Rows,
        *,
        pick: Literal["top", "bottom"] = "top",
        order: Literal[1, -1] | None = None,
        size: int = 3,
        **common: Unpack[Common],
    ) -> None: ...


@pytest.mark.parametrize("value", ["top", "bottom"])
def test_value_of_a_literal_is_fine(value: str) -> None:
    check_literals(Picking, {"pick": value, "size": 7, "batch_size": 2})


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("Top", "top"),
        ("", None),
        ("to", "top"),
        ("top ", "top"),
        ("botom", "bottom"),
        ("random", None),
        (None, None),
    ],
)
def test_other_value_of_a_literal_is_refused(value: Any, meant: str | None) -> None:
    hint = f" Did you mean '{meant}'?" if meant else ""
    message = f"pick must be one of 'top', 'bottom', but got pick={value!r}.{hint}"
    with pytest.raises(ConfigError, match=exactly(message)):
        check_literals(Picking, {"size": 1, "pick": value})


def test_options_are_those_beside_what_all_take_with_their_types() -> None:
    assert list(options_of(Picking)) == ["pick", "order", "size"]
    assert options_of(Picking)["size"] is int


@pytest.mark.parametrize("value", [5e-324, 1, 0.5, 1e308])
def test_positive_number_is_fine(value: float) -> None:
    check_positive("lr", value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (-0.0, "-0.0"), (-1e-9, "-1e-09"), (math.inf, "inf"), (math.nan, "nan")],
)
def test_number_that_is_not_positive_and_finite_is_refused(value: float, shown: str) -> None:
    message = f"lr must be positive and finite, but got lr={shown}."
    with pytest.raises(ConfigError, match=exactly(message)):
        check_positive("lr", value)


@pytest.mark.parametrize("value", [-2, 0, 0.25])
def test_number_between_its_bounds_is_fine(value: float) -> None:
    check_between("alpha", value, -2, 0.25)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-2.0001, "-2.0001"),
        (0.2501, "0.2501"),
        (-math.inf, "-inf"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_number_outside_its_bounds_is_refused(value: float, shown: str) -> None:
    message = f"alpha must be between -2 and 0.25, but got alpha={shown}."
    with pytest.raises(ConfigError, match=exactly(message)):
        check_between("alpha", value, -2, 0.25)


@pytest.mark.parametrize("value", [5e-324, 0.5, 1, 1.0])
def test_share_above_nothing_and_up_to_all_is_fine(value: float) -> None:
    check_share("keep", value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (-0.5, "-0.5"), (1.0001, "1.0001"), (math.nan, "nan"), (math.inf, "inf")],
)
def test_share_out_of_its_range_is_refused(value: float, shown: str) -> None:
    message = f"keep must be above 0 and at most 1, but got keep={shown}."
    with pytest.raises(ConfigError, match=exactly(message)):
        check_share("keep", value)

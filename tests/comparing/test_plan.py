"""The plan: the arithmetic of an epoch, and the warnings that save a recording."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.comparing.plan import cost_ratio_of_an_epoch, plan_comparison, plan_notes
from impon_hpo.errors import DataError
from tests.comparing.comparisons import COMPARED, compared_study

SCORING = COMPARED + '\n[arms.rho]\nsampler = "rho-loss"\nratio = 0.25\n'


@pytest.mark.parametrize(
    ("trained", "scored", "validation", "ratio"),
    [
        (1.0, 0.0, 0.0, 1.0),
        (1 / 3, 0.0, 0.0, 1 / 3),
        (1 / 3, 0.44, 0.11, 0.498),  # PROTOCOL: the most scoring that a third leaves room for
        (0.148, 1.0, 0.11, 0.500),
        (1.0, 1.0, 0.0, 4 / 3),
    ],
)
def test_ratio(trained: float, scored: float, validation: float, ratio: float) -> None:
    assert cost_ratio_of_an_epoch(trained, scored, validation) == pytest.approx(ratio, abs=1e-3)


@given(st.floats(0.01, 1), st.floats(0, 3), st.floats(0, 1))
def test_half_is_met_where_the_condition_says_so(b: float, s: float, v: float) -> None:
    spare = 1.5 - 0.5 * v - (3 * b + s)
    if abs(spare) > 1e-9:
        assert (cost_ratio_of_an_epoch(b, s, v) < 0.5) == (spare > 0)


def planned(*settings: str, text: str = COMPARED) -> dict[str, Any]:
    return plan_comparison(compared_study(*settings, text=text), None, calibrate=False)


def test_ratio_of_the_claim_counts_what_its_sampler_scores() -> None:
    share = "run.validation_size=24"  # a tenth of 240 rows
    plain = plan_comparison(
        compared_study(share, "compare.claim=memory@1/2"), None, calibrate=False
    )
    # 7 batches of 32 out of 240 rows; a half of them, 4.
    assert plain["cost_ratio_of_an_epoch"] == pytest.approx((3 * 0.5 + 0.1) / 3.1, abs=1e-4)
    settings = (share, "compare.claim=rho@1/2", "compare.placebo=memory")
    scored = planned(*settings, text=SCORING)
    assert scored["cost_ratio_of_an_epoch"] == pytest.approx(
        (3 * 0.5 + 0.5 * 4 + 0.1) / 3.1, abs=1e-4
    )


def test_ratio_that_cannot_be_met_is_told_before_anything_is_spent() -> None:
    small = "run.validation_size=24"
    five = "compare.blocks=5"
    met = plan_comparison(
        compared_study(small, five, 'compare.epoch_fractions=["1/3"]'), None, calibrate=False
    )
    assert met["warnings"] == []
    missed = plan_comparison(
        compared_study(small, five, 'compare.epoch_fractions=["2/3"]'), None, calibrate=False
    )
    assert ["arithmetically impossible" in line for line in missed["warnings"]] == [True]
    few = planned(small)
    assert any("With 2 blocks nothing" in line for line in few["warnings"])


def test_plan_without_data_says_what_it_needs_them_for() -> None:
    with pytest.raises(DataError, match="A plan counts the rows, so it needs the data"):
        plan_comparison(compared_study("dataset=folder", "data_dir=nowhere"), None)


def test_runs_and_costs_are_explained() -> None:
    facts = planned("compare.arms=['impon']", "compare.epoch_fractions=[1]")
    run, cost = plan_notes(facts)
    assert run.startswith("a run: one configuration, trained to its last epoch")
    uniform = facts["cost_of_a_uniform_run"]
    assert f"with {uniform:,} for a full uniform run" in cost
    assert f"as much as {facts['cost'] / uniform:.1f} of them" in cost
    # Whole epochs, and nothing is scored: no run costs more than a uniform one.
    assert facts["cost"] <= facts["runs"] * uniform

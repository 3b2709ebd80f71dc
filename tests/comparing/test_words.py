"""The words of a verdict: each sentence says what was found, and no more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from impon_hpo.comparing.verdict import INCONCLUSIVE, REFUTED, SUPPORTED, Estimate, Verdict
from impon_hpo.comparing.words import credit_sentence, not_shown, verdict_sentence

CHEAP = Estimate(
    point=0.4,
    lower=0.35,
    upper=0.45,
    limit=0.5,
    p_below=0.01,
    p_above=1.0,
    careful_lower=0.35,
    careful_upper=0.45,
    more_blocks=0,
)
DEAR = dataclasses.replace(
    CHEAP, point=0.6, lower=0.55, upper=0.634, careful_upper=0.634, p_below=1.0, p_above=0.01
)
"""A ratio above the limit."""
OPEN = dataclasses.replace(DEAR, lower=0.45, p_above=0.2, more_blocks=7)
"""A ratio that may lie on either side."""
GOOD = Estimate(
    point=0.2,
    lower=-0.1,
    upper=0.5,
    limit=1.0,
    p_below=0.01,
    p_above=1.0,
    careful_lower=-0.3,
    careful_upper=0.7,
    more_blocks=0,
)
BAD = dataclasses.replace(
    GOOD,
    point=3.0,
    lower=2.0,
    upper=4.0,
    careful_lower=1.5,
    careful_upper=4.567,
    p_below=1.0,
    p_above=0.01,
)
"""A loss above the margin."""
VAGUE = dataclasses.replace(BAD, lower=0.5, careful_lower=0.2, p_above=0.2, more_blocks=3)
"""A loss that may lie on either side."""


def verdict(cost: Estimate, loss: Estimate, word: str, **changed: Any) -> Verdict:
    return dataclasses.replace(
        Verdict("memory@1/3", "uniform", (0, 1, 2, 3, 4, 5), cost, loss, loss, word), **changed
    )


def sentence(cost: Estimate, loss: Estimate, word: str) -> str:
    return verdict_sentence(verdict(cost, loss, word), "MedianPruner")


FACTS = (
    "under MedianPruner, a study with memory@1/3 costs 0.40 of one with uniform (95 % bounds 0.35 "
    "and 0.45; claim: at most 0.50) and its pick is 0.20 points worse (between 0.50 points "
    "worse and 0.10 points better; claim: at most 1 worse), over 6 blocks."
)


def test_supported_says_the_facts_and_nothing_else() -> None:
    assert sentence(CHEAP, GOOD, SUPPORTED) == f"Supported: {FACTS}"


@pytest.mark.parametrize(
    ("word", "head"),
    [(SUPPORTED, "Supported: "), (REFUTED, "Refuted: "), (INCONCLUSIVE, "Inconclusive: ")],
)
def test_sentence_begins_with_the_word_and_says_the_facts(word: str, head: str) -> None:
    assert sentence(CHEAP, GOOD, word).startswith(head + FACTS)


def test_arm_control_pruner_and_blocks_are_named() -> None:
    named = verdict(CHEAP, GOOD, SUPPORTED, arm="impon", control="placebo", blocks=(0, 4))
    said = verdict_sentence(named, "NopPruner")
    assert said.startswith("Supported: under NopPruner, a study with impon costs 0.40 of one with")
    assert "one with placebo (" in said
    assert said.endswith(", over 2 blocks.")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (1.234, "1.23 points worse"),
        (-1.234, "1.23 points better"),
        (0.005, "0.01 points worse"),
        (0.0049, "as good"),
        (-0.0049, "as good"),
        (0.0, "as good"),
    ],
)
def test_pick_is_worse_better_or_as_good(points: float, said: str) -> None:
    loss = dataclasses.replace(GOOD, point=points)
    assert f"its pick is {said} (" in sentence(CHEAP, loss, SUPPORTED)


def test_limits_are_said_as_they_were_asked() -> None:
    cost, loss = dataclasses.replace(CHEAP, limit=0.75), dataclasses.replace(GOOD, limit=1.25)
    said = sentence(cost, loss, SUPPORTED)
    assert "claim: at most 0.75)" in said
    assert "claim: at most 1.25 worse)" in said


RATIO = "It would be supported at a ratio of "
MARGIN = "At this cost it would be supported with a margin of "


@pytest.mark.parametrize(
    ("cost", "loss", "word", "said"),
    [
        (DEAR, GOOD, REFUTED, f"{RATIO}0.64."),
        (CHEAP, BAD, REFUTED, f"{MARGIN}4.57 points."),
        (DEAR, BAD, REFUTED, ""),
        (DEAR, VAGUE, REFUTED, ""),
        (CHEAP, GOOD, SUPPORTED, ""),
    ],
)
def test_what_would_be_supported_is_said_where_one_half_is_met(
    cost: Estimate, loss: Estimate, word: str, said: str
) -> None:
    assert sentence(cost, loss, word).partition("blocks.")[2].strip() == said


@pytest.mark.parametrize(
    ("upper", "careful", "ratio"),
    [
        (0.634, 0.6, "0.64"),
        (0.6, 0.634, "0.64"),  # both bounds have to hold
        (0.6, 0.6, "0.61"),  # at the bound itself nothing is shown
        (0.6301, 0.6301, "0.64"),  # rounded to the next, it would lie below the bound
        (0.999, 0.999, "1.00"),
    ],
)
def test_ratio_that_would_be_supported_lies_above_both_bounds(
    upper: float, careful: float, ratio: str
) -> None:
    cost = dataclasses.replace(DEAR, upper=upper, careful_upper=careful)
    assert sentence(cost, GOOD, REFUTED).endswith(f"{RATIO}{ratio}.")


def test_ratio_from_which_an_arm_is_supported_needs_a_good_pick() -> None:
    assert verdict(DEAR, GOOD, REFUTED).supported_from == 0.64
    assert verdict(CHEAP, GOOD, SUPPORTED).supported_from == 0.46
    assert verdict(CHEAP, VAGUE, INCONCLUSIVE).supported_from is None


def test_margin_that_would_be_supported_lies_above_both_bounds() -> None:
    loss = dataclasses.replace(BAD, upper=2.0, careful_upper=1.0)
    assert sentence(CHEAP, loss, REFUTED).endswith(f"{MARGIN}2.01 points.")


def test_nothing_is_promised_where_only_the_test_stands_against_it() -> None:
    """Bounds within the limit: a ratio below the one that was asked for would be no concession."""
    cost = dataclasses.replace(CHEAP, p_below=0.06, more_blocks=1)
    assert RATIO not in sentence(cost, GOOD, INCONCLUSIVE)
    loss = dataclasses.replace(GOOD, p_below=0.06, more_blocks=1)
    assert MARGIN not in sentence(CHEAP, loss, INCONCLUSIVE)


@pytest.mark.parametrize(
    ("cost", "loss", "said"),
    [
        (OPEN, GOOD, "About 7 more blocks would decide it, if means and spread stay."),
        (CHEAP, VAGUE, "About 3 more blocks would decide it, if means and spread stay."),
        (OPEN, VAGUE, "About 7 more blocks would decide it, if means and spread stay."),
        (
            dataclasses.replace(OPEN, more_blocks=1),
            GOOD,
            "About 1 more block would decide it, if means and spread stay.",
        ),
        (
            dataclasses.replace(OPEN, more_blocks=None),
            VAGUE,
            "No number of blocks that could be paid for would decide it.",
        ),
    ],
)
def test_inconclusive_says_how_many_blocks_would_decide_it(
    cost: Estimate, loss: Estimate, said: str
) -> None:
    assert sentence(cost, loss, INCONCLUSIVE).endswith(f" {said}")


def test_inconclusive_says_both_what_would_be_supported_and_what_would_decide() -> None:
    said = sentence(OPEN, GOOD, INCONCLUSIVE)
    assert said.endswith(
        f"over 6 blocks. {RATIO}0.64. About 7 more blocks would decide it, if "
        "means and spread stay."
    )


BEATEN = verdict(CHEAP, GOOD, SUPPORTED)
NOT_BEATEN = verdict(OPEN, VAGUE, INCONCLUSIVE)


def held(beaten: list[str], others: list[str]) -> list[Verdict]:
    """Return what an arm came to against controls that it beats, and against others."""
    return [
        *(dataclasses.replace(BEATEN, control=name, budget_gain=NOTHING) for name in beaten),
        *(dataclasses.replace(NOT_BEATEN, control=name, budget_gain=NOTHING) for name in others),
    ]


NOTHING = dataclasses.replace(GOOD, limit=0.0, careful_lower=-1.0, p_above=1.0)
ALL = ["uniform-fraction@1/3", "uniform-short@1/3", "placebo@1/3"]


def credit(supported: bool, beaten: list[str], others: list[str], wanted: int = 3) -> str:
    return credit_sentence(supported, held(beaten, others), wanted, "memory@1/3")


@pytest.mark.parametrize(
    ("supported", "what"),
    [(True, "The saving is due to importance"), (False, "Importance does contribute")],
)
def test_credit_is_importance_s_where_all_controls_are_beaten(supported: bool, what: str) -> None:
    assert credit(supported, ALL, []) == (
        f"{what}: memory@1/3 beats uniform-fraction@1/3, uniform-short@1/3 and placebo@1/3 as well."
    )
    alone = credit(supported, ["placebo"], [], wanted=1)
    assert alone == f"{what}: memory@1/3 beats placebo as well."


def test_credit_of_a_saving_goes_to_fewer_rows_where_a_control_is_not_beaten() -> None:
    assert credit(True, [], ALL) == (
        "The saving comes from using fewer rows, not from importance: memory@1/3 is not shown to "
        "beat uniform-fraction@1/3, uniform-short@1/3 and placebo@1/3."
    )
    assert credit(True, ALL[:2], ALL[2:]).endswith(
        ": memory@1/3 is not shown to beat placebo@1/3 "
        "(it does beat uniform-fraction@1/3 and uniform-short@1/3)."
    )


def test_arm_on_as_many_rows_saves_nothing_by_using_fewer() -> None:
    said = credit(True, [], ["placebo"], wanted=1)
    assert "fewer rows" not in said
    assert said.startswith("The saving comes from the sampler's path, not from importance: ")


def test_no_credit_without_a_saving_either() -> None:
    assert credit(False, ALL[:1], ALL[1:]) == (
        "Importance earns no credit: memory@1/3 is not shown to beat uniform-short@1/3 and "
        "placebo@1/3 (it does beat uniform-fraction@1/3)."
    )


@pytest.mark.parametrize("beaten", [[], ALL[:1], ALL[:2]])
def test_credit_is_not_judged_before_all_controls_are_recorded(beaten: list[str]) -> None:
    assert credit(True, beaten, []) == (
        "Whether importance deserves the credit is not judged: its controls are not recorded."
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"above": True}, ""),
        ({"lower": -0.1}, ""),  # whatever else: the bound itself says so
        (
            {"careful_lower": -0.25},
            " It is not shown, since by Student's 99 % bound it may be 0.25 points worse. About 4 "
            "more blocks would decide it, if means and spread stay.",
        ),
        (
            {"more_blocks": None},
            " It is not shown, since so few blocks cannot pass the exact sign-flip test. No number "
            "of blocks that could be paid for would decide it.",
        ),
    ],
)
def test_gain_whose_bound_is_good_and_that_is_not_shown_says_why(
    changed: dict[str, Any], sentence: str
) -> None:
    gain = {"lower": 0.5, "limit": 0.0, "above": False, "careful_lower": 0.1, "more_blocks": 4}
    assert not_shown(gain | changed) == sentence

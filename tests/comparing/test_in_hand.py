"""In hand: ways, what they cost, what one holds, and the verdict, on numbers worked out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.comparing.arms import Arm, arms_of
from impon_hpo.comparing.in_hand import RATIOS, _last, controls_in_hand, judge_in_hand
from impon_hpo.comparing.outcomes import NO_PICK, Outcome, Truth, outcome
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.comparing.verdict import INCONCLUSIVE, REFUTED, SUPPORTED
from impon_hpo.comparing.ways import Holding, Way, holding, ways_of
from impon_hpo.comparing.words import in_hand_sentence
from tests.comparing.comparisons import compared_study
from tests.comparing.test_outcomes import NOTHING, rows
from tests.comparing.worlds import Effect, World

N = 3
N_BLOCKS = 8


def arms() -> list[Arm]:
    study_file = compared_study(
        "run.epochs=2",
        f"compare.configurations={N}",
        'compare.endpoint="in-hand"',
        'compare.epoch_fractions=[1, "1/2"]',
        'compare.policies=[{ arms = ["memory", "impon@1/2"] }]',
    )
    return arms_of(study_file)


def ways() -> dict[str, Way]:
    given_arms = arms()
    policy = given_arms[0].policy
    return {way.name: way for way in ways_of(given_arms, policy, policy)}


def test_a_way_is_a_search_and_what_trains_its_pick() -> None:
    names = set(ways())
    assert {
        "uniform",
        "memory",
        "impon@1/2",
        "uniform-short@1/2 then uniform",
        "uniform-short@1/2 then memory",
        "uniform-fraction@1/2 then placebo-of-memory",
        "placebo-of-impon@1/2 then uniform",
        "impon@1/2 then memory",
        "uniform then memory",
        "memory then uniform",
    } <= names
    # A search at all rows has its model already; and a placebo is no part of an importance way.
    assert (
        not {
            "placebo-of-memory then uniform",
            "placebo-of-memory then memory",
            "memory then placebo-of-memory",
            "memory then memory",
            "memory then impon@1/2",
        }
        & names
    )


def test_importance_is_told_from_controls() -> None:
    of = ways()
    assert not of["uniform-short@1/2 then uniform"].importance
    assert of["uniform-short@1/2 then memory"].importance
    assert of["impon@1/2 then uniform"].importance


def searched(arm: Arm, recordings: Recordings, uniform: Arm) -> Outcome:
    return outcome(
        recordings,
        dataclasses.replace(arm),
        Truth(recordings, uniform, N),
        NOTHING,
        n_trials=2,
        n_orders=1,
        budgets={},
        budget_grid=(),
    )


def recorded() -> Recordings:
    table: list[dict[str, Any]] = []
    for block in range(2):
        table += rows("uniform cosine", block, [40.0, 50.0, 60.0], cost=10.0)
        table += rows("uniform-short@1/2 cosine", block, [20.0, 35.0, 30.0], cost=10.0)
        table += rows("memory cosine", block, [0.0, 55.0, 70.0], cost=12.0, skip_first=True)
    return Recordings(table, {})


def test_search_pays_for_itself_and_then_for_the_training_of_its_pick() -> None:
    """The short search takes two epochs of each here, as the long one does."""
    of, recordings = ways(), recorded()
    uniform = of["uniform"].search
    short = of["uniform-short@1/2 then uniform"]
    held = holding(short, searched(short.search, recordings, uniform), recordings)
    assert held.cost[0].tolist() == [20 + 20, 40 + 20, 60 + 20]
    # It picks configuration 1, or the first one while that is all there is.
    assert held.accuracy[0, 0] == pytest.approx(40)
    assert held.accuracy[0, 2] == pytest.approx(50)


def test_arm_with_a_teacher_pays_for_it_unless_the_search_has() -> None:
    of, recordings = ways(), recorded()
    uniform = of["uniform"].search
    short = of["uniform-short@1/2 then memory"]
    held = holding(short, searched(short.search, recordings, uniform), recordings)
    # Pick 1 trained by memory is 24, and its teacher, uniform's first configuration, 20.
    assert held.cost[0, 2] == 60 + 24 + 20
    assert held.accuracy[0, 2] == pytest.approx(55)
    # The first configuration of an arm that is taught is its teacher's run, which is paid once.
    assert held.cost[0, 0] == 20 + 20
    assert held.accuracy[0, 0] == pytest.approx(40)
    memory = of["memory"]
    held = holding(memory, searched(memory.search, recordings, uniform), recordings)
    assert held.cost[0].tolist() == [20, 44, 68]
    assert held.accuracy[0, 2] == pytest.approx(70)


def test_study_with_nothing_at_its_end_holds_what_a_blind_choice_does() -> None:
    of, recordings = ways(), recorded()
    uniform = of["uniform"]
    study = searched(uniform.search, recordings, uniform.search)
    study = dataclasses.replace(study, size_picks=np.full_like(study.size_picks, NO_PICK))
    held = holding(uniform, study, recordings)
    assert held.accuracy[0].tolist() == [50.0] * 3
    # It has not been trained to its end, so that is charged as well: two epochs of 10.
    assert held.cost[0].tolist() == [20 + 20, 40 + 20, 60 + 20]


def line(way: Way, accuracy: Any, *, cost: float = 1.0) -> Holding:
    """A way that holds (blocks, trials) `accuracy`, each trial at the same cost."""
    values = np.atleast_2d(np.array(accuracy, dtype=float))
    costs = np.broadcast_to(cost * np.arange(1, values.shape[1] + 1), values.shape)
    return Holding(way, tuple(range(len(values))), costs, values)


@given(st.floats(0, 10, allow_nan=False))
def test_budget_between_two_numbers_of_trials_is_a_mixture_of_both(budget: float) -> None:
    held = line(ANY, [[50.0, 60.0, 65.0]])
    holds = held.at(0, budget)
    assert 0 <= holds <= 65
    assert held.at(0, budget + 0.5) >= holds
    if budget >= 3:
        assert holds == 65
    assert held.at(0, 1.5) == 55
    assert held.at(0, 0) == 0


ANY = Way("any", None, None)  # type: ignore[arg-type]
SPREAD = np.linspace(-0.4, 0.4, N_BLOCKS)[:, None]
UNIFORM = np.array([50.0, 54.0, 57.0, 59.0, 60.0])


def judged(accuracy: Any, *, cost: float = 1.0, gain: float = 0.0, margin: float = 0.0) -> Any:
    control = line(ANY, UNIFORM + np.zeros((N_BLOCKS, 1)))
    held = line(dataclasses.replace(ANY, name="arm"), accuracy, cost=cost)
    verdict = judge_in_hand(held, control, n_trials=4, gain=gain, cost_ratio=0.8, margin=margin)
    assert verdict is not None
    return verdict


def test_better_model_for_the_same_cost_is_supported() -> None:
    verdict = judged(UNIFORM + 1 + SPREAD)
    assert verdict.word == SUPPORTED
    assert verdict.gain.point == pytest.approx(1.0)
    assert verdict.per_block == pytest.approx((1 + SPREAD[:, 0]).tolist())
    assert judged(UNIFORM + 1 + SPREAD, gain=1.5).word != SUPPORTED


def test_same_model_for_less_is_supported_by_its_ratio() -> None:
    verdict = judged(UNIFORM + 0.05 * SPREAD, cost=0.5, gain=5.0)
    assert not verdict.gain.above
    assert verdict.ratio.point == pytest.approx(0.5, abs=0.011)
    assert 0.5 <= verdict.ratio.upper <= 0.55
    assert 0.45 <= verdict.ratio.lower <= 0.5
    assert verdict.word == SUPPORTED


def test_margin_says_what_counts_as_as_good() -> None:
    """At its end no way gets better: without a margin, none would ever be shown to be as good."""
    flat = np.full((N_BLOCKS, 5), 59.0) + 0.1 * SPREAD
    assert judged(flat, cost=0.2).ratio.upper is None
    assert judged(flat, cost=0.2, margin=0.5).ratio.upper == pytest.approx(0.05, abs=0.011)
    assert judged(flat - 1, cost=0.2, margin=0.5).ratio.lower == 2.0


def test_control_that_is_as_good_for_less_itself_earns_the_arm_nothing() -> None:
    verdict = judged(UNIFORM + 0.1 * SPREAD, margin=4.0)
    assert verdict.ratio.upper == pytest.approx(verdict.ratio.own, abs=0.05)
    assert verdict.ratio.upper < 0.8
    assert not verdict.ratio.ahead
    assert verdict.word == INCONCLUSIVE
    told = in_hand_sentence(verdict.plain(), "NopPruner", 4.0)
    assert told.endswith(
        "This does not count: uniform sampling is not shown to be behind it there."
    )


def test_same_model_for_the_same_cost_is_inconclusive() -> None:
    assert judged(UNIFORM + SPREAD).word == INCONCLUSIVE


def test_worse_model_is_refuted() -> None:
    verdict = judged(UNIFORM - 2 + SPREAD)
    assert verdict.word == REFUTED
    assert verdict.ratio.point is None  # never as good
    assert verdict.ratio.upper is None
    assert verdict.ratio.lower == 2.0  # as far as was looked


def test_as_good_a_model_that_more_trials_lose_again_was_reached() -> None:
    falls = np.array([59.5, 59.2, 58.9, 50.0, 40.0])
    ratio = judged(falls + 0.01 * SPREAD, margin=0.5).ratio
    assert ratio.point == pytest.approx(0.25, abs=0.011)
    assert ratio.upper is None  # nowhere to the end of what was looked at


@given(st.integers(0, 200))
def test_last_share_is_found_in_large_steps_and_small_ones(n_true: int) -> None:
    for shares in (RATIOS, RATIOS[::-1]):
        true = set(shares[:n_true].tolist())
        wanted = None if n_true == 0 else shares[n_true - 1]
        assert _last(shares, true.__contains__) == wanted


def test_verdict_needs_two_blocks() -> None:
    control = line(ANY, [UNIFORM])
    assert judge_in_hand(control, control, n_trials=4, gain=0, cost_ratio=1, margin=0) is None


def test_control_is_finished_in_its_own_best_way() -> None:
    of = ways()
    claim = line(of["memory"], UNIFORM + np.zeros((2, 1)))
    holds = {
        "uniform": 100.0,  # is what all are held against, and no control
        "uniform-short@1/2": 10.0,
        "uniform-short@1/2 then uniform": 58.0,
        "uniform-short@1/2 then placebo-of-memory": 59.0,
        "uniform-short@1/2 then memory": 99.0,  # has importance in it
        "placebo-of-memory": 57.0,
        "placebo-of-impon@1/2": 98.0,  # is another arm's
    }
    others = [line(of[name], np.full((2, 5), value)) for name, value in holds.items()]
    controls = controls_in_hand(claim, [claim, *others], {0: 4.0, 1: 4.0})
    assert [held.way.name for held in controls] == [
        "uniform-short@1/2 then placebo-of-memory",
        "placebo-of-memory",
    ]


def test_finish_of_a_control_is_chosen_in_the_blocks_that_both_have() -> None:
    """One that has the easy blocks only is not the better one for that."""
    of = ways()
    easy = np.repeat([[40.0], [40.0], [80.0], [80.0]], 5, axis=1)
    claim = line(of["memory"], easy + 2)
    everywhere = line(of["uniform-short@1/2 then uniform"], easy + 3)
    in_easy = line(of["uniform-short@1/2 then placebo-of-memory"], easy[2:])
    in_easy = dataclasses.replace(in_easy, blocks=(2, 3))
    in_one = line(of["uniform-short@1/2"], easy[:1] + 9)
    given_ways = [in_easy, everywhere, in_one]
    controls = controls_in_hand(claim, given_ways, dict.fromkeys(range(4), 4.0))
    assert controls == [everywhere]


TWO_ARMS = (
    'compare.endpoint="in-hand"',
    'compare.epoch_fractions=[1, "1/2"]',
    "compare.blocks=6",
    "compare.orders=2",
    "compare.trials=4",
)


def summary(
    *settings: str, effects: dict[str, Effect], without: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    study_file = compared_study(*TWO_ARMS, *settings)
    trainings = {arm.training: arm for arm in arms_of(study_file)}
    world = World(effects, n_configurations=5)
    recordings = world.recordings(list(trainings.values()), 6, seed=3)
    kept = [row for row in recordings.rows if not without(dict(row))]
    return summarise_comparison(study_file, Recordings(kept, recordings.about), other_pruners=False)


BETTER = {"importance": Effect(lift=30.0, cost=0.5)}


def test_credit_waits_for_each_control_whatever_the_number_of_others() -> None:
    """A claim of two importance arms has two placebos; neither stands in for fewer epochs."""
    claim = 'compare.claim="memory@1/2 then impon"'
    verdict = summary(claim, effects=BETTER, without=lambda row: False)["verdict"]
    assert verdict["credit"]
    verdict = summary(
        claim, effects=BETTER, without=lambda row: row["training"].startswith("uniform-short")
    )["verdict"]
    assert verdict["word"] == SUPPORTED
    assert not verdict["controls_complete"]
    assert not verdict["credit"]
    assert "not all of its controls are recorded" in verdict["credit_sentence"]


def test_claim_under_another_policy_is_held_against_controls_where_uniform_is_recorded() -> None:
    verdict = summary(
        'compare.policies=[{arms=["impon"]}, {schedule="rungs", arms=["impon"]}]',
        'compare.claim="impon (rungs, last)"',
        effects=BETTER,
        without=lambda row: row["training"] == "uniform rungs" and row["block"] == 5,
    )["verdict"]
    assert verdict["blocks"] == [0, 1, 2, 3, 4]
    assert {entry["blocks"] for entry in verdict["controls"]} == {5}


def test_arm_that_only_beats_its_controls_is_not_said_to_gain() -> None:
    effects = {"importance": Effect(lift=-4.0), "uniform": Effect()}
    effects |= dict.fromkeys(("placebo", "uniform-fraction", "uniform-short"), Effect(lift=-40.0))
    verdict = summary(
        'compare.arms=["impon"]',
        'compare.claim="impon"',
        "compare.epoch_fractions=[1]",
        effects=effects,
        without=lambda row: False,
    )["verdict"]
    assert verdict["word"] == REFUTED
    assert verdict["credit_sentence"] == (
        "impon beats placebo-of-impon; but beside uniform it is not shown to be as claimed."
    )


def test_choice_of_an_arm_in_hand_is_held_against_its_own_placebo() -> None:
    arms = summary(effects=BETTER, without=lambda row: False)["arms"]
    rows = {row["arm"]: row["verdict"] for row in arms if row["kind"] == "importance"}
    assert [entry["control"] for entry in rows["impon"]["controls"]] == ["placebo-of-impon"]
    assert [entry["control"] for entry in rows["memory@1/2"]["controls"]] == [
        "uniform-fraction@1/2",
        "uniform-short@1/2",
        "placebo-of-memory@1/2",
    ]

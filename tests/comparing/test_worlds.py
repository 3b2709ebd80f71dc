"""Tests of the verdict itself: simulated worlds with a known truth, judged as if recorded.

`uv run pytest -n0 -m slow tests/comparing/test_worlds.py` prints its power.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import pytest

from impon_hpo.comparing.arms import Arm, arms_of
from impon_hpo.comparing.outcomes import Outcome, Truth, outcome
from impon_hpo.comparing.verdict import REFUTED, SUPPORTED, Verdict, judge
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import compared_study
from tests.comparing.worlds import Effect, World

LIMITS = {"cost_ratio": 0.5, "margin": 1.0}
THIRD = Effect(cost=0.375)
AT_MARGIN = Effect(cost=0.375, distortion=5.3)
"""Its mean loss is one point, as `test_world_at_the_margin_is_there` finds."""


def small() -> tuple[StudyFile, list[Arm]]:
    study_file = compared_study(
        "run.epochs=9",
        "pruner.reduction_factor=3",
        "compare.configurations=12",
        'compare.epoch_fractions=["1/3"]',
        'compare.arms=["memory"]',
    )
    untaught = [dataclasses.replace(arm, taught=False) for arm in arms_of(study_file)]
    return study_file, untaught


def outcomes(
    world: World, n_blocks: int, seed: int, kinds: tuple[str, ...], n_orders: int = 6
) -> dict[str, Outcome]:
    study_file, arms = small()
    arms = [arm for arm in arms if arm.kind in ("uniform", *kinds)]
    recordings = world.recordings(arms, n_blocks, seed)
    truth = Truth(recordings, arms[0], world.n_configurations)
    by_kind: dict[str, Outcome] = {}
    for arm in arms:
        budgets = (
            {block: 0.5 * cost for block, cost in enumerate(by_kind["uniform"].cost)}
            if by_kind
            else {}
        )
        by_kind[arm.kind] = outcome(
            recordings,
            arm,
            truth,
            study_file.pruner,
            n_trials=study_file.protocol.n_trials,
            n_orders=n_orders,
            budgets=budgets,
            budget_grid=(),
        )
    return by_kind


@cache
def verdicts(effect: Effect, n_blocks: int, n_worlds: int) -> list[Verdict]:
    world = World({"importance": effect})
    judged = []
    for seed in range(n_worlds):
        both = outcomes(world, n_blocks, seed, ("importance",))
        verdict = judge(both["importance"], both["uniform"], **LIMITS)
        assert verdict is not None
        judged.append(verdict)
    return judged


def share(judged: list[Verdict], word: str) -> float:
    return sum(verdict.word == word for verdict in judged) / len(judged)


def at_most(rate: float, n: int) -> float:
    """The share that a true rate exceeds once in a hundred times."""
    return rate + 2.33 * math.sqrt(rate * (1 - rate) / n)


def test_world_at_the_margin_is_there() -> None:
    (judged,) = verdicts(AT_MARGIN, 120, 1)
    assert judged.loss.point == pytest.approx(1.0, abs=0.25)


def test_loss_at_the_margin_is_rarely_called_supported() -> None:
    judged = verdicts(AT_MARGIN, 6, 40)
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


def test_cost_at_the_limit_is_rarely_called_supported() -> None:
    judged = verdicts(Effect(cost=0.51), 6, 30)
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


def test_saving_without_loss_is_mostly_found() -> None:
    judged = verdicts(THIRD, 6, 30)
    assert share(judged, SUPPORTED) >= 0.6
    assert share(judged, REFUTED) == 0


def test_harmful_arm_is_refuted_and_never_supported() -> None:
    judged = verdicts(Effect(cost=0.375, favour=1.5), 6, 12)
    assert share(judged, SUPPORTED) == 0
    assert share(judged, REFUTED) >= 0.9


def test_arm_without_effect_is_refuted_by_its_cost() -> None:
    judged = verdicts(Effect(), 6, 15)
    assert share(judged, REFUTED) >= 0.9


@pytest.mark.parametrize("real", [False, True], ids=["fewer rows only", "real effect"])
def test_credit_goes_to_importance_only_where_it_is_due(real: bool) -> None:
    """Where all arms on a third of the rows are alike, the saving is not importance's."""
    harm = Effect(cost=0.375, distortion=12.0)
    other = harm if real else THIRD
    effects = {"importance": THIRD, "uniform-fraction": other, "placebo": other}
    effects["uniform-short"] = other
    credited = 0
    for seed in range(8):
        kinds = ("uniform-fraction", "uniform-short", "placebo", "importance")
        by_kind = outcomes(World(effects), 10, seed, kinds)
        held = [judge(by_kind["importance"], by_kind[kind], **LIMITS) for kind in kinds[:3]]
        credited += all(verdict is not None and verdict.beats for verdict in held)
    assert credited >= 4 if real else credited <= 1


@pytest.mark.slow
def test_power(capsys: pytest.CaptureFixture[str]) -> None:
    """Print how often a saving without loss is found, by number of blocks and by distortion."""
    lines = ["blocks  distortion  loss   supported  refuted"]
    for n_blocks in (6, 10, 15):
        for distortion in (0.0, 1.5, 3.0, 5.3):
            judged = verdicts(Effect(cost=0.375, distortion=distortion), n_blocks, 100)
            loss = sum(verdict.loss.point for verdict in judged) / len(judged)
            lines.append(
                f"{n_blocks:6}  {distortion:10.1f}  {loss:4.2f}  {share(judged, SUPPORTED):9.0%}  "
                f"{share(judged, REFUTED):7.0%}"
            )
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert share(verdicts(THIRD, 15, 100), SUPPORTED) > share(
        verdicts(AT_MARGIN, 15, 100), SUPPORTED
    )

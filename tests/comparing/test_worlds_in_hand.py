"""Tests of the verdict on the model in hand: simulated worlds with a known truth.

`uv run pytest -n0 -m slow tests/comparing/test_worlds_in_hand.py` prints how often each is found.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.in_hand import InHand, judge_in_hand
from impon_hpo.comparing.outcomes import Truth, outcome
from impon_hpo.comparing.verdict import REFUTED, SUPPORTED
from impon_hpo.comparing.ways import Way, holding
from tests.comparing.comparisons import compared_study
from tests.comparing.test_worlds import at_most
from tests.comparing.worlds import Effect, World

PROMOTE = {"name": "promote", "reduction_factor": 3}
N_TRIALS = 8


@cache
def verdicts(
    effect: Effect,
    *,
    gain: float = 0.0,
    cost_ratio: float = 0.8,
    margin: float = 0.3,
    n_blocks: int = 8,
    n_worlds: int = 16,
) -> list[InHand]:
    study_file = compared_study(
        "run.epochs=9",
        "compare.configurations=12",
        'compare.endpoint="in-hand"',
        "compare.epoch_fractions=[1]",
        'compare.arms=["memory"]',
    )
    arms = [dataclasses.replace(arm, taught=False) for arm in arms_of(study_file)]
    uniform, importance = (next(a for a in arms if a.name == n) for n in ("uniform", "memory"))
    world = World({"importance": effect})
    judged = []
    for seed in range(n_worlds):
        recordings = world.recordings([uniform, importance], n_blocks, seed)
        truth = Truth(recordings, uniform, world.n_configurations)
        held = [
            holding(
                Way(arm.name, arm, None),
                outcome(
                    recordings,
                    arm,
                    truth,
                    PROMOTE,
                    n_trials=N_TRIALS,
                    n_orders=2,
                    budgets={},
                    budget_grid=(),
                ),
                recordings,
            )
            for arm in (importance, uniform)
        ]
        verdict = judge_in_hand(
            *held, n_trials=N_TRIALS, gain=gain, cost_ratio=cost_ratio, margin=margin
        )
        assert verdict is not None
        judged.append(verdict)
    return judged


def share(judged: list[InHand], word: str) -> float:
    return sum(verdict.word == word for verdict in judged) / len(judged)


def mean_gain(judged: list[InHand]) -> float:
    return sum(verdict.gain.point for verdict in judged) / len(judged)


BETTER_CHOICE = Effect(noise=0.1, lift=-0.15)
"""It picks better, and its models are so much worse that one holds the same in the end."""


def test_no_effect_is_rarely_called_supported() -> None:
    judged = verdicts(Effect())
    assert mean_gain(judged) == pytest.approx(0, abs=0.15)
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


@pytest.mark.slow
def test_gain_at_the_margin_is_rarely_called_supported() -> None:
    # Of as good a model such an arm needs far less; so only the gain is asked here.
    judged = verdicts(Effect(lift=1.0), gain=1.0, cost_ratio=0.02)
    assert mean_gain(judged) == pytest.approx(1.0, abs=0.15)
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


@pytest.mark.slow
def test_cost_at_the_limit_is_rarely_called_supported() -> None:
    """A point worse is to be had for 0.37 of the cost, of uniform sampling for 0.47."""
    judged = verdicts(Effect(cost=0.8), gain=1.0, cost_ratio=0.37, margin=1.0)
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


def test_saving_that_uniform_sampling_has_as_well_is_rarely_called_supported() -> None:
    """A point worse is good enough, and a study of fewer trials is that for 0.5 of the cost."""
    judged = verdicts(Effect(), gain=1.0, margin=1.0)
    assert sum((verdict.ratio.own or 9) < 0.8 for verdict in judged) > len(judged) / 2
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


@pytest.mark.slow
def test_better_choice_of_worse_models_is_rarely_called_supported() -> None:
    judged = verdicts(BETTER_CHOICE)
    assert mean_gain(judged) == pytest.approx(0, abs=0.2)
    assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))


def test_better_models_are_mostly_found() -> None:
    judged = verdicts(Effect(lift=1.5), n_worlds=15)
    assert share(judged, SUPPORTED) >= 0.6
    assert share(judged, REFUTED) == 0


@pytest.mark.slow
def test_equal_models_for_half_the_cost_are_mostly_found() -> None:
    judged = verdicts(Effect(cost=0.3), gain=2.0, margin=1.0, n_blocks=12, n_worlds=10)
    assert share(judged, SUPPORTED) >= 0.6


def test_worse_models_are_never_supported() -> None:
    judged = verdicts(Effect(lift=-3.0), n_worlds=15)
    assert share(judged, SUPPORTED) == 0
    assert share(judged, REFUTED) >= 0.6


@pytest.mark.slow
def test_power(capsys: pytest.CaptureFixture[str]) -> None:
    """Print how often each world is called supported, by number of blocks."""
    worlds: dict[str, tuple[Effect, dict[str, float]]] = {
        "no effect": (Effect(), {}),
        "a saving that all have": (Effect(), {"gain": 1.0, "margin": 1.0}),
        "1 point at the margin of 1": (Effect(lift=1.0), {"gain": 1.0, "cost_ratio": 0.02}),
        "better choice of worse models": (BETTER_CHOICE, {}),
        "models 0.5 points better": (Effect(lift=0.5), {}),
        "models 1 point better": (Effect(lift=1.0), {}),
        "a third of the cost": (Effect(cost=0.3), {"gain": 2.0, "margin": 1.0}),
    }
    lines = ["world                           blocks  gain   supported  refuted"]
    for name, (effect, limits) in worlds.items():
        for n_blocks in (6, 12):
            judged = verdicts(effect, n_blocks=n_blocks, n_worlds=100, **limits)
            lines.append(
                f"{name:30}  {n_blocks:6}  {mean_gain(judged):+.2f}  "
                f"{share(judged, SUPPORTED):9.1%}  {share(judged, REFUTED):7.1%}"
            )
            if name in list(worlds)[:4]:
                assert share(judged, SUPPORTED) <= at_most(0.05, len(judged))
    with capsys.disabled():
        print("\n" + "\n".join(lines))

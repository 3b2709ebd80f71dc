"""The card of a comparison: four lines that agree with the verdict, and a command that runs."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.comparing.words import better, between
from impon_hpo.tuning.study_file import read_study_file
from tests.comparing.comparisons import compared_study
from tests.comparing.worlds import Effect, World

CHEAP = Effect(cost=0.375)
CONTROLS = ("placebo", "uniform-fraction", "uniform-short")
HALF = ('compare.epoch_fractions=["1/2"]', 'compare.arms=["impon"]', "compare.trials=4")
HELD = (
    'compare.epoch_fractions=[1, "1/2"]',
    'compare.arms=["impon"]',
    "compare.trials=4",
    'compare.endpoint="in-hand"',
    'compare.claim="impon"',
)


def card_of(
    effects: dict[str, Effect], *settings: str, n_blocks: int = 8, command: str = ""
) -> dict[str, Any]:
    study_file = compared_study(f"compare.blocks={n_blocks}", *settings)
    world = World(effects, n_configurations=5)
    arms = [arm for arm in arms_of(study_file) if not arm.taught]
    recordings = world.recordings(arms, n_blocks, seed=3)
    about = dict(recordings.about) | {"command": command or "impon-hpo compare small"}
    summary = summarise_comparison(
        study_file, Recordings(recordings.rows, about), other_pruners=False
    )
    card: dict[str, Any] = summary["card"]
    return card


def test_saving_that_importance_has_earned_is_a_yes_and_good_news() -> None:
    card = card_of({"importance": CHEAP}, *HALF)
    assert card["answer"].startswith("Yes: impon@1/2: it costs 0.3")
    assert card["earned"]
    assert card["what_to_do"] == "Tune with impon@1/2:"
    assert card["command"] == "impon-hpo tune small --arm impon --set epoch_fraction=0.5"


def test_saving_that_rows_at_random_have_as_well_is_a_no_that_names_them() -> None:
    card = card_of(dict.fromkeys(("importance", *CONTROLS), CHEAP), *HALF)
    assert card["answer"] == "No: impon@1/2 is not shown to beat half of the rows, at random."
    assert not card["earned"]
    assert card["command"].endswith("--arm uniform --set epoch_fraction=0.5")
    assert "Beside uniform-fraction@1/2" in card["how_sure"]


def test_arm_that_is_refuted_or_open_leaves_one_with_uniform_sampling() -> None:
    for effect, answer in (
        (Effect(cost=2.0), "No: impon@1/2 costs"),
        (Effect(cost=0.375, favour=2.5), "No: impon@1/2 picks worse."),
        (Effect(cost=0.5, distortion=1.0), "Not shown: "),
    ):
        card = card_of({"importance": effect}, *HALF)
        assert card["answer"].startswith(answer)
        assert card["what_to_do"] == "Keep uniform sampling:"
        assert card["command"] == "impon-hpo tune small --arm uniform"
        assert not card["earned"]


def test_better_model_in_hand_says_how_much_better() -> None:
    better_models = Effect(lift=3.0)
    card = card_of({"importance": better_models}, *HELD)
    assert card["answer"].startswith("Yes: with impon, the model in hand is ")
    assert card["answer"].endswith(" points better for the same cost.")
    assert card["earned"]
    assert card["command"] == "impon-hpo tune small --arm impon"
    both = {"importance": better_models, "placebo": better_models}
    placebo = card_of(both, *HELD, "compare.epoch_fractions=[1]")
    assert placebo["answer"] == "No: impon is not shown to beat the same path without its scores."
    assert placebo["what_to_do"] == "Keep uniform sampling:"  # a placebo is no advice
    assert not placebo["earned"]
    same = card_of(both | {"uniform-fraction": Effect(cost=0.5)}, *HELD)
    assert same["answer"] == (
        "No: impon is not shown to beat half of the rows, at random, then the pick in full."
    )


def test_worse_model_in_hand_is_a_no() -> None:
    card = card_of({"importance": Effect(lift=-5.0)}, *HELD)
    assert card["answer"] == "No: for the same cost, impon holds no better model."
    assert card["command"] == "impon-hpo tune small --arm uniform"


def test_gain_below_what_was_claimed_is_not_called_none() -> None:
    claimed = ("compare.gain=9.0", "compare.cost_ratio=0.02")
    card = card_of({"importance": Effect(lift=3.0)}, *HELD, *claimed)
    assert card["answer"] == (
        "No: for the same cost, impon does not hold a model that is more than 9 points better."
    )


def test_saving_in_hand_says_what_uniform_sampling_needs_itself() -> None:
    limits = ("compare.gain=50.0", "compare.margin=3.0")
    worse = dict.fromkeys(CONTROLS, Effect(lift=-20.0))
    card = card_of({"importance": Effect(cost=0.3)} | worse, *HELD, *limits)
    assert re.fullmatch(
        r"Yes: with impon, as good a model costs 0\.\d\d of uniform sampling's study, and "
        r"0\.\d\d with uniform sampling itself\.",
        card["answer"],
    )
    assert ", for 0.50 of that cost, it is between" in card["how_sure"]


def test_command_trains_under_the_policy_that_was_judged() -> None:
    policies = 'compare.policies=[{arms=["impon"]}, {schedule="rungs", arms=["impon"]}]'
    effects = {"importance": Effect(lift=9.0)}
    claim = 'compare.claim="impon (rungs, last)"'
    typed = "impon-hpo compare small --set=schedule=constant"
    card = card_of(effects, *HELD, policies, claim, command=typed)
    assert card["command"] == (
        "impon-hpo tune small --arm impon --set schedule=constant --set schedule=rungs"
    )


def test_way_with_two_arms_says_what_searches_and_what_trains() -> None:
    claim = 'compare.claim="uniform-short@1/2 then impon"'
    effects = {"importance": Effect(lift=8.0), "uniform-short": Effect(cost=0.5)}
    card = card_of(effects, *HELD, claim, n_blocks=12)
    assert card["answer"].startswith("Yes: with uniform-short@1/2 then impon, the model in hand")
    assert card["what_to_do"] == (
        "Tune with uniform-short@1/2, then `train` its pick in full: with `--arm impon` and, of "
        "the settings that it prints, only lr:"
    )
    assert card["command"] == "impon-hpo tune small --arm uniform --set epochs=2"


def test_what_is_not_recorded_is_not_known() -> None:
    study_file = compared_study(*HALF, "compare.blocks=3")
    arms = [arm for arm in arms_of(study_file) if arm.kind == "uniform"]
    recordings = World({}, n_configurations=5).recordings(arms, 3, seed=1)
    card = summarise_comparison(study_file, recordings, other_pruners=False)["card"]
    assert card["answer"] == "Not known yet: impon@1/2 is not recorded in two blocks."
    assert card["command"] == "impon-hpo compare small"


def test_command_has_the_settings_of_the_comparison_and_can_be_read() -> None:
    typed = "impon-hpo compare small --set run.lr=0.1 --workers 2 --set 'data_dir=/my pictures'"
    command = card_of({"importance": CHEAP}, *HALF, command=typed)["command"]
    words = shlex.split(command)
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    # What makes the arm comes last, so that nothing overrides it.
    assert settings == ["run.lr=0.1", "data_dir=/my pictures", "epoch_fraction=0.5"]
    assert read_study_file("small", settings).run.epoch_fraction == 0.5


def test_study_without_a_uniform_arm_is_given_one() -> None:
    study_file = compared_study("n_trials=5")
    text = (study_file.folder / "study.toml").read_text()
    (study_file.folder / "study.toml").write_text(
        text.replace('[arms.uniform]\nsampler = "uniform"\n', "")
    )
    bare = read_study_file("small", HALF)
    arms = [arm for arm in arms_of(bare) if not arm.taught]
    recordings = World({}, n_configurations=5).recordings(arms, 4, seed=1)
    command = summarise_comparison(bare, recordings, other_pruners=False)["card"]["command"]
    assert "--arm uniform --set arms.uniform.sampler=uniform" in command


def test_card_rests_on_what_was_recorded() -> None:
    card = card_of({"importance": CHEAP}, *HALF)
    assert card["rests_on"] == (
        "digits; 240 rows, resnet18 of width 4, 4 epochs; 5 configurations in 8 blocks, studies "
        "of 4 trials under SuccessiveHalvingPruner."
    )


@given(st.floats(-9, 9), st.floats(0, 9))
def test_bounds_in_words_say_the_direction_once_or_for_each(lower: float, width: float) -> None:
    words = between(lower, lower + width)
    assert "-" not in words
    assert "+" not in words
    same_side = lower >= 0 or lower + width <= 0
    assert (words.count("better") + words.count("worse")) == (1 if same_side else 2)


@pytest.mark.parametrize(
    ("points", "words"),
    [(0.001, "as good"), (1.204, "1.20 points better"), (-0.5, "0.50 points worse")],
)
def test_difference_in_words(points: float, words: str) -> None:
    assert better(points) == words

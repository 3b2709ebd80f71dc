"""The card of a comparison: four lines that agree with the verdict, and a command that runs."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.card import card
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
    lines: dict[str, Any] = summary["card"]
    return lines


def test_saving_that_importance_has_earned_is_a_yes_and_good_news() -> None:
    lines = card_of({"importance": CHEAP}, *HALF)
    assert lines["answer"].startswith("Yes: with impon@1/2, a study costs 0.3")
    assert lines["earned"]
    # What was judged is the worth of its pick after full uniform training.
    assert lines["what_to_do"] == (
        "Tune with impon@1/2, then `train` its pick in full: with `--arm uniform` and, of the "
        "settings that it prints, only lr:"
    )
    assert lines["command"] == "impon-hpo tune small --arm impon --set epoch_fraction=0.5"


def test_saving_that_rows_at_random_have_as_well_is_a_no_that_names_them() -> None:
    lines = card_of(dict.fromkeys(("importance", *CONTROLS), CHEAP), *HALF)
    assert lines["answer"] == "No: half of the rows, at random, does as well as impon@1/2."
    assert not lines["earned"]
    assert lines["command"].endswith("--arm uniform --set epoch_fraction=0.5")
    assert "Beside that of uniform-fraction@1/2" in lines["how_sure"]


def test_control_that_is_behind_but_not_by_every_test_leaves_it_open() -> None:
    """Five blocks cannot be shown by a sign-flip test, whatever their bounds say."""
    lines = card_of({"importance": CHEAP}, *HALF, n_blocks=4)
    assert lines["answer"].startswith(("Open: ", "Not shown: "))
    assert not lines["earned"]


def test_arm_that_is_refuted_or_open_leaves_one_with_uniform_sampling() -> None:
    for effect, answer in (
        (Effect(cost=2.0), "No: impon@1/2 costs"),
        (Effect(cost=0.375, favour=2.5), "No: impon@1/2 picks worse."),
        (Effect(cost=0.5, distortion=1.0), "Not shown: "),
    ):
        lines = card_of({"importance": effect}, *HALF)
        assert lines["answer"].startswith(answer)
        assert lines["what_to_do"] == "Keep uniform sampling:"
        assert lines["command"] == "impon-hpo tune small --arm uniform"
        assert not lines["earned"]


def test_better_model_in_hand_says_how_much_better() -> None:
    better_models = Effect(lift=3.0)
    lines = card_of({"importance": better_models}, *HELD)
    assert lines["answer"].startswith("Yes: with impon, the model in hand is ")
    assert lines["answer"].endswith(" points better for the same cost.")
    assert lines["earned"]
    assert lines["command"] == "impon-hpo tune small --arm impon"
    both = {"importance": better_models, "placebo": better_models}
    placebo = card_of(both, *HELD, "compare.epoch_fractions=[1]")
    assert placebo["answer"] == "No: the same path without its scores does as well as impon."
    assert placebo["what_to_do"] == "Keep uniform sampling:"  # a placebo is no advice
    assert not placebo["earned"]


def entry(way: str, lower: float, *, beats: bool = False) -> dict[str, Any]:
    return {"way": way, "beats": beats, "gain": {"lower": lower, "upper": lower + 2, "point": 1.0}}


SHORT = "uniform-short@1/2 then uniform"
HALF_THEN_FULL = "half of the rows, at random, then the pick in full,"


@pytest.mark.parametrize(
    ("controls", "complete", "answer"),
    [
        (
            [entry("placebo-of-impon", -3), entry("uniform-fraction@1/2 then uniform", -3)],
            True,
            f"No: {HALF_THEN_FULL} does as well as impon.",
        ),
        (
            [entry("placebo-of-impon", -3), entry("uniform-fraction@1/2 then uniform", -0.5)],
            True,
            "No: the same path without its scores does as well as impon.",
        ),
        (
            [entry(SHORT, 0.5), entry("placebo-of-impon", 2, beats=True)],
            True,
            "Open: with impon, the model in hand is 2.00 points better for the same cost; that "
            "half of the epochs, then the pick in full, does less is not shown.",
        ),
        (
            [entry("placebo-of-impon", 2, beats=True)],
            False,
            "Open: with impon, the model in hand is 2.00 points better for the same cost, but not "
            "all of its controls are recorded.",
        ),
        ([entry("quota", -3)], False, "No: quota does as well as impon."),
    ],
)
def test_answer_in_hand_follows_from_the_controls(
    controls: list[dict[str, Any]], complete: bool, answer: str
) -> None:
    verdict = {
        "arm": "impon",
        "word": "supported",
        "blocks": [0, 1, 2],
        "gain": {"point": 2.0, "lower": 1.0, "upper": 3.0, "above": True, "limit": 0.0},
        "ratio": {"point": 0.5, "lower": 0.3, "upper": None, "own": 0.9},
        "budget_share": 1.0,
        "controls": controls,
        "controls_complete": complete,
        "credit": False,
    }
    summary = {"verdict": verdict, "arms": [{"blocks": [0, 1, 2]}], "recordings": {}}
    assert card(compared_study(*HELD), summary)["answer"] == answer


def test_worse_model_in_hand_is_a_no() -> None:
    lines = card_of({"importance": Effect(lift=-5.0)}, *HELD)
    assert lines["answer"] == "No: for the same cost, impon holds no better model."
    assert lines["command"] == "impon-hpo tune small --arm uniform"


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
    lines = card_of(effects, *HELD, claim, n_blocks=12)
    assert lines["answer"].startswith("Yes: with uniform-short@1/2 then impon, the model in hand")
    assert lines["what_to_do"] == (
        "Tune with uniform-short@1/2, then `train` its pick in full: with `--arm impon` and, of "
        "the settings that it prints, only lr:"
    )
    assert lines["command"] == "impon-hpo tune small --arm uniform --set epochs=2"


def test_what_is_not_recorded_is_not_known() -> None:
    study_file = compared_study(*HALF, "compare.blocks=3")
    arms = [arm for arm in arms_of(study_file) if arm.kind == "uniform"]
    recordings = World({}, n_configurations=5).recordings(arms, 3, seed=1)
    lines = summarise_comparison(study_file, recordings, other_pruners=False)["card"]
    assert lines["answer"] == "Not known yet: impon@1/2 is not recorded in two blocks."
    assert lines["command"] == "impon-hpo compare small"


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
    lines = card_of({"importance": CHEAP}, *HALF)
    assert lines["rests_on"] == (
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


def test_command_has_the_pruner_that_was_judged() -> None:
    judged = 'compare.pruner={ name = "MedianPruner", n_startup_trials = 2 }'
    command = card_of({"importance": CHEAP}, *HALF, judged)["command"]
    words = shlex.split(command)
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    study = read_study_file("small", settings)
    assert study.pruner == {"name": "MedianPruner", "n_startup_trials": 2}

"""The arms: which ones a comparison has, what each is trained with, and who teaches whom."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import torch

from impon_hpo.comparing.arms import Arm, arms_of, controls_of, uniform_of
from impon_hpo.errors import ConfigError
from impon_hpo.sampling.methods.placebo import Placebo
from impon_hpo.training.splits import load_splits
from impon_hpo.training.training_run import TrainingRun
from tests.comparing.comparisons import compared_study
from tests.comparing.tiny import arms_by_name, tiny_study

TWO = "compare.policies=[{}, {schedule='rungs', weights='ema', arms=['memory@1/2', 'impon']}]"
IMPON = 'compare.arms=["impon"]'


def test_arms_stand_policy_by_policy_uniform_sampling_first() -> None:
    assert [(arm.name, arm.kind) for arm in arms_of(compared_study(TWO))] == [
        ("uniform", "uniform"),
        ("uniform-fraction@1/2", "uniform-fraction"),
        ("uniform-short@1/2", "uniform-short"),
        ("placebo", "placebo"),
        ("placebo@1/2", "placebo"),
        ("impon", "importance"),
        ("impon@1/2", "importance"),
        ("memory", "importance"),
        ("memory@1/2", "importance"),
        ("uniform (rungs, ema)", "uniform"),
        ("uniform-fraction@1/2 (rungs, ema)", "uniform-fraction"),
        ("uniform-short@1/2 (rungs, ema)", "uniform-short"),
        ("placebo (rungs, ema)", "placebo"),
        ("placebo@1/2 (rungs, ema)", "placebo"),
        ("memory@1/2 (rungs, ema)", "importance"),
        ("impon (rungs, ema)", "importance"),
    ]


@pytest.mark.parametrize(
    ("fractions", "names"),
    [
        ("[1]", ["uniform", "placebo", "impon"]),
        (
            '["1/3"]',
            [
                "uniform",
                "uniform-fraction@1/3",
                "uniform-short@1/3",
                "placebo@1/3",
                "impon@1/3",
            ],
        ),
        (
            '["1/4", "1/3"]',
            [
                "uniform",
                "uniform-fraction@1/3",
                "uniform-short@1/3",
                "uniform-fraction@1/4",
                "uniform-short@1/4",
                "placebo@1/3",
                "placebo@1/4",
                "impon@1/3",
                "impon@1/4",
            ],
        ),
    ],
)
def test_controls_have_the_shares_of_the_arms(fractions: str, names: list[str]) -> None:
    study_file = compared_study(IMPON, f"compare.epoch_fractions={fractions}")
    assert [arm.name for arm in arms_of(study_file)] == names


def test_controls_of_a_policy_have_the_shares_of_its_own_arms() -> None:
    policies = "compare.policies=[{arms=['impon']}, {weights='ema', arms=['impon@1/2']}]"
    names = [arm.name for arm in arms_of(compared_study(IMPON, policies))]
    assert names == [
        "uniform",
        "placebo",
        "impon",
        "uniform (cosine, ema)",
        "uniform-fraction@1/2 (cosine, ema)",
        "uniform-short@1/2 (cosine, ema)",
        "placebo@1/2 (cosine, ema)",
        "impon@1/2 (cosine, ema)",
    ]


@pytest.mark.parametrize(
    ("name", "epochs", "share", "fraction", "sampler"),
    [
        ("uniform", 6, 1.0, "1", "uniform"),
        ("uniform-fraction@1/3", 6, 1 / 3, "1/3", "uniform"),
        ("uniform-short@1/3", 2, 1.0, "1/3", "uniform"),
        ("placebo", 6, 1.0, "1", "placebo"),
        ("placebo@1/3", 6, 1 / 3, "1/3", "placebo"),
        ("memory", 6, 1.0, "1", "impon-memory"),
        ("memory@1/3", 6, 1 / 3, "1/3", "impon-memory"),
    ],
)
def test_settings_of_each_kind(
    name: str, epochs: int, share: float, fraction: str, sampler: str
) -> None:
    study_file = compared_study("run.epochs=6", 'compare.epoch_fractions=[1, "1/3"]')
    arm = arms_by_name(study_file)[name]
    assert arm.fraction == Fraction(fraction)
    assert (arm.config.epochs, arm.config.epoch_fraction) == (epochs, share)
    assert arm.config.sampler == sampler


def test_all_else_is_the_same_in_every_arm() -> None:
    study_file = compared_study("arms.impon.bank_size=64", "compare.placebo=impon")
    common = study_file.run.model_dump()
    own = {"sampler", "sampler_options", "epochs", "epoch_fraction"}
    for arm in arms_of(study_file):
        differs = {key for key, value in arm.config.model_dump().items() if value != common[key]}
        assert differs <= own


def test_schedule_and_weights_are_those_of_the_policy() -> None:
    arms = arms_of(compared_study(TWO, "run.schedule=constant"))
    for arm in arms:
        found = (arm.config.schedule, arm.config.eval_weights)
        assert found == (arm.policy.schedule, arm.policy.weights)
    assert {str(arm.policy) for arm in arms} == {"constant, last", "rungs, ema"}


@pytest.mark.parametrize(("epochs", "short"), [(1, 1), (2, 1), (5, 2), (9, 4)])
def test_uniform_short_has_whole_epochs_and_at_least_one(epochs: int, short: int) -> None:
    arms = arms_by_name(compared_study(f"run.epochs={epochs}"))
    assert arms["uniform-short@1/2"].config.epochs == short


def test_third_of_the_epochs_is_not_lost_to_rounding() -> None:
    study_file = compared_study("run.epochs=9", 'compare.epoch_fractions=["1/3"]')
    assert arms_by_name(study_file)["uniform-short@1/3"].config.epochs == 3


def test_share_of_an_epoch_that_the_run_asks_for_is_kept() -> None:
    arms = arms_by_name(compared_study("run.epoch_fraction=0.5"))
    found = {name: arm.config.epoch_fraction for name, arm in arms.items()}
    assert found["uniform"] == found["memory"] == found["uniform-short@1/2"] == 0.5
    assert found["uniform-fraction@1/2"] == found["memory@1/2"] == 0.25


def test_uniform_short_warms_up_for_as_large_a_share_of_its_epochs() -> None:
    arms = arms_by_name(compared_study("run.warmup_epochs=3"))
    found = {name: arm.config.warmup_epochs for name, arm in arms.items()}
    assert found.pop("uniform-short@1/2") == 1.5  # of 2, as 3 of 4
    assert set(found.values()) == {3.0}


def test_placebo_walks_the_path_of_its_arm_with_its_options() -> None:
    study_file = tiny_study("arms.impon.reset=never", "compare.placebo=impon")
    splits = load_splits(study_file.run, torch.device("cpu"))
    for name in ("placebo", "placebo@1/2"):
        config = arms_by_name(study_file)[name].config
        assert config.sampler_options == {
            "of": "impon",
            "options": study_file.arms["impon"].sampler_options,
        }
        sampler = TrainingRun(config, splits).sampler
        assert isinstance(sampler, Placebo)
        assert sampler.other.blind
        assert getattr(sampler.other, "bank_size", None) == 64


def test_placebo_is_of_the_claim_unless_another_is_asked_for() -> None:
    def other(*settings: str) -> object:
        return arms_by_name(compared_study(*settings))["placebo"].config.sampler_options["of"]

    assert other() == "impon-memory"
    assert other("compare.claim=impon@1/2") == "impon"
    assert other("compare.placebo=impon") == "impon"


def test_placebo_has_the_reference_of_its_arm() -> None:
    arms = arms_by_name(compared_study("arms.memory.run.reference=crossfit"))
    assert arms["placebo"].config.reference == "crossfit"
    assert not arms["placebo"].taught


@pytest.mark.parametrize(
    ("name", "teacher"),
    [
        ("memory", "uniform cosine"),
        ("memory@1/2", "uniform-fraction@1/2 cosine"),
        ("placebo", "uniform cosine"),
        ("placebo@1/2", "uniform-fraction@1/2 cosine"),
        ("memory@1/2 (rungs, ema)", "uniform-fraction@1/2 rungs"),
    ],
)
def test_arm_that_reads_a_reference_is_taught_by_uniform_sampling(name: str, teacher: str) -> None:
    """At its own share of an epoch and under its own schedule, as a study's first trial would."""
    arms = arms_by_name(compared_study(TWO))
    arm = arms[name]
    assert arm.taught
    assert arm.teacher == teacher
    assert arm.trainings == [arm.training, teacher]
    teachers = [other for other in arms.values() if other.training == teacher]
    assert {other.kind for other in teachers} <= {"uniform", "uniform-fraction"}
    assert {other.config.epoch_fraction for other in teachers} == {arm.config.epoch_fraction}


@pytest.mark.parametrize("name", ["uniform", "uniform-fraction@1/2", "uniform-short@1/2", "impon"])
def test_other_arms_are_trained_by_themselves(name: str) -> None:
    arm = arms_by_name(compared_study())[name]
    assert not arm.taught
    assert arm.trainings == [arm.training]


def test_reference_made_beforehand_needs_no_teacher() -> None:
    arm = arms_by_name(compared_study("arms.memory.run.reference=crossfit"))["memory"]
    assert not arm.taught
    assert arm.config.reference == "crossfit"


def test_policies_that_differ_in_weights_share_their_training() -> None:
    policies = "compare.policies=[{}, {weights='ema'}, {schedule='rungs'}]"
    arms = arms_by_name(compared_study(policies))
    shared = arms["memory@1/2"].training
    assert arms["memory@1/2 (cosine, ema)"].training == shared
    assert arms["memory@1/2 (rungs, last)"].training != shared
    of_first = [arm.training for arm in arms.values() if str(arm.policy) == "cosine, last"]
    assert len(set(of_first)) == len(of_first)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("arms.memory.run.lr=0.3", "lr"),
        ("arms.memory.run.schedule=constant", "schedule"),
        ("arms.memory.run.eval_weights=ema", "eval_weights"),
        ("arms.memory.run.epochs=3", "epochs"),
        ("arms.memory.run.epoch_fraction=0.5", "epoch_fraction"),
        ("arms.memory.run.seed=5", "seed"),
        ("arms.memory.run.subset=200", "subset"),
    ],
)
def test_arm_with_settings_of_its_own_is_refused(setting: str, key: str) -> None:
    complaint = (
        f"arms.memory.run.{key}: all arms of a comparison have the same settings but for batch "
        "sampler and reference. Set it in [run], or schedule and evaluated weights in "
        "compare.policies."
    )
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        arms_of(compared_study(setting))


def test_arm_that_only_the_placebo_walks_must_have_the_common_settings_too() -> None:
    study_file = compared_study(IMPON, "compare.placebo=memory", "arms.memory.run.lr=0.3")
    with pytest.raises(ConfigError, match=r"arms\.memory\.run\.lr: all arms"):
        arms_of(study_file)


def test_arm_outside_the_comparison_may_have_its_own_settings() -> None:
    study_file = compared_study(IMPON, "arms.memory.run.lr=0.3", "arms.uniform.run.lr=0.3")
    assert {arm.config.lr for arm in arms_of(study_file)} == {study_file.run.lr}


def names(arms: list[Arm]) -> list[str]:
    return [arm.name for arm in arms]


def test_arm_is_held_against_controls_of_its_share_and_policy() -> None:
    arms = arms_of(compared_study(TWO))
    by_name = {arm.name: arm for arm in arms}
    assert names(controls_of(by_name["memory"], arms)) == ["placebo"]
    assert names(controls_of(by_name["memory@1/2"], arms)) == [
        "uniform-fraction@1/2",
        "uniform-short@1/2",
        "placebo@1/2",
    ]
    assert names(controls_of(by_name["memory@1/2 (rungs, ema)"], arms)) == [
        "uniform-fraction@1/2 (rungs, ema)",
        "uniform-short@1/2 (rungs, ema)",
        "placebo@1/2 (rungs, ema)",
    ]


def test_arm_is_held_against_uniform_sampling_under_its_policy() -> None:
    arms = arms_of(compared_study(TWO))
    by_name = {arm.name: arm for arm in arms}
    assert uniform_of(by_name["memory@1/2"], arms).name == "uniform"
    assert uniform_of(by_name["impon (rungs, ema)"], arms).name == "uniform (rungs, ema)"


def test_in_hand_each_importance_arm_has_a_placebo_and_all_shares_have_controls() -> None:
    study_file = compared_study(
        'compare.endpoint="in-hand"',
        'compare.epoch_fractions=[1, "1/3"]',
        'compare.policies=[{ arms = ["memory", "impon@1/3"] }]',
    )
    arms = {arm.name: arm for arm in arms_of(study_file)}
    assert list(arms) == [
        "uniform",
        "uniform-fraction@1/3",
        "uniform-short@1/3",
        "placebo-of-memory",
        "placebo-of-impon@1/3",
        "memory",
        "impon@1/3",
    ]
    assert arms["placebo-of-memory"].config.sampler_options["of"] == "impon-memory"
    assert arms["placebo-of-impon@1/3"].config.sampler_options["of"] == "impon"
    assert arms["placebo-of-memory"].taught
    assert not arms["placebo-of-impon@1/3"].taught
    assert arms["placebo-of-impon@1/3"].fraction == Fraction(1, 3)

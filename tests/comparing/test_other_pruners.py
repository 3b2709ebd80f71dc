"""The claim under other pruners: which arms are held against which, and that all of them run."""

from __future__ import annotations

import dataclasses

from impon_hpo.comparing.arms import arms_of, controls_of, uniform_of
from impon_hpo.comparing.other_pruners import OTHER_PRUNERS
from impon_hpo.comparing.summary import summarise_comparison
from tests.comparing.comparisons import compared_study
from tests.comparing.worlds import World

POLICIES = "compare.policies=[{}, {weights='ema'}]"


def test_controls_are_of_the_same_policy_and_share() -> None:
    arms = arms_of(compared_study(POLICIES))
    found = {arm.name: arm for arm in arms}
    names = [arm.name for arm in controls_of(found["memory@1/2"], arms)]
    assert names == ["uniform-fraction@1/2", "uniform-short@1/2", "placebo@1/2"]
    assert [arm.name for arm in controls_of(found["memory"], arms)] == ["placebo"]
    other = "memory@1/2 (cosine, ema)"
    assert all("(cosine, ema)" in arm.name for arm in controls_of(found[other], arms))
    assert uniform_of(found[other], arms).name == "uniform (cosine, ema)"


def test_every_pruner_is_replayed_for_the_claim_and_its_controls() -> None:
    study_file = compared_study('compare.arms=["impon"]', 'compare.epoch_fractions=["1/2"]')
    arms = [dataclasses.replace(arm, taught=False) for arm in arms_of(study_file)]
    recordings = World({}, n_configurations=5).recordings(arms, 2, seed=0)
    summary = summarise_comparison(study_file, recordings)
    rows = summary["pruners"]
    assert {row["pruner"] for row in rows} == set(OTHER_PRUNERS)
    of_each = ["uniform", "uniform-fraction@1/2", "uniform-short@1/2", "placebo@1/2", "impon@1/2"]
    assert [row["arm"] for row in rows[: len(of_each)]] == of_each
    none = [row for row in rows if row["pruner"] == "none"]
    assert none[0]["epochs"] == study_file.protocol.n_trials * 4
    assert all(row["lost_best"] == 0 for row in none)
    assert all(row["cost"] < none[0]["cost"] for row in rows if row["pruner"] == "median")

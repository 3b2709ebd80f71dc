"""The summary of a comparison: what it judges, what it leaves out, and what it says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.recordings_table import Recordings
from impon_hpo.comparing.summary import summarise_comparison
from impon_hpo.console import finite
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.comparisons import compared_study
from tests.comparing.worlds import Effect, World

HALF = 'compare.epoch_fractions=["1/2"]'
IMPON = 'compare.arms=["impon"]'  # which no run teaches, so that a world has all its cells
N_BLOCKS = 6


def study(*settings: str) -> StudyFile:
    return compared_study(HALF, IMPON, f"compare.blocks={N_BLOCKS}", "compare.trials=4", *settings)


def recorded(study_file: StudyFile, world: World, *, leave_out: tuple[str, ...] = ()) -> Recordings:
    arms = [arm for arm in arms_of(study_file) if arm.name not in leave_out]
    # The placebo's path is of a sampler without a reference here, so nothing is taught.
    assert not any(arm.taught for arm in arms)
    return world.recordings(arms, N_BLOCKS, seed=3)


def summary_of(study_file: StudyFile, recordings: Recordings) -> dict[str, Any]:
    return summarise_comparison(study_file, recordings, other_pruners=False)


def test_claim_is_the_verdict() -> None:
    study_file = study()
    cheap = World({"importance": Effect(cost=0.375)}, n_configurations=5)
    summary = summary_of(study_file, recorded(study_file, cheap))
    assert summary["verdict"]["arm"] == "impon@1/2"
    assert summary["verdict"]["word"] == "supported"
    assert summary["verdict"]["sentence"].startswith("Supported: under SuccessiveHalvingPruner")
    # The controls cost what uniform does in this world, so the credit is importance's.
    assert summary["verdict"]["credit"] is True
    by_name = {row["arm"]: row for row in summary["arms"]}
    assert next(iter(by_name)) == "uniform"
    assert "verdict" not in by_name["uniform"]
    assert by_name["uniform"]["cost_to_reach"] == {"2": 1.0, "4": 1.0}
    assert len(summary["verdict"]["per_block"]["cost"]) == N_BLOCKS


def test_controls_that_are_as_cheap_take_the_credit() -> None:
    study_file = study()
    same = Effect(cost=0.375)
    kinds = ("importance", "placebo", "uniform-fraction", "uniform-short")
    world = World(dict.fromkeys(kinds, same), n_configurations=5)
    verdict = summary_of(study_file, recorded(study_file, world))["verdict"]
    assert verdict["word"] == "supported"
    assert verdict["credit"] is False
    assert "fewer rows, not from importance" in verdict["credit_sentence"]


def test_credit_needs_all_controls() -> None:
    study_file = study()
    world = World({"importance": Effect(cost=0.375)}, n_configurations=5)
    found = recorded(study_file, world, leave_out=("placebo@1/2",))
    verdict = summary_of(study_file, found)["verdict"]
    assert verdict["credit"] is False
    assert "is not judged" in verdict["credit_sentence"]


def test_claim_that_is_not_recorded_has_no_verdict() -> None:
    study_file = study()
    world = World({}, n_configurations=5)
    summary = summary_of(study_file, recorded(study_file, world, leave_out=("impon@1/2",)))
    assert summary["verdict"]["word"] == "not recorded yet"
    assert "impon@1/2" not in {row["arm"] for row in summary["arms"]}


def test_policy_is_held_against_its_own_uniform_sampling() -> None:
    study_file = study("compare.policies=[{}, {schedule='constant'}]")
    world = World({"importance": Effect(cost=0.375)}, n_configurations=5)
    summary = summary_of(study_file, recorded(study_file, world))
    by_name = {row["arm"]: row for row in summary["arms"]}
    other = by_name["impon@1/2 (constant, last)"]["verdict"]
    assert other["control"] == "uniform (constant, last)"
    assert [row["policy"] for row in summary["policies"]] == ["cosine, last", "constant, last"]
    assert summary["policies"][0]["against_first"]["cost"]["point"] == 1.0

    # Where a policy has no uniform arm yet, its others are not judged.
    part = recorded(study_file, world, leave_out=("uniform (constant, last)",))
    names = {row["arm"] for row in summary_of(study_file, part)["arms"]}
    assert not any("constant" in name for name in names)


def test_it_is_plain_json_and_the_same_every_time() -> None:
    study_file = study()
    found = recorded(study_file, World({}, n_configurations=5))
    first, second = summary_of(study_file, found), summary_of(study_file, found)
    assert first == second
    assert json.loads(json.dumps(finite(first), allow_nan=False))["study"] == "small"


@pytest.mark.parametrize(("factor", "sign"), [(1.0, 0), (10.0, -1)])
def test_policies_are_held_against_the_first_at_equal_cost(factor: float, sign: int) -> None:
    study_file = study("compare.policies=[{}, {schedule='constant'}]")
    found = recorded(study_file, World({}, n_configurations=5))
    uniform, other = (arm.training for arm in arms_of(study_file) if arm.kind == "uniform")
    rows = [row for row in found.rows if row["training"] != other]
    # The second policy learns what the first one does, and each epoch costs `factor` as much.
    rows += [
        {**row, "training": other, "cost": row["cost"] * factor}
        for row in found.rows
        if row["training"] == uniform
    ]
    summary = summary_of(study_file, Recordings(rows, found.about))
    first, second = (row["against_first"] for row in summary["policies"])
    assert first["budget_gain"]["point"] == 0
    assert second["loss"]["point"] == 0
    assert second["cost"]["point"] == pytest.approx(factor)
    assert np.sign(second["budget_gain"]["point"]) == sign

"""The summary of an invented comparison, for tests of its report."""

from __future__ import annotations

from typing import Any

from impon_hpo.comparing.arms import arms_of
from impon_hpo.comparing.summary import summarise_comparison
from tests.comparing.comparisons import compared_study
from tests.comparing.worlds import Effect, World

NASTY = "<script>alert(1)</script>"
N_BLOCKS = 6


def summary_of(*settings: str, pruners: bool = False) -> dict[str, Any]:
    study_file = compared_study(
        'compare.epoch_fractions=["1/2"]',
        'compare.arms=["impon"]',
        f"compare.blocks={N_BLOCKS}",
        *settings,
    )
    world = World({"importance": Effect(cost=0.375)}, n_configurations=5)
    recordings = world.recordings(arms_of(study_file), N_BLOCKS, seed=1)
    rates = [{"lr": rate} for rate in (0.01, 0.1, 0.003, 0.03, 0.3)]
    environment = {"versions": {"torch": NASTY}, "cpu": "some", "threads": 1}
    about = {
        "configurations": rates,
        "dataset": "digits",
        "command": "impon-hpo compare small",
        "fixed": "2026-11-23",
        "fixed_digest": "a",
        "digest": "a",
        "environments": [environment],
    }
    described = type(recordings)(recordings.rows, about)
    return summarise_comparison(study_file, described, other_pruners=pruners)

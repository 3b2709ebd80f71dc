"""The paper's figures: which runs a view shows, bands, and what a diverged run counts."""

from __future__ import annotations

from typing import Any

import pytest

from impon_hpo.comparing.paper import paper_summary
from impon_hpo.errors import ConfigError, NothingYetError
from impon_hpo.tuning.study_file import StudyFile
from tests.comparing.test_grid import GRID
from tests.studies import small_study

FIGURES = "\n[figures]\nuniform = 0.1\nimpon = 0.01\nimpon-64 = 0.01\n"
BANKS = '\n[arms.impon-64]\nsampler = "impon"\nbank_size = 64\n'
RLS = '\n[arms.impon-rls]\nsampler = "impon"\nestimator = "rls"\n'


def study(*settings: str) -> StudyFile:
    return small_study(*settings, text=GRID + BANKS + RLS + FIGURES)


def result(arm: str, lr: float, seed: int, *accuracies: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "params": {"lr": lr, "batch_size": 32},
        "seed": seed,
        "epochs": [{"val_accuracy": accuracy} for accuracy in accuracies],
        "horizon": 2,
        "steps_per_epoch": 4,
        "step_losses": [[2.0 - seed, 1.0] for _ in accuracies],
        "environment": {"versions": {}, "cpu": "a", "threads": 1},
    }


RESULTS = [
    result("uniform", 0.1, 0, 0.5, 0.6),
    result("uniform", 0.1, 1, 0.3, 0.4),
    result("uniform", 0.01, 0, 0.6, 0.7),
    result("uniform", 0.01, 1, 0.6, 0.9),
    result("impon", 0.01, 0, 0.2, 0.3),
    result("impon", 0.1, 0, 0.2, 0.1),
    result("impon-64", 0.01, 0, 0.2, 0.25),
    result("impon-rls", 0.01, 0, 0.2, 0.25),
]


def test_one_view_at_the_paper_s_rates_and_one_at_each_arm_s_best() -> None:
    given, best = paper_summary(study(), RESULTS)["views"]
    assert {line["arm"]: line["lr"] for line in given["lines"]} == {"uniform": 0.1, "impon": 0.01}
    assert {line["arm"]: line["lr"] for line in best["lines"]} == {"uniform": 0.01, "impon": 0.01}


def test_lines_are_means_over_seeds_in_the_band_of_their_range() -> None:
    (line, _) = paper_summary(study(), RESULTS)["views"][0]["lines"]
    assert line["epoch"] == [1, 2]
    assert line["accuracy"]["mean"] == pytest.approx([40.0, 50.0])
    assert line["accuracy"]["low"] == pytest.approx([30.0, 40.0])
    assert line["accuracy"]["high"] == pytest.approx([50.0, 60.0])
    assert line["iteration"] == [2, 4, 6, 8]  # eight steps in four stretches
    assert line["loss"]["mean"] == pytest.approx([1.5, 1.0, 1.5, 1.0])
    assert line["loss"]["low"] == pytest.approx([1.0, 1.0, 1.0, 1.0])


def test_bank_sizes_are_those_of_the_paper_s_rule_alone() -> None:
    banks = paper_summary(study(), RESULTS)["views"][0]["banks"]
    assert [(bank["bank_size"], bank["mean"]) for bank in banks] == [
        (64, pytest.approx(25.0)),
        (200, pytest.approx(30.0)),
    ]


def test_run_that_diverged_keeps_its_last_accuracy() -> None:
    results = [result("uniform", 0.1, 0, 0.5), result("uniform", 0.1, 1)]
    (line,) = paper_summary(study(), results)["views"][0]["lines"]
    assert line["accuracy"]["mean"] == pytest.approx([25.0, 25.0])
    assert line["iteration"] == []
    assert line["last"]["runs"] == [50.0, 0.0]


def test_mistakes() -> None:
    with pytest.raises(NothingYetError, match="compare-samplers"):
        paper_summary(study(), [])
    with pytest.raises(ConfigError, match=r"\[figures\]"):
        paper_summary(small_study(text=GRID), RESULTS)
    with pytest.raises(ConfigError, match=r"figures: there is no arm 'inpon'.*'impon'"):
        study("figures.inpon=0.1")

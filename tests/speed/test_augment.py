"""Tests of the augmentation benchmark: each name, and its share of a step."""

from __future__ import annotations

import pytest

from benchmarks.augment import measure_augment
from impon_hpo.errors import ConfigError
from impon_hpo.training.augment_setting import NAMES

SMALL = {"model": "resnet18", "width": 2, "side": 16, "batch_size": 8, "device": "cpu"}


def test_each_name_is_timed_beside_a_step() -> None:
    measured = measure_augment(names=[], rounds=1, **SMALL)  # type: ignore[arg-type]
    assert [row["augment"] for row in measured.rows] == list(NAMES)
    for row in measured.rows:
        share = 100 * row["ms"] / measured.settings["step_ms"]
        assert row["percent_of_step"] == pytest.approx(share, rel=0.01)
    taken = {row["augment"]: row["ms"] for row in measured.rows}
    assert taken["rand"] > taken["flip"]  # image by image, and all at once


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="There is no 'rotate'"):
        measure_augment(names=["rotate"], rounds=1, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rounds must be at least 1"):
        measure_augment(names=["crop"], rounds=0, **SMALL)  # type: ignore[arg-type]

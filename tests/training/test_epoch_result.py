"""The result of an epoch: what a forward-equivalent is, and that a result is plain values."""

from __future__ import annotations

import dataclasses
import json

import pytest

from impon_hpo.training.epoch_result import EpochResult, forward_equivalents


@pytest.mark.parametrize(
    ("trained", "scored", "validated", "cost"),
    [(0, 0, 0, 0), (1, 0, 0, 3), (0, 1, 0, 1), (0, 0, 1, 1), (320, 2000, 100, 3060)],
)
def test_training_costs_three_scoring_and_validation_one(
    trained: int, scored: int, validated: int, cost: int
) -> None:
    assert forward_equivalents(trained, scored, validated) == cost


def test_result_survives_json_unchanged() -> None:
    result = EpochResult(1, 2.3, 0.1, 2.2, 320, 0, 100, 1060, 0.1, 0.2, 0.3, 0.9, {"x": 0.5})
    assert EpochResult(**json.loads(json.dumps(dataclasses.asdict(result)))) == result


def test_result_cannot_be_changed() -> None:
    result = EpochResult(1, 2.3, 0.1, 2.2, 320, 0, 100, 1060, 0.1, 0.2, 0.3, 0.9, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.val_accuracy = 1.0  # type: ignore[misc]

"""Resampling: shares and weights by hand, unbiased means, and scores without meaning."""

from __future__ import annotations

import math

import pytest
import torch

from impon_hpo.sampling import resample as resample_module
from impon_hpo.sampling.resample import resample
from tests.sampling.waiting import nothing_waits


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_and_weights_are_those_worked_by_hand() -> None:
    picked, weights = resample(torch.tensor([1.0, 3.0, 0.0, 4.0]), 8000, source())
    shares = (picked.bincount(minlength=4) / 8000).tolist()
    assert shares == pytest.approx([0.125, 0.375, 0.0, 0.5], abs=0.03)
    assert shares[2] == 0
    assert weights.dtype == torch.float32
    for position, weight in {0: 2.0, 1: 2 / 3, 3: 0.5}.items():
        assert weights[picked == position].tolist() == pytest.approx(
            [weight] * int((picked == position).sum())
        )


def test_weighted_mean_is_on_average_that_of_all() -> None:
    values = torch.tensor([1.0, 10.0, -4.0, 2.0])  # mean 2.25
    picked, weights = resample(torch.tensor([0.5, 2.0, 1.0, 0.1]), 40_000, source())
    assert float((weights * values[picked]).mean()) == pytest.approx(2.25, abs=0.1)
    assert float(values[picked].mean()) > 4


def test_scale_of_the_scores_does_not_matter() -> None:
    scores = torch.tensor([1.0, 2.0, 5.0])
    expected = resample(scores, 20, source())
    for scale in (1e-30, 1e30):
        picked, weights = resample(scores * scale, 20, source())
        assert picked.tolist() == expected[0].tolist()
        torch.testing.assert_close(weights, expected[1])


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, 1e-45])
def test_all_are_equally_likely_where_no_score_says_otherwise(value: float) -> None:
    picked, weights = resample(torch.full((4,), value), 4000, source())
    assert (picked.bincount(minlength=4) / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    assert weights.tolist() == pytest.approx([1.0] * 4000)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_taken_for_zero(value: float) -> None:
    picked, weights = resample(torch.tensor([1.0, value, 1.0]), 300, source())
    assert set(picked.tolist()) == {0, 2}
    assert weights.tolist() == pytest.approx([2 / 3] * 300)


def test_weights_are_finite_for_the_most_unlikely_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resample_module, "choose_repeatedly", lambda *_: torch.tensor([0, 1]))
    for score in (0.0, 1e-40, 1e-30):
        _, weights = resample(torch.tensor([score, 1.0]), 2, source())
        assert weights.tolist() == pytest.approx([5e11, 0.5])


def test_resampling_would_not_wait_for_a_gpu() -> None:
    scores = torch.tensor([1.0, math.nan, 1.0])
    with nothing_waits():
        picked, _ = resample(scores, 5, source())
    assert len(picked) == 5

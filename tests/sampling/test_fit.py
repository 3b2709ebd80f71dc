"""The fit of an estimator: Spearman as SciPy has it, R² as scikit-learn, and where neither is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from torch import Tensor

from impon_hpo.sampling.fit import EstimatorFit, rank_correlation

NAN = math.nan


def spearman(first: Tensor, second: Tensor) -> float:
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


@given(
    seed=st.integers(0, 10**6), n_rows=st.integers(3, 40), n_values=st.sampled_from([3, 8, 10**9])
)
@settings(max_examples=40)
def test_rank_correlation_is_that_of_scipy_with_ties_too(
    seed: int, n_rows: int, n_values: int
) -> None:
    source = torch.Generator().manual_seed(seed)
    first, second = torch.randint(n_values, (2, 6, n_rows), generator=source).double()
    first[:, 0], first[:, 1] = -1, n_values  # never constant
    second[:, 1], second[:, 2] = -1, n_values
    found = rank_correlation(first, second)
    expected = [spearman(one, other) for one, other in zip(first, second, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [10, 20, 1000], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),  # 1 - 6·2 / (4·15)
        ([1, 1, 2], [1, 2, 2], 0.5),  # ranks 1.5 1.5 3 and 1 2.5 2.5
    ],
)
def test_rank_correlation_is_the_one_worked_by_hand(
    first: list[float], second: list[float], expected: float
) -> None:
    found = rank_correlation(torch.tensor([first]).double(), torch.tensor([second]).double())
    assert found.tolist() == pytest.approx([expected])


def test_rank_correlation_with_a_constant_is_nan() -> None:
    rising, constant = torch.arange(4.0)[None], torch.ones(1, 4)
    for first, second in ((rising, constant), (constant, rising), (constant, constant)):
        assert rank_correlation(first, second).isnan().all()


def fit_of(*batches: tuple[list[float], list[float]]) -> dict[str, float]:
    fit = EstimatorFit()
    for predicted, observed in batches:
        fit.add(torch.tensor(predicted), torch.tensor(observed))
    return fit.measures()


def test_measures_are_those_of_scipy_and_sklearn_over_batches() -> None:
    source = torch.Generator().manual_seed(2)
    observed = torch.rand(9, 16, generator=source)
    predicted = observed + 0.2 * torch.randn(9, 16, generator=source)
    fit = EstimatorFit()
    for one, other in zip(predicted, observed, strict=True):
        fit.add(one, other)
    found = fit.measures()
    ranks = [spearman(one, other) for one, other in zip(predicted, observed, strict=True)]
    assert found["rank_correlation"] == pytest.approx(sum(ranks) / 9)
    expected = r2_score(observed.flatten().numpy(), predicted.flatten().numpy())
    assert found["r_squared"] == pytest.approx(expected)
    assert 0 < found["r_squared"] < 1


def test_r_squared_is_of_the_whole_epoch_and_can_be_negative() -> None:
    # Observed 1 3 5 7 are off their mean by 20 in all; predictions by 4 · 3² = 36.
    found = fit_of(([4.0, 6.0], [1.0, 3.0]), ([8.0, 10.0], [5.0, 7.0]))
    assert found == pytest.approx({"rank_correlation": 1.0, "r_squared": 1 - 36 / 20})


def test_no_batch_is_nan() -> None:
    found = EstimatorFit().measures()
    assert list(found) == ["rank_correlation", "r_squared"]
    assert all(math.isnan(value) for value in found.values())


def test_constant_losses_have_neither() -> None:
    assert all(math.isnan(value) for value in fit_of(([1.0, 2.0], [3.0, 3.0])).values())


def test_constant_predictions_have_no_rank_correlation() -> None:
    found = fit_of(([2.0, 2.0], [1.0, 3.0]))
    assert math.isnan(found["rank_correlation"])
    assert found["r_squared"] == 0.0


def test_batch_without_a_rank_correlation_does_not_count_in_the_mean() -> None:
    found = fit_of(([1.0, 2.0], [2.0, 1.0]), ([1.0, 1.0], [2.0, 1.0]))
    assert found["rank_correlation"] == pytest.approx(-1.0)


@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_batches_that_are_not_finite_are_left_out(bad: float) -> None:
    good = ([1.0, 2.0, 4.0], [2.0, 1.0, 6.0])
    expected = fit_of(good)
    assert math.isfinite(sum(expected.values()))
    for worse in (([1.0, bad, 2.0], [3.0, 2.0, 1.0]), ([1.0, 0.0, 2.0], [3.0, 2.0, bad])):
        assert fit_of(good, worse) == expected
        assert all(math.isnan(value) for value in fit_of(worse).values())


def test_cleared_fit_begins_again() -> None:
    fit = EstimatorFit()
    fit.add(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]))
    fit.clear()
    assert math.isnan(fit.measures()["r_squared"])
    fit.add(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert fit.measures() == pytest.approx({"rank_correlation": 1.0, "r_squared": 1.0})

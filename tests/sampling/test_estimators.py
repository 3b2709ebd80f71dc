"""The loss estimators: their steps by hand and against PyTorch, SciPy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from torch import Tensor, nn

from impon_hpo.sampling.estimators import (
    EstimatorFit,
    Init,
    LinearEstimator,
    RecursiveLeastSquares,
    finite_rows,
    rank_correlation,
)
from tests.sampling.courses import assert_finite, assert_same, through_a_file

NAN, INF = math.nan, math.inf


def estimator(
    n_features: int = 2, *, lr: float = 0.1, init: Init = "zeros", seed: int = 0
) -> LinearEstimator:
    source = torch.Generator().manual_seed(seed)
    return LinearEstimator(n_features, lr=lr, init=init, generator=source)


def prepared(*, lr: float = 0.1) -> LinearEstimator:
    """ŷ = 0.5 c₁ - c₂ + 0.25."""
    made = estimator(lr=lr)
    made.load_state_dict({"weight": torch.tensor([0.5, -1.0]), "bias": torch.tensor(0.25)})
    return made


def assert_is(made: LinearEstimator, weight: list[float], bias: float) -> None:
    assert made.weight.tolist() == pytest.approx(weight, abs=1e-6)
    assert float(made.bias) == pytest.approx(bias, abs=1e-6)


CONTEXT = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
LOSSES = torch.tensor([1.0, 3.0])
# Predictions -1.25 and 2.75, errors -2.25 and -0.25, 2/B = 1: the gradient of a is
# -2.25·(1, 2) - 0.25·(3, -1) = (-3, -4.25), that of β -2.5.
AFTER = [0.8, -0.575], 0.5


def test_prediction_is_linear() -> None:
    predicted = prepared().predict(CONTEXT)
    assert predicted.tolist() == [-1.25, 2.75]
    assert predicted.dtype == torch.float32


def test_what_all_rows_share_can_be_given_once() -> None:
    shared = torch.tensor([2.0])
    whole = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert prepared().predict(whole[:, :1], shared).tolist() == [-1.25, -0.25]
    assert prepared().predict(whole).tolist() == [-1.25, -0.25]


def test_step_is_the_one_worked_by_hand() -> None:
    made = prepared()
    made.update(CONTEXT, LOSSES)
    assert_is(made, *AFTER)


def test_second_step_starts_from_the_first() -> None:
    made = prepared()
    made.update(CONTEXT, LOSSES)
    # Predictions 0.15 and 3.475; errors -0.85 and 0.475.
    made.update(CONTEXT, LOSSES)
    assert_is(made, [0.8 - 0.0575, -0.575 + 0.2175], 0.5375)


def test_step_is_the_mean_over_the_batch_so_repeats_change_nothing() -> None:
    made = prepared()
    made.update(CONTEXT.repeat(5, 1), LOSSES.repeat(5))
    assert_is(made, *AFTER)


def test_step_grows_with_the_learning_rate() -> None:
    made = prepared(lr=0.2)
    made.update(CONTEXT, LOSSES)
    assert_is(made, [1.1, -0.15], 0.75)


def test_steps_are_those_of_pytorch() -> None:
    source = torch.Generator().manual_seed(3)
    made = estimator(7, lr=0.03, init="uniform")
    linear = nn.Linear(7, 1)
    linear.load_state_dict({"weight": made.weight[None], "bias": made.bias[None]})
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.03)
    for n_rows in (16, 16, 1, 5, 16):
        context = torch.randn(n_rows, 7, generator=source)
        losses = torch.rand(n_rows, generator=source) * 3
        predicted = linear(context)[:, 0]
        torch.testing.assert_close(made.predict(context), predicted.detach())
        optimizer.zero_grad()
        nn.functional.mse_loss(predicted, losses).backward()
        optimizer.step()
        made.update(context, losses)
        torch.testing.assert_close(made.weight, linear.weight.detach()[0])
        torch.testing.assert_close(made.bias, linear.bias.detach()[0])


@pytest.mark.parametrize(
    ("context", "loss"),
    [
        ([1.0, 1.0], NAN),
        ([1.0, 1.0], INF),
        ([1.0, 1.0], -INF),
        ([0.0, 0.0], INF),
        ([NAN, 1.0], 1.0),
        ([1.0, INF], 1.0),
        ([-INF, NAN], NAN),
    ],
)
def test_rows_that_are_not_finite_are_left_out(context: list[float], loss: float) -> None:
    made = prepared()
    bad = torch.tensor([context])
    made.update(
        torch.cat([bad, CONTEXT[:1], bad, CONTEXT[1:]]),
        torch.tensor([loss, LOSSES[0], loss, LOSSES[1]]),
    )
    assert_is(made, *AFTER)
    made.update(bad, torch.tensor([loss]))
    assert_is(made, *AFTER)


def test_inputs_of_a_step_are_not_changed() -> None:
    context, losses = torch.tensor([[NAN, 1.0], [2.0, 1.0]]), torch.tensor([1.0, NAN])
    prepared().update(context, losses)
    assert context[1].tolist() == [2.0, 1.0]
    assert context[0].isnan().tolist() == [True, False]
    assert losses.isnan().tolist() == [False, True]


def test_zeros_begin_with_zeros_and_reset_to_them() -> None:
    made = estimator()
    assert_is(made, [0.0, 0.0], 0.0)
    made.update(CONTEXT, LOSSES)
    assert float(made.bias) > 0
    made.reset()
    assert_is(made, [0.0, 0.0], 0.0)


def test_uniform_begins_as_a_linear_layer_does() -> None:
    made = estimator(10_000, init="uniform")
    torch.manual_seed(0)
    theirs = nn.Linear(10_000, 1).weight.detach()[0]
    for weight in (made.weight, theirs):
        assert 0.0099 < float(weight.max()) <= 0.01
        assert -0.01 <= float(weight.min()) < -0.0099
        assert float(weight.std()) == pytest.approx(0.01 / math.sqrt(3), rel=0.03)
        assert abs(float(weight.mean())) < 3e-4


def test_uniform_bias_is_drawn_in_the_same_bounds() -> None:
    biases = torch.stack([estimator(4, init="uniform", seed=seed).bias for seed in range(300)])
    assert 0.45 < float(biases.max()) <= 0.5
    assert -0.5 <= float(biases.min()) < -0.45


def test_reset_draws_anew_from_the_generator() -> None:
    first, twin = (estimator(5, init="uniform", seed=4) for _ in range(2))
    drawn: list[list[float]] = []
    for _ in range(3):
        assert first.weight.tolist() == twin.weight.tolist()
        assert float(first.bias) == float(twin.bias)
        assert first.weight.tolist() not in drawn
        drawn.append(first.weight.tolist())
        first.reset()
        twin.reset()
    assert estimator(5, init="uniform", seed=5).weight.tolist() not in drawn


def test_state_is_taken_over_and_is_a_copy() -> None:
    source = estimator(3, init="uniform")
    state = source.state_dict()
    kept: dict[str, Tensor] = {key: value.clone() for key, value in state.items()}
    other = estimator(3)
    other.load_state_dict(state)
    context, losses = torch.ones(4, 3), torch.full((4,), 2.0)
    assert torch.equal(other.predict(context), source.predict(context))
    source.update(context, losses)
    assert not torch.equal(other.predict(context), source.predict(context))
    other.update(context, losses)
    assert torch.equal(other.predict(context), source.predict(context))
    assert all(torch.equal(state[key], kept[key]) for key in kept)


@pytest.mark.parametrize("init", ["uniform", "zeros"])
@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_shrinking_keeps_a_share_of_what_was_learnt(init: Init, factor: float) -> None:
    made, fresh = (estimator(2, init=init, seed=7) for _ in range(2))
    made.load_state_dict({"weight": torch.tensor([4.0, -8.0]), "bias": torch.tensor(2.0)})
    made.shrink(factor)
    fresh.reset()
    assert_is(
        made,
        [
            (1 - factor) * new + factor * old
            for new, old in zip(fresh.weight.tolist(), (4.0, -8.0), strict=True)
        ],
        (1 - factor) * float(fresh.bias) + factor * 2.0,
    )


def test_rows_are_finite_only_where_every_value_is() -> None:
    values = torch.ones(5, 3)
    values[1, 0], values[2, 1], values[3, 2] = float("nan"), float("inf"), -float("inf")
    values[4] = torch.finfo(torch.float32).max  # whose sum is not finite
    assert finite_rows(values).tolist() == [True, False, False, False, True]


Floats = NDArray[np.float64]


def squares(
    n_features: int = 1, forgetting: float = 1.0, ridge: float = 2.0
) -> RecursiveLeastSquares:
    return RecursiveLeastSquares(
        n_features, forgetting=forgetting, ridge=ridge, device=torch.device("cpu")
    )


def tell(estimator: RecursiveLeastSquares, *seen: tuple[float, float]) -> None:
    """Learn from one batch of (x, loss)."""
    x, losses = zip(*seen, strict=True)
    context = torch.tensor(x, dtype=torch.float32)[:, None]
    estimator.update(context, torch.tensor(losses, dtype=torch.float32))


def weights_of(estimator: RecursiveLeastSquares) -> list[float]:
    return [*estimator.state_dict()["weight"].tolist()]


def regression(batches: list[tuple[Floats, Floats]], forgetting: float, ridge: float) -> Floats:
    """The same weights by one least-squares problem (QR, not normal equations), intercept last."""
    n_features = batches[0][0].shape[1]
    left, right = [np.sqrt(ridge) * np.eye(n_features, n_features + 1)], [np.zeros(n_features)]
    for age, (context, losses) in enumerate(reversed(batches)):
        factor = forgetting ** (age / 2)
        left.append(factor * np.c_[context, np.ones(len(context))])
        right.append(factor * losses)
    result = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0]
    return np.asarray(result, dtype=np.float64)


def test_everything_is_predicted_as_zero_at_first() -> None:
    predicted = squares(3).predict(torch.ones(2, 3))
    assert predicted.tolist() == [0.0, 0.0]
    assert predicted.dtype == torch.float32


def test_weights_are_those_worked_by_hand() -> None:
    estimator = squares(ridge=2.0)
    tell(estimator, (0, 1), (2, 5))
    # Means 1 and 3; Σ (x - 1)(l - 3) = 4, Σ (x - 1)² = 2: slope 4 / (2 + 2), intercept 3 - 1.
    assert weights_of(estimator) == pytest.approx([1, 2])
    assert estimator.predict(torch.tensor([[0.0], [10.0]])).tolist() == pytest.approx([2, 12])


def test_squares_take_what_all_rows_share_once() -> None:
    estimator = squares(n_features=3)
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(20, 3, generator=generator)
    context[:, 1:] = torch.tensor([2.0, -1.0])
    estimator.update(context, torch.rand(20, generator=generator))
    torch.testing.assert_close(
        estimator.predict(context[:, :1], context[0, 1:]), estimator.predict(context)
    )


def test_older_batches_count_less() -> None:
    estimator = squares(ridge=2.0, forgetting=0.5)
    tell(estimator, (0, 1), (2, 5))
    tell(estimator, (1, 6), (1, 6))
    # Weights ½, ½, 1, 1: means 1 and 5; slope 2 / (1 + 2): the ridge is not forgotten.
    assert weights_of(estimator) == pytest.approx([2 / 3, 13 / 3])


@given(
    seed=st.integers(0, 2**31 - 1),
    n_features=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=8),
    forgetting=st.floats(0.3, 1),
    ridge=st.floats(0.01, 100),
)
@settings(max_examples=40)
def test_weights_are_those_of_one_weighted_ridge_regression(
    seed: int, n_features: int, sizes: list[int], forgetting: float, ridge: float
) -> None:
    draws = np.random.default_rng(seed)
    estimator = squares(n_features, forgetting, ridge)
    batches: list[tuple[Floats, Floats]] = []
    for size in sizes:
        context = draws.normal(1, 1, (size, n_features)).astype(np.float32)
        losses = draws.exponential(2, size).astype(np.float32)
        estimator.update(torch.from_numpy(context), torch.from_numpy(losses))
        batches.append((context.astype(np.float64), losses.astype(np.float64)))
    expected = regression(batches, forgetting, ridge)
    assert weights_of(estimator) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_intercept_is_not_penalised() -> None:
    estimator = squares(ridge=1e9)
    tell(estimator, (0, 1), (3, 4), (-2, 16))
    assert weights_of(estimator) == pytest.approx([0, 7], abs=1e-6)


def test_ridge_shrinks_the_slope() -> None:
    slopes = []
    for ridge in (1e-9, 2.0, 6.0):
        estimator = squares(ridge=ridge)
        tell(estimator, (0, 1), (2, 5))
        slopes.append(weights_of(estimator)[0])
    assert slopes == pytest.approx([2, 1, 0.5])


def test_linear_law_is_recovered() -> None:
    estimator = squares(2, ridge=1e-9, forgetting=0.9)
    context = torch.tensor([[0.0, 1.0], [2.0, -1.0], [1.0, 1.0], [3.0, 0.5], [-1.0, 2.0]])
    losses = 3 * context[:, 0] - 2 * context[:, 1] + 0.5
    for _ in range(3):
        estimator.update(context, losses)
    assert weights_of(estimator) == pytest.approx([3, -2, 0.5], abs=1e-6)
    assert estimator.predict(torch.tensor([[10.0, 4.0]])).tolist() == pytest.approx([22.5])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_squares_do_not_count_rows_that_are_not_finite(bad: float) -> None:
    estimator = squares(ridge=2.0)
    tell(estimator, (0, 1), (bad, 3), (2, 5), (4, bad), (bad, bad))
    assert weights_of(estimator) == pytest.approx([1, 2])
    assert_finite(estimator.state_dict())


def test_batch_of_no_finite_row_only_forgets() -> None:
    estimator = squares(ridge=2.0, forgetting=0.5)
    tell(estimator, (0, 1), (2, 5))
    tell(estimator, (0, math.nan))
    # Half of 4 over half of 2 plus a ridge of 2.
    assert weights_of(estimator) == pytest.approx([2 / 3, 7 / 3])
    for _ in range(2000):
        tell(estimator, (math.nan, 1.0))
    assert_finite(estimator.state_dict())
    tell(estimator, (0, 1), (2, 5))
    assert weights_of(estimator) == pytest.approx([1, 2])


def test_shrinking_to_nothing_forgets_all() -> None:
    estimator = squares(ridge=2.0)
    tell(estimator, (5, 100), (-3, 7))
    estimator.shrink(0.0)
    assert weights_of(estimator) == [0, 0]
    tell(estimator, (0, 1), (2, 5))
    assert weights_of(estimator) == pytest.approx([1, 2])


def test_shrinking_by_half_halves_what_was_seen() -> None:
    estimator = squares(ridge=2.0)
    tell(estimator, (0, 1), (2, 5))
    estimator.shrink(0.5)
    assert weights_of(estimator) == pytest.approx([2 / 3, 7 / 3])
    tell(estimator, (1, 6), (1, 6))
    assert weights_of(estimator) == pytest.approx([2 / 3, 13 / 3])


def test_state_brings_back_what_was_learnt_and_stays_as_saved() -> None:
    saved, loaded = squares(forgetting=0.5), squares(forgetting=0.5)
    tell(saved, (0, 1), (2, 5))
    tell(loaded, (4, 4))  # to be forgotten
    state = saved.state_dict()
    kept = through_a_file(state)
    loaded.load_state_dict(state)
    assert weights_of(loaded) == pytest.approx([1, 2])
    for estimator in (saved, loaded):
        tell(estimator, (1, 6), (1, 6))
        assert weights_of(estimator) == pytest.approx([2 / 3, 13 / 3])
    assert_same(state, kept)


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
    result = rank_correlation(first, second)
    expected = [spearman(one, other) for one, other in zip(first, second, strict=True)]
    assert result.tolist() == pytest.approx(expected, abs=1e-9)


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
    result = rank_correlation(torch.tensor([first]).double(), torch.tensor([second]).double())
    assert result.tolist() == pytest.approx([expected])


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
    result = fit.measures()
    ranks = [spearman(one, other) for one, other in zip(predicted, observed, strict=True)]
    assert result["rank_correlation"] == pytest.approx(sum(ranks) / 9)
    expected = r2_score(observed.flatten().numpy(), predicted.flatten().numpy())
    assert result["r_squared"] == pytest.approx(expected)
    assert 0 < result["r_squared"] < 1


def test_r_squared_is_of_the_whole_epoch_and_can_be_negative() -> None:
    # Observed 1 3 5 7 are off their mean by 20 in all; predictions by 4 · 3² = 36.
    result = fit_of(([4.0, 6.0], [1.0, 3.0]), ([8.0, 10.0], [5.0, 7.0]))
    assert result == pytest.approx({"rank_correlation": 1.0, "r_squared": 1 - 36 / 20})


def test_no_batch_is_nan() -> None:
    result = EstimatorFit().measures()
    assert list(result) == ["rank_correlation", "r_squared"]
    assert all(math.isnan(value) for value in result.values())


def test_constant_losses_have_neither() -> None:
    assert all(math.isnan(value) for value in fit_of(([1.0, 2.0], [3.0, 3.0])).values())


def test_constant_predictions_have_no_rank_correlation() -> None:
    result = fit_of(([2.0, 2.0], [1.0, 3.0]))
    assert math.isnan(result["rank_correlation"])
    assert result["r_squared"] == 0.0


def test_batch_without_a_rank_correlation_does_not_count_in_the_mean() -> None:
    result = fit_of(([1.0, 2.0], [2.0, 1.0]), ([1.0, 1.0], [2.0, 1.0]))
    assert result["rank_correlation"] == pytest.approx(-1.0)


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

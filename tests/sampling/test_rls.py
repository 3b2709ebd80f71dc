"""Recursive least squares: its weights by hand and against regression at once, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from impon_hpo.sampling.rls import RecursiveLeastSquares
from tests.sampling.courses import assert_finite, assert_same, through_a_file

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
    found = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0]
    return np.asarray(found, dtype=np.float64)


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


def test_what_all_rows_share_can_be_given_once() -> None:
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
def test_rows_that_are_not_finite_do_not_count(bad: float) -> None:
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

"""The mixture of two Gaussians: against scikit-learn's, its properties, and at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch import Tensor

from impon_hpo.sampling.mixture import two_gaussians

NUMBERS = st.floats(0, 1e6, width=32) | st.sampled_from([0.0, 1.0, 1e-30, 1e30])


def two_groups(n: int, share: float, distance: float, *, seed: int = 0) -> Tensor:
    """Values of standard deviation 1 around 0, and a share of them around `distance`."""
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[: round(share * n)] += distance
    return values.float()


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("distance", [3.0, 6.0])
def test_it_is_that_of_scikit_learn(share: float, distance: float) -> None:
    losses = two_groups(3000, share, distance)
    mixture = two_gaussians(losses)
    column = losses.double().numpy()[:, None]
    theirs = GaussianMixture(2, tol=1e-9, max_iter=2000, n_init=3, random_state=0).fit(column)
    upper = int(np.argmax(theirs.means_[:, 0]))
    means, variances = theirs.means_[:, 0], theirs.covariances_[:, 0, 0]
    separation = math.sqrt(2) * abs(means[1] - means[0]) / math.sqrt(variances.sum())
    assert float(mixture.separation) == pytest.approx(separation, rel=0.01)
    assert float(mixture.share) == pytest.approx(theirs.weights_[upper], abs=0.01)
    probability = theirs.predict_proba(column)[:, upper]
    np.testing.assert_allclose(mixture.probability.numpy(), probability, atol=0.02)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_it_says_how_many_lie_apart_and_which(share: float) -> None:
    mixture = two_gaussians(two_groups(2000, share, 6.0))
    assert float(mixture.share) == pytest.approx(share, abs=0.01)
    assert float(mixture.separation) > 3
    n_apart = round(share * 2000)
    assert float(mixture.probability[:n_apart].mean()) > 0.98
    assert float(mixture.probability[n_apart:].mean()) < 0.01


@given(values=st.lists(NUMBERS, max_size=60))
@settings(max_examples=25)
def test_it_is_finite_and_in_range(values: list[float]) -> None:
    mixture = two_gaussians(torch.tensor(values))
    assert mixture.probability.shape == (len(values),)
    for part in (mixture.probability, mixture.share):
        assert bool(((part >= 0) & (part <= 1)).all())
    assert 0 <= float(mixture.separation) < math.inf


@given(values=st.lists(NUMBERS, min_size=1, max_size=60), seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_another_order_gives_the_same_to_the_bit(values: list[float], seed: int) -> None:
    losses = torch.tensor(values)
    order = torch.randperm(len(losses), generator=torch.Generator().manual_seed(seed))
    straight, turned = two_gaussians(losses), two_gaussians(losses[order])
    assert torch.equal(straight.probability[order], turned.probability)
    assert torch.equal(straight.separation, turned.separation)
    assert torch.equal(straight.share, turned.share)


@given(factor=st.sampled_from([1e-20, 0.5, 3.0, 1e20]), seed=st.integers(0, 100))
@settings(max_examples=25)
def test_scale_does_not_matter(factor: float, seed: int) -> None:
    losses = two_groups(300, 0.3, 4.0, seed=seed)
    one, other = two_gaussians(losses), two_gaussians(losses * factor)
    torch.testing.assert_close(one.probability, other.probability, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.separation, other.separation, atol=0, rtol=1e-4)


@given(seed=st.integers(0, 1000), share=st.floats(0.3, 0.7))
@settings(max_examples=25)
def test_larger_values_are_likelier_where_variances_are_alike(seed: int, share: float) -> None:
    losses = two_groups(400, share, 8.0, seed=seed)
    inner = losses[(losses > -2) & (losses < 10)].sort().values
    probability = two_gaussians(inner).probability
    assert bool((probability.diff() >= -1e-6).all())


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-38, 3e38])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_equal_values_are_not_apart(value: float, n: int) -> None:
    mixture = two_gaussians(torch.full((n,), value))
    assert float(mixture.separation) == 0
    assert bool(torch.isfinite(mixture.probability).all())


@pytest.mark.parametrize("n", [4096, 4097, 30_000])
def test_many_values_give_much_the_same(n: int) -> None:
    mixture = two_gaussians(two_groups(n, 0.3, 6.0))
    assert mixture.probability.shape == (n,)
    assert float(mixture.share) == pytest.approx(0.3, abs=0.01)
    assert float(mixture.separation) == pytest.approx(6.0, abs=0.2)


def test_one_group_has_one_peak() -> None:
    assert float(two_gaussians(two_groups(5000, 0.0, 0.0)).separation) < 2

"""A mixture of two Gaussians on the losses of rows: whether labels are wrong, and which."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from impon_hpo.sampling.checks import describe

N_ITERATIONS = 200
N_FITTED = 4096
"""Values that are fitted at most."""
SPLITS = (0.25, 0.5, 0.75, 0.9)
"""Shares of the ordered values at which the lower component ends at first."""
SMALLEST_VARIANCE = 0.01
"""Of a component, as a share of the variance of all values."""
Fit = tuple[Tensor, Tensor, Tensor]
"""(starts, 2) means, variances and weights of the components."""


@dataclass(frozen=True, repr=False)
class Mixture:
    """Two Gaussians fitted to n values; the upper one is that with the larger mean.

    Args:
        separation: () float32, Ashman's D = √2 (μ₂ - μ₁) / √(σ₁² + σ₂²), at least 0. Above 2 the
            two components are two peaks (Ashman, Bird, Zepf 1994).
        share: () float32, weight of the upper component, 0 … 1.
        probability: (n,) float32, probability of each value to be from the upper component, 0 … 1.
    """

    separation: Tensor
    share: Tensor
    probability: Tensor

    def __repr__(self) -> str:
        return describe(self)


def two_gaussians(losses: Tensor) -> Mixture:
    """Fit a mixture of two Gaussians to the losses of rows by expectation maximisation.

    It begins with several splits of the ordered values, takes a fixed number of steps, and keeps
    the likeliest mixture. So the same losses give the same mixture in any order, and the host never
    waits for a GPU. Of many values, evenly spaced order statistics are fitted. The values are taken
    as they are: pass the logarithm of the losses where that separates better.

    Args:
        losses: (n,) finite numbers, any scale; equal values give a separation of 0.

    Returns:
        The mixture, on the device of `losses`.

    Example:
        >>> import torch
        >>> from impon_hpo.sampling.mixture import two_gaussians
        >>> losses = torch.cat([torch.linspace(0.0, 1.0, 30), torch.linspace(4.0, 5.0, 10)])
        >>> mixture = two_gaussians(losses)
        >>> round(float(mixture.share), 2), float(mixture.separation) > 2
        (0.25, True)
        >>> [round(float(mixture.probability[row]), 2) for row in (0, 29, 30, 39)]
        [0.0, 0.0, 1.0, 1.0]
    """
    n = len(losses)
    if n == 0:
        nothing = losses.new_zeros((), dtype=torch.float32)
        return Mixture(nothing, nothing, losses.new_zeros(0, dtype=torch.float32))
    # Ordered, so that sums do not depend on the order of the rows.
    values, order = torch.sort(losses.double(), stable=True)
    width = values[-1] - values[0]
    values = (values - values[0]) / torch.where(width > 0, width, 1.0)
    sample = values
    if n > N_FITTED:
        at = torch.arange(N_FITTED, dtype=torch.float64, device=values.device)
        sample = values[(at * (n / N_FITTED)).long()]
    fit = _first_fit(sample)
    for _ in range(N_ITERATIONS):
        fit = _next_fit(sample, fit)
    likelihood = _log_density(sample, fit).logsumexp(1).mean(1)
    best = likelihood.argmax().reshape(1)
    likeliest = fit[0][best], fit[1][best], fit[2][best]
    mean, variance, weight = (part[0] for part in likeliest)
    lower, upper = _log_density(values, likeliest)[0]
    swapped = mean[1] < mean[0]
    logit = torch.where(swapped, lower - upper, upper - lower)
    probability = torch.empty_like(logit).scatter_(0, order, torch.sigmoid(logit))
    separation = math.sqrt(2) * (mean[1] - mean[0]).abs() / variance.sum().sqrt()
    share = torch.where(swapped, weight[0], weight[1])
    return Mixture(separation.float(), share.float(), probability.float())


def _first_fit(values: Tensor) -> Fit:
    """Return the fits of ordered values (n,) split at the shares `SPLITS`."""
    n = len(values)
    first = torch.arange(n, device=values.device)
    splits = [max(1, min(n - 1, round(share * n))) for share in SPLITS]
    upper = torch.stack([(first >= split).double() for split in splits])
    return _fit(values, torch.stack([1 - upper, upper], dim=1))


def _next_fit(values: Tensor, fit: Fit) -> Fit:
    return _fit(values, _log_density(values, fit).softmax(1))


def _fit(values: Tensor, belongs: Tensor) -> Fit:
    """Fit components to values (n,) that belong to each by (starts, 2, n) probabilities."""
    total = belongs.sum(2).clamp_min(1e-12)
    mean = (belongs @ values) / total
    variance = (belongs * (values - mean[..., None]).square()).sum(2) / total
    floor = SMALLEST_VARIANCE * values.var(correction=0) + 1e-30
    return mean, variance.clamp_min(floor), total / len(values)


def _log_density(values: Tensor, fit: Fit) -> Tensor:
    """Return (starts, 2, n): the log density of each component times its weight, but for 1/√2π."""
    mean, variance, weight = (part[..., None] for part in fit)
    return weight.log() - 0.5 * variance.log() - 0.5 * (values - mean).square() / variance

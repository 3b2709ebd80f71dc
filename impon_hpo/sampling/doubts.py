"""Doubts: which labels a reference finds wrong, and whether it can tell at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from impon_hpo.sampling.checks import describe
from impon_hpo.sampling.mixture import two_gaussians
from impon_hpo.sampling.reference import Reference

SEPARATION = 1.75
"""Ashman's D from which the losses of right and of wrong labels are taken to be two peaks."""
PLAUSIBLE = 0.02, 0.6
"""Bounds of the upper component's weight. Fewer rows are not worth it; more are hard, not wrong."""


@dataclass(frozen=True, repr=False)
class Doubts:
    """What a reference says of n labels.

    Args:
        separation: () float32, Ashman's D of the two groups of losses.
        share: () float32, weight of the upper group, 0 … 1.
        probability: (n,) float32, 0 … 1, of each label to be wrong.
        noticed: () bool, whether labels are wrong as far as the reference can tell.
    """

    separation: Tensor
    share: Tensor
    probability: Tensor
    noticed: Tensor

    def __repr__(self) -> str:
        return describe(self)


def doubts_of(reference: Reference, labels: Tensor, *, separation: float = SEPARATION) -> Doubts:
    """Return which labels (n,) a reference doubts.

    Two Gaussians are fitted to the square root of the losses (a deviance residual, but for √2),
    less half the mean of the class: a hard class is not a wrong one. Labels are wrong if these are
    two peaks, the upper one has 2 to 60 % of the rows, and the reference finds another class at
    least twice as likely as the label in them: hard rows are learnt in the end, wrong ones are not.

    Args:
        reference: What earlier training learnt about the rows.
        labels: (n,) int64, on its device. The host does not wait for it.
        separation: Ashman's D above which there are two peaks.

    Example:
        >>> import torch
        >>> from impon_hpo import Reference
        >>> from impon_hpo.sampling.doubts import doubts_of
        >>> loss = torch.cat([torch.linspace(0.1, 0.3, 24), torch.linspace(4.0, 5.0, 6)])
        >>> labels = torch.zeros(30, dtype=torch.int64)
        >>> probabilities = torch.stack([(-loss).exp(), 1 - (-loss).exp()], dim=1)
        >>> doubts = doubts_of(Reference(loss, probabilities), labels)
        >>> bool(doubts.noticed), round(float(doubts.share), 2)
        (True, 0.2)
    """
    excess = _above_class(reference.loss.sqrt(), labels, reference.probabilities.shape[1])
    mixture = two_gaussians(excess)
    # A wide upper component reaches below the lower one, where no row is doubted.
    probability = torch.where(excess > excess.median(), mixture.probability, 0.0)
    odds = _log_odds_against(reference.probabilities, labels)
    mean_odds = (probability * odds).sum() / probability.sum().clamp_min(1e-6)
    noticed = (
        (mixture.separation > separation)
        & (mixture.share > PLAUSIBLE[0])
        & (mixture.share < PLAUSIBLE[1])
        & (mean_odds > math.log(2))
    )
    return Doubts(mixture.separation, mixture.share, probability, noticed)


def _log_odds_against(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return (n,): log of the likeliest other class's probability over that of the label."""
    probabilities = probabilities.clamp_min(1e-6)
    of_label = probabilities.gather(1, labels[:, None])[:, 0]
    of_other = probabilities.scatter(1, labels[:, None], 0.0).max(1).values.clamp_min(1e-6)
    return (of_other / of_label).log()


def _above_class(values: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return values (n,) less half the mean of their class: a hard class is not a wrong one."""
    zeros = torch.zeros(n_classes, device=values.device)
    total = zeros.index_add(0, labels, values)
    count = zeros.index_add(0, labels, torch.ones_like(values))
    return values - 0.5 * (total / count.clamp_min(1)).index_select(0, labels)

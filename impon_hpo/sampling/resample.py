"""Resampling: rows of a bank in proportion to their scores, and the weights that undo the bias."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.choice import choose_repeatedly


def resample(scores: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose k of m positions with replacement in proportion to `scores`, with weights.

    A position of share g = score / Σ scores gets the weight 1 / (m g), so that the weighted mean
    over the k chosen is, on average, the plain mean over all m; positions of score 0 are never
    chosen and count as 0 in it. Scores that are not finite are taken for 0; where none is above 0,
    all positions are equally likely.

    Args:
        scores: (m,) non-negative, any scale.
        k: How many.
        generator: On the device of `scores`.

    Returns:
        (k,) int64 positions, and their (k,) float32 weights, positive and finite.
    """
    scores = torch.where(torch.isfinite(scores), scores, 0.0).double()
    total = scores.sum()
    shares = torch.where(total > 0, scores / total, 1 / len(scores))
    picked = choose_repeatedly(shares, k, generator)
    # A share of 1e-12 is all but never chosen; the bound keeps its weight within float32.
    return picked, 1 / (len(scores) * shares[picked].clamp_min(1e-12)).float()

"""Choice: from importances to rows, on the device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def random_order(n: int, generator: torch.Generator) -> Tensor:
    """Return the numbers 0 … n - 1 as (n,) int64 in random order, on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device)


def choose_distinct(importance: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose k different positions, one after the other, each in proportion to what is left.

    Source: the Gumbel-top-k trick (Efraimidis & Spirakis 2006; Kool, van Hoof, Welling 2019): the k
    largest of log importance + Gumbel noise are a sample without replacement.

    Args:
        importance: (m,) non-negative, any scale. Positions of importance 0 come last.
        k: How many, 1 … m.
        generator: On the device of `importance`.

    Returns:
        (k,) int64 positions, no position twice, in the order in which they were chosen.
    """
    return torch.topk(importance.double().log() + gumbel(importance, generator), k).indices


def choose_repeatedly(importance: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose k positions, each anew in proportion to its importance; they can repeat.

    Args:
        importance: (m,) non-negative, not all 0, any scale.
        k: How many.
        generator: On the device of `importance`.

    Returns:
        (k,) int64 positions.
    """
    total = importance.double().cumsum(0)
    at = torch.rand(k, dtype=torch.float64, device=total.device, generator=generator) * total[-1]
    return torch.searchsorted(total, at, right=True).clamp_max(len(total) - 1)


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard Gumbel noise, float64, of the shape of `like` and on its device."""
    noise = torch.empty(like.shape, dtype=torch.float64, device=like.device)
    return -noise.exponential_(generator=generator).log()

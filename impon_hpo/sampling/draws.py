"""Draws: choose rows at random, by importance or in shuffled order, without waiting for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.state import Stateful


def random_order(n: int, generator: torch.Generator) -> Tensor:
    """Return the numbers 0 … n - 1 as (n,) int64 in random order, on the generator's device."""
    return torch.randperm(n, generator=generator, device=generator.device)


def choose_distinct(importance: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose k different positions, one after the other, each in proportion to its importance.

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
    """Choose k positions with replacement, each in proportion to its importance.

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


def resample(scores: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose k of m positions with replacement in proportion to `scores`, with weights.

    With g = score / Σ scores, a position has the weight 1 / (m g). So the weighted mean over the k
    chosen positions is, on average, the plain mean over all m. Positions of score 0 are never
    chosen and count as 0 in that mean. Scores that are not finite count as 0. If no score is above
    0, all positions are equally likely.

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
    # A share of 1e-12 is almost never chosen; the bound keeps its weight within float32.
    return picked, 1 / (len(scores) * shares[picked].clamp_min(1e-12)).float()


def draw_bank(n_rows: int, bank_size: int, generator: torch.Generator) -> Tensor:
    """Draw `bank_size` different rows out of `n_rows`; every set of rows is equally likely.

    The cost does not grow with `n_rows`: from a large data set, rows are drawn with repeats and the
    first different ones are kept. Shapes are fixed, so that the host never waits for a GPU.

    Args:
        n_rows: Number of rows to draw from.
        bank_size: Number of rows to draw, 1 … n_rows.
        generator: On the device where the result is wanted.

    Returns:
        (bank_size,) int64 rows in random order, no row twice.
    """
    device = generator.device
    if n_rows <= 128 * bank_size:  # few operations
        return torch.randperm(n_rows, generator=generator, device=device)[:bank_size]
    # Twice as many candidates as needed, out of at least 128 times as many rows: the probability
    # that more than half of them repeat an earlier one is below 1e-45, even for a tiny bank.
    n_candidates = 2 * bank_size + 32
    candidates = torch.randint(n_rows, (n_candidates,), generator=generator, device=device)
    ordered, order = torch.sort(candidates, stable=True)
    repeated = torch.zeros(n_candidates, dtype=torch.bool, device=device)
    repeated.scatter_(0, order[1:], ordered[1:] == ordered[:-1])
    return candidates[torch.argsort(repeated, stable=True)[:bank_size]]


class Stream(Stateful):
    """Hands out rows without replacement; begins a new shuffled order when too few are left.

    Args:
        n_rows: Number of rows.
        generator: Shuffles them; on the device where the rows are wanted.
        first: (m,) int64, the rows handed out first; by default all of them, shuffled.
    """

    _state = ("order", "position")
    _replaced = ("order",)

    def __init__(
        self, n_rows: int, generator: torch.Generator, *, first: Tensor | None = None
    ) -> None:
        self.n_rows = n_rows
        self.generator = generator
        self.begin(random_order(n_rows, generator) if first is None else first)

    def shuffle(self) -> None:
        """Begin a new order of all rows."""
        self.begin(random_order(self.n_rows, self.generator))

    def begin(self, order: Tensor) -> None:
        """Hand out the rows of `order` (m,) int64 next."""
        self.order = order
        self.position = 0

    def has(self, k: int) -> bool:
        """Return whether at least k rows are left."""
        return self.position + k <= len(self.order)

    def take(self, k: int) -> Tensor:
        """Return the next k ≤ n_rows different rows (k,) int64."""
        if not self.has(k):
            self.shuffle()
        self.position += k
        return self.order[self.position - k : self.position]

"""The bank: the rows drawn at random at one iteration, from which the batch is picked."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_bank(n_rows: int, bank_size: int, generator: torch.Generator) -> Tensor:
    """Draw `bank_size` different rows out of `n_rows`, each set equally likely.

    The cost does not grow with `n_rows`: from a large data set, rows are drawn with repeats and the
    first different ones kept, in fixed shapes, so that a GPU is never waited for.

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
    # Twice as many candidates as wanted, out of at least 128 times as many rows: that over half of
    # them repeat an earlier one has a probability below 1e-45 even for a bank of one or two.
    n_candidates = 2 * bank_size + 32
    candidates = torch.randint(n_rows, (n_candidates,), generator=generator, device=device)
    ordered, order = torch.sort(candidates, stable=True)
    repeated = torch.zeros(n_candidates, dtype=torch.bool, device=device)
    repeated.scatter_(0, order[1:], ordered[1:] == ordered[:-1])
    return candidates[torch.argsort(repeated, stable=True)[:bank_size]]

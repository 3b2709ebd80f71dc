"""Histories of losses: the last one of each row, and the last ones of all rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from impon_hpo.sampling.estimators import is_finite
from impon_hpo.sampling.state import Stateful


class LossHistory(Stateful):
    """The last finite loss of each row and the step at which it was seen; 8 bytes a row.

    Args:
        n_rows: Number of training rows.
        device: Where it is kept.
        repeats: Whether a row can occur several times in a batch.

    Attributes:
        last: (n,) float32, 0 for rows never seen.
        seen_at: (n,) int32 step of `last`, -1 for rows never seen.
    """

    _state = ("last", "seen_at")

    def __init__(self, n_rows: int, device: torch.device, *, repeats: bool = False) -> None:
        self.repeats = repeats
        self.last = torch.zeros(n_rows, device=device)
        self.seen_at = torch.full((n_rows,), -1, dtype=torch.int32, device=device)

    def update(self, rows: Tensor, losses: Tensor, step: int | Tensor) -> None:
        """Keep the losses (B,) of `rows` (B,) at a step; losses that are not finite change nothing.

        A row that occurs several times in a batch keeps its highest loss. (Of several writes to one
        place a GPU keeps any; their maximum is always the same.)
        """
        losses = losses.to(self.last.dtype)
        before = self.last.index_select(0, rows)
        if self.repeats:
            counted = torch.where(is_finite(losses), losses, -torch.inf)
            self.last.index_fill_(0, rows, -torch.inf)  # [] would wait for a GPU
            losses = self.last.scatter_reduce_(0, rows, counted, "amax")[rows]
        finite = is_finite(losses)
        seen_at = torch.where(finite, step, self.seen_at.index_select(0, rows))
        self.last.index_copy_(0, rows, torch.where(finite, losses, before))
        self.seen_at.index_copy_(0, rows, seen_at)

    def filled(self, unseen: float | Tensor) -> Tensor:
        """Return the last losses (n,) float32, with `unseen` for rows never seen."""
        return torch.where(self.seen_at < 0, unseen, self.last)


class RecentLosses(Stateful):
    """The last `size` finite losses in a ring, which is filled without waiting for the device.

    Args:
        size: How many losses are kept.
        device: Where they are kept.
    """

    _state = ("_losses", "_n_added")

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        # One slot more than are kept: losses that are not kept are written to it.
        self._losses = torch.zeros(size + 1, device=device)
        self._n_added = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, losses: Tensor) -> None:
        """Add losses (k,); the last of them is the most recent."""
        finite = torch.isfinite(losses)
        number = finite.cumsum(0)
        # Only the last `size` of them, so that no slot is written twice.
        recent = finite & (number > number[-1] - self.size)
        slots = torch.where(recent, (self._n_added + number - 1) % self.size, self.size)
        self._losses[slots] = torch.where(recent, losses.float(), 0.0)
        self._n_added = self._n_added + number[-1]

    def percentile(self, losses: Tensor) -> Tensor:
        """Return the share (k,) float64 of the kept losses that are below each of `losses` (k,).

        It is 0 for a loss that is not finite, and 1 for all losses while none are kept.
        """
        slots = torch.arange(self.size, device=self._losses.device)
        losses_kept = torch.where(slots < self._n_added, self._losses[:-1], math.inf)
        n_below = torch.searchsorted(losses_kept.sort().values, losses.float().contiguous())
        share = n_below / self._n_added.clamp(1, self.size).double()
        return torch.where(self._n_added > 0, torch.where(torch.isfinite(losses), share, 0.0), 1.0)

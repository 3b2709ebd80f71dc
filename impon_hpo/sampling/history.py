"""The loss history: what each row's loss was when it was last trained on, and when that was."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.estimator import is_finite
from impon_hpo.sampling.state import Stateful


class LossHistory(Stateful):
    """The last finite loss of each row and the step at which it was seen; 8 bytes a row.

    Args:
        n_rows: Number of training rows.
        device: Where it is kept.
        repeats: Whether a row can stand several times in a batch.

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
        """Note the losses (B,) of `rows` (B,) at a step; those that are not finite change nothing.

        A row that stands several times in a batch keeps its highest loss: of several writes to one
        place a GPU keeps any, of a maximum always the same.
        """
        losses = losses.to(self.last.dtype)
        before = self.last.index_select(0, rows)
        if self.repeats:
            counted = torch.where(is_finite(losses), losses, -torch.inf)
            self.last.index_fill_(0, rows, -torch.inf)  # by [] a GPU is waited for
            losses = self.last.scatter_reduce_(0, rows, counted, "amax")[rows]
        finite = is_finite(losses)
        seen_at = torch.where(finite, step, self.seen_at.index_select(0, rows))
        self.last.index_copy_(0, rows, torch.where(finite, losses, before))
        self.seen_at.index_copy_(0, rows, seen_at)

    def filled(self, unseen: float | Tensor) -> Tensor:
        """Return the last losses (n,) float32 with `unseen` for rows never seen."""
        return torch.where(self.seen_at < 0, unseen, self.last)

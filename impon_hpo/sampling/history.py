"""The loss history: what each row's loss was when it was last trained on, and when that was."""

from __future__ import annotations

import torch
from torch import Tensor


class LossHistory:
    """The last finite loss of each row and the step at which it was seen; 8 bytes a row.

    Args:
        n_rows: Number of training rows.
        device: Where it is kept.

    Attributes:
        last: (n,) float32, nan for rows never seen.
        seen_at: (n,) int32 step of `last`, -1 for rows never seen.
    """

    def __init__(self, n_rows: int, device: torch.device) -> None:
        self.last = torch.full((n_rows,), float("nan"), device=device)
        self.seen_at = torch.full((n_rows,), -1, dtype=torch.int32, device=device)

    def update(self, rows: Tensor, losses: Tensor, step: int) -> None:
        """Note the losses (B,) of `rows` (B,) at a step; those that are not finite change nothing.

        A row that stands several times in a batch keeps its highest loss: of several writes to one
        place a GPU keeps any, of a maximum always the same.
        """
        before = self.last[rows]
        counted = torch.where(torch.isfinite(losses), losses.to(self.last.dtype), -torch.inf)
        self.last[rows] = -torch.inf
        self.last.scatter_reduce_(0, rows, counted, "amax")
        highest = self.last[rows]
        finite = torch.isfinite(highest)
        self.last[rows] = torch.where(finite, highest, before)
        self.seen_at[rows] = torch.where(finite, step, self.seen_at[rows]).to(torch.int32)

    def filled(self, unseen: float | Tensor) -> Tensor:
        """Return the last losses (n,) float32 with `unseen` for rows never seen."""
        return torch.where(self.seen_at < 0, unseen, self.last)

    def state_dict(self) -> dict[str, Tensor]:
        # Never-seen rows are told apart by `seen_at`, so that a state holds finite numbers only.
        return {"last": self.filled(0.0), "seen_at": self.seen_at.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.seen_at.copy_(state["seen_at"])
        self.last.copy_(state["last"])
        self.last[self.seen_at < 0] = float("nan")

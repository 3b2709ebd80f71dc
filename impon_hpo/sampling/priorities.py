"""Priorities: a weight for each row, drawn from and changed in time that hardly grows with n."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Priorities:
    """Weights of n rows in blocks of about √n, with the sum of each block.

    A draw looks for the block among √n sums and for the row among √n weights; a change recomputes
    the sums of the blocks it touches from their weights, so no rounding error ever builds up. Both
    cost O(B · √n) and never wait for the device. 8 bytes a row.

    Args:
        n_rows: Number of rows.
        device: Where they are kept.
        initial: The weight that all rows begin with, positive.
    """

    def __init__(self, n_rows: int, device: torch.device, *, initial: float = 1.0) -> None:
        self.n_rows = n_rows
        self.block_size = max(1, math.isqrt(n_rows))
        n_blocks = -(-n_rows // self.block_size)
        self._weights = torch.zeros(
            n_blocks * self.block_size, dtype=torch.float64, device=device
        ).view(n_blocks, self.block_size)
        self._weights.view(-1)[:n_rows] = initial
        self._sums = self._weights.sum(1)

    @property
    def total(self) -> Tensor:
        """The sum of all weights, () float64."""
        return self._sums.sum()

    def of(self, rows: Tensor) -> Tensor:
        """Return the weights (k,) float64 of rows (k,)."""
        return self._weights.view(-1)[rows]

    def set(self, rows: Tensor, weights: Tensor) -> None:
        """Give rows (k,) the weights (k,), positive; rows that repeat must agree."""
        self._weights.view(-1)[rows] = weights.double()
        blocks = rows // self.block_size
        self._sums[blocks] = self._weights[blocks].sum(1)

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """Draw k rows (k,) int64, each anew in proportion to its weight."""
        ends = self._sums.cumsum(0)
        uniform = torch.rand(k, 2, dtype=torch.float64, device=ends.device, generator=generator)
        blocks = torch.searchsorted(ends, uniform[:, 0] * ends[-1], right=True)
        blocks = blocks.clamp_max(len(ends) - 1)
        within = self._weights[blocks].cumsum(1)
        at = (uniform[:, 1] * within[:, -1])[:, None]
        places = torch.searchsorted(within, at, right=True)[:, 0]
        return (blocks * self.block_size + places).clamp_max(self.n_rows - 1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self._weights.view(-1)[: self.n_rows].clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._weights.view(-1)[: self.n_rows] = state["weights"].to(self._weights.device)
        self._sums = self._weights.sum(1)

"""Priorities: a weight for each row, drawn from and changed in time that does not grow with n."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.state import Stateful


class Priorities(Stateful):
    """Weights of n rows in blocks, the sums of the blocks in blocks again, and so on.

    A draw looks for the place among the sums of the top, and within one block on every level below;
    a change recomputes the sums of the blocks it touches from what is in them, so no rounding error
    ever builds up. Both cost O(B · m) on each of the levels, of which there are two up to m² rows
    and three up to m³, m = `fanout`, and never wait for the device. 8 bytes a row.

    Args:
        n_rows: Number of rows.
        device: Where they are kept.
        initial: The weight that all rows begin with, positive.
        fanout: Weights of a block, at most, from 2 on.
    """

    _state = ("_levels", "_top")

    def __init__(
        self, n_rows: int, device: torch.device, *, initial: float = 1.0, fanout: int = 256
    ) -> None:
        self.n_rows = n_rows
        n_levels = 2
        while fanout**n_levels < n_rows:
            n_levels += 1
        self.block_size = max(1, int(n_rows ** (1 / n_levels)))
        levels: list[Tensor] = []
        length = n_rows
        for _ in range(n_levels - 1):
            n_blocks = -(-length // self.block_size)
            shape = n_blocks, self.block_size
            levels += [torch.zeros(shape, dtype=torch.float64, device=device)]
            length = n_blocks
        self._levels = tuple(levels)
        self.fill(torch.full((n_rows,), initial, dtype=torch.float64, device=device))

    @property
    def total(self) -> Tensor:
        """The sum of all weights, () float64."""
        return self._top.sum()

    def of(self, rows: Tensor) -> Tensor:
        """Return the weights (k,) float64 of rows (k,)."""
        return self._levels[0].view(-1)[rows]

    def set(self, rows: Tensor, weights: Tensor) -> None:
        """Give rows (k,) the weights (k,), positive; rows that repeat must agree."""
        places, values = rows, weights.double()
        for level in self._levels:
            level.view(-1)[places] = values
            places = places // self.block_size
            values = level[places].sum(1)
        self._top[places] = values

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """Draw k rows (k,) int64, each anew in proportion to its weight."""
        ends = self._top.cumsum(0)
        shape = k, 1 + len(self._levels)
        uniform = torch.rand(shape, dtype=torch.float64, device=ends.device, generator=generator)
        places = torch.searchsorted(ends, uniform[:, 0] * ends[-1], right=True)
        places = places.clamp_max(len(ends) - 1)
        lengths = [self.n_rows, *(len(level) for level in self._levels[:-1])]
        for level, length, share in zip(
            reversed(self._levels), reversed(lengths), uniform.T[1:], strict=True
        ):
            within = level[places].cumsum(1)
            at = (share * within[:, -1])[:, None]
            inside = torch.searchsorted(within, at, right=True)[:, 0]
            places = (places * self.block_size + inside).clamp_max(length - 1)
        return places

    def fill(self, weights: Tensor) -> None:
        """Give all rows the weights (n,) float64."""
        for level in self._levels:
            level.view(-1)[: len(weights)] = weights
            weights = level.sum(1)
        self._top = weights

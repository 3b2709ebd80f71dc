"""The stream: all rows in shuffled order, shuffled again whenever they are used up."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.choice import random_order
from impon_hpo.sampling.state import Stateful


class Stream(Stateful):
    """Hands out rows without replacement; begins a new order where too few are left.

    Args:
        n_rows: Number of rows.
        generator: Shuffles them; on the device where they are wanted.
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
        """Return whether k rows are left."""
        return self.position + k <= len(self.order)

    def take(self, k: int) -> Tensor:
        """Return the next k ≤ n_rows different rows (k,) int64."""
        if not self.has(k):
            self.shuffle()
        self.position += k
        return self.order[self.position - k : self.position]

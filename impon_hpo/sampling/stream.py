"""The stream: all rows in shuffled order, shuffled again whenever they are used up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impon_hpo.sampling.choice import random_order


class Stream:
    """Hands out rows without replacement; begins a new order where too few are left.

    Args:
        n_rows: Number of rows.
        generator: Shuffles them; on the device where they are wanted.
    """

    def __init__(self, n_rows: int, generator: torch.Generator) -> None:
        self.n_rows = n_rows
        self.generator = generator
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0
        self.shuffle()

    def shuffle(self) -> None:
        """Begin a new order."""
        self.order = random_order(self.n_rows, self.generator)
        self.position = 0

    def take(self, k: int) -> Tensor:
        """Return the next k ≤ n_rows different rows (k,) int64."""
        if self.position + k > self.n_rows:
            self.shuffle()
        self.position += k
        return self.order[self.position - k : self.position]

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = state["order"].to(self.order.device)
        self.position = state["position"]

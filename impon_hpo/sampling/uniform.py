"""`uniform`: shuffled epochs, the control that every other batch sampler has to beat.

Rule: at the start of an epoch all rows are shuffled; batches are taken in that order. An epoch of
fewer steps than n / B trains on a fresh random share of the rows; one of more steps shuffles again.
Cost a step: none beyond training. State: the generator. Weights: none.
Helps: always there, hard to beat. Hurts: spends as much on rows long learnt as on any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from impon_hpo.sampling.base import BatchSampler, Draw, Forward
from impon_hpo.sampling.rows import Rows


class Uniform(BatchSampler):
    """Draw every row equally often: batches of a shuffled epoch, without replacement.

    Args:
        rows: The training rows.
        batch_size: Rows a batch.
        model: The deep model; not read.
        seed: Seed of the order.
    """

    def __init__(self, rows: Rows, *, batch_size: int, model: nn.Module, seed: int = 0) -> None:
        super().__init__(rows, batch_size=batch_size, model=model, seed=seed)
        self._shuffle()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._shuffle()

    def _draw(self, forward: Forward | None) -> Draw:
        if self._position + self.batch_size > len(self.rows):
            self._shuffle()
        rows = self._order[self._position : self._position + self.batch_size]
        self._position += self.batch_size
        return Draw(rows)

    def _shuffle(self) -> None:
        # The order is kept in a checkpoint as the generator's state before it: small for any n.
        self._before_order: Tensor = self.generator.get_state()
        self._order = torch.randperm(
            len(self.rows), generator=self.generator, device=self.rows.device
        )
        self._position = 0

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "generator": self._before_order,
            "position": self._position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._shuffle()
        self._position = state["position"]

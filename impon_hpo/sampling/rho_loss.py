"""`rho-loss`: the rows of a large batch whose loss is most reducible.

Source: Mindermann et al. (2022), "Prioritized training on points that are learnable, worth
learning, and not yet learnt".
Rule: score = loss of the row under the model that is trained - its loss under a reference that was
trained on held-out data (the irreducible loss); of a bank of `batch_size` / `ratio` rows taken from
shuffled epochs, the batch with the highest scores is trained on.
Cost a step: a forward pass over the bank (10 batches by default), and the reference once.
State: 4 bytes a row. Weights: none.
Helps: fewer steps to an accuracy, above all with noisy labels. Hurts: at equal cost the forward
passes eat the gain unless scoring is much cheaper than training.

Departures from the source:
1. Rows are scored in evaluation mode and without augmentation; the authors score in training mode.
2. A bank is at most the whole training set.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch

from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_share
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class RhoLoss(BatchSampler):
    """Train on the rows whose loss exceeds that of a reference most.

    Args:
        rows: The training rows, with a reference.
        ratio: Share of the bank that is trained on, above 0, at most 1; 0.1 in the paper.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range, or `rows` have no reference.
    """

    card = Card(
        source="Mindermann et al. 2022",
        forward="B / ratio",
        state="4 bytes",
        weights="none",
        use="reducible loss, seen by a forward pass: the ceiling of what a prediction can do",
    )
    beside_training = True
    needs_forward = True
    needs_reference = True
    _state = ("_stream",)

    def __init__(self, rows: Rows, *, ratio: float = 0.1, **common: Unpack[Common]) -> None:
        super().__init__(rows, **common)
        check_share("ratio", ratio)
        self.bank_size = min(len(rows), math.ceil(self.batch_size / ratio - 1e-9))
        _ = self._reference  # refuses to go on without one
        self._stream = Stream(len(rows), self.generator)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()

    def _draw(self, forward: Forward | None) -> Draw:
        assert forward is not None
        bank = self._stream.take(self.bank_size)
        losses, _ = forward(bank)
        # Without this, rows whose loss is no number would always come first.
        losses = torch.where(torch.isfinite(losses), losses, -torch.inf)
        scores = losses - self._reference.loss[bank]
        picked = torch.topk(self._seen(scores), self.batch_size).indices
        return Draw(bank[picked], scores=scores[picked])

"""`rho-loss`: the rows of a large batch whose loss is most reducible.

Source: Mindermann et al. (2022), "Prioritized training on points that are learnable, worth
learning, and not yet learnt".
Rule: score = loss of the row under the trained model - its loss under a reference that was trained
on held-out data (the irreducible loss). Of a bank of `batch_size` / `ratio` rows, taken from
shuffled epochs, the rows with the highest scores are the batch.
Cost a step: a forward pass over the bank (10 batches by default), and the reference once.
State: 4 bytes a row. Weights: none.
Helps: reaches an accuracy in fewer steps, above all with noisy labels. Hurts: at equal cost the
forward passes use up the gain, unless scoring is much cheaper than training.

Departures from the source:
1. Rows are scored in evaluation mode and without augmentation; the authors score in training mode.
2. A bank is at most the whole training set.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch

from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs
from impon_hpo.sampling.checks import Common, check_share
from impon_hpo.sampling.rows import Rows


class RhoLoss(ShuffledEpochs):
    """Train on the rows whose loss exceeds the reference's loss most.

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
        use="reducible loss, seen by a forward pass: the best that a prediction could do",
    )
    beside_training = True
    needs_forward = True
    needs_reference = True

    def __init__(self, rows: Rows, *, ratio: float = 0.1, **common: Unpack[Common]) -> None:
        super().__init__(rows, **common)
        check_share("ratio", ratio)
        self.bank_size = min(len(rows), math.ceil(self.batch_size / ratio - 1e-9))
        _ = self._reference  # raises if there is none

    def _draw(self, forward: Forward | None) -> Draw:
        assert forward is not None
        bank = self._stream.take(self.bank_size)
        losses, _ = forward(bank)
        # Else rows whose loss is nan would always come first.
        losses = torch.where(torch.isfinite(losses), losses, -torch.inf)
        scores = losses - self._reference.loss[bank]
        picked = torch.topk(self._seen(scores), self.batch_size).indices
        return Draw(bank[picked], scores=scores[picked])

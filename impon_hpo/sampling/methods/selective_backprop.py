"""`selective-backprop`: rows kept with a probability that grows with the rank of their loss.

Source: Jiang et al. (2019), "Accelerating deep learning by focusing on the biggest losers", and
their code, angelajiang/SelectiveBackprop.
Rule: a bank, the next rows of shuffled epochs, is scored by a forward pass. Its losses enter
a history of the last `history_size` losses. A row of loss l is kept with probability
(share of the history < l)^`beta`, independent of the others. The batch is the kept rows in order of
arrival. The first epoch is uniform, without scoring, and fills the history.
Cost a step: a forward pass over the bank, by default ⌈B · (`beta` + 1)⌉ rows, of which about one in
`beta` + 1 is kept: half at the default of 1, a quarter at 3, the default of the authors' command
line (`--prob_pow`). State: `history_size` floats, none a row. Weights: none, so the
training loss is biased towards rows with a high loss.
Helps: late in long runs, when most rows are learnt. Hurts: wrong labels have the highest losses;
scoring costs a third of training for each row and has to pay for itself.

Departures from the source:
1. There is a batch at every step. Kept rows beyond a batch are dropped instead of waiting for the
   next step. If fewer are kept, the closest rows follow (largest probability - random number).
2. The first epoch is that of the run, of any number of steps; the source's is the first n rows.
   Without `start_epoch` the sampler stays in the first epoch. Its history then has losses of
   training (augmented, in training mode), not of a forward pass in evaluation mode.
3. Losses that are not finite do not enter the history; their rows have the lowest rank.
4. Scores of earlier epochs are never reused (the authors' `stale` variant).
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs
from impon_hpo.sampling.checks import Common, check_positive
from impon_hpo.sampling.history import RecentLosses
from impon_hpo.sampling.rows import Rows


class SelectiveBackprop(ShuffledEpochs):
    """Train on scored rows that are kept at random, with higher losses more likely.

    Args:
        rows: The training rows.
        beta: Power of the percentile, at least 0 (0: every row is kept).
        history_size: Number of losses for the percentile, at least 1.
        bank_size: Rows scored a step, from a batch to all training rows; by default
            ⌈`batch_size` · (`beta` + 1)⌉, of which a batch is kept on average.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Jiang et al. 2019",
        forward="B · (beta + 1); 0 in the first epoch",
        state="none",
        weights="none",
        use="rows kept at random by the rank of their loss, seen by a forward pass",
    )
    beside_training = True
    needs_forward = True
    _state = ("_history", "_epoch", "_n_accepted", "_n_scored")

    def __init__(
        self,
        rows: Rows,
        *,
        beta: float = 1.0,
        history_size: int = 1024,
        bank_size: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        if not 0 <= beta < math.inf:
            raise ConfigError(f"beta must be at least 0 and finite, but got beta={beta}.")
        check_positive("history_size", history_size)
        self.beta = beta
        self.bank_size = self._bank_size(bank_size, default=math.ceil(self.batch_size * (beta + 1)))
        self._history = RecentLosses(history_size, rows.device)
        self._epoch = 1
        self._forget_accepted()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._epoch = epoch
        self._forget_accepted()

    def _forget_accepted(self) -> None:
        self._n_accepted = torch.zeros((), dtype=torch.int64, device=self.rows.device)
        self._n_scored = 0

    def _draw(self, forward: Forward | None) -> Draw:
        if self._epoch == 1:
            return Draw(self._stream.take(self.batch_size))
        assert forward is not None
        bank = self._stream.take(self.bank_size)
        losses, _ = forward(bank)
        self._history.add(losses)
        keep = self._seen(self._history.percentile(losses).pow(self.beta))
        margin = keep - torch.rand(
            keep.shape, dtype=keep.dtype, device=keep.device, generator=self.generator
        )
        accepted = margin > 0
        self._n_accepted += accepted.sum()
        self._n_scored += self.bank_size
        before = self.bank_size - torch.arange(self.bank_size, device=keep.device)
        picked = torch.topk(torch.where(accepted, before, margin), self.batch_size).indices
        return Draw(bank[picked])

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if self._epoch == 1:
            self._history.add(losses)

    def diagnostics(self) -> dict[str, float]:
        """Add `share_accepted`: the share of rows scored in this epoch that were kept, or nan."""
        share = float(self._n_accepted) / self._n_scored if self._n_scored else math.nan
        return super().diagnostics() | {"share_accepted": share}

"""`selective-backprop`: rows kept with a probability that grows with the rank of their loss.

Source: Jiang et al. (2019), "Accelerating deep learning by focusing on the biggest losers", and
their code, angelajiang/SelectiveBackprop.
Rule: a bank of rows, next in shuffled epochs, is scored by a forward pass; its losses enter a
history of the last `history_size` losses; a row of loss l is kept with probability
(share of the history < l)^`beta`, decided anew for each row. The batch: the kept rows in order of
arrival. The first epoch is uniform, without scoring, and fills the history.
Cost a step: a forward pass over the bank, by default ⌈B · (`beta` + 1)⌉ rows, of which about one in
`beta` + 1 is kept: half at the default of 1, a quarter at 3, the default of the authors' command
line (`--prob_pow`). State: `history_size` floats, none a row. Weights: none, so the
training loss is biased towards rows with a high loss.
Helps: late in long runs, when most rows are learnt. Hurts: wrong labels have the highest losses; at
equal cost the scoring has to be earned back, a third of training's for each row scored.

Departures from the source:
1. A batch every step: kept rows beyond a batch are let go instead of waiting for the next step, and
   where fewer are kept those nearest to it follow (largest probability - random number).
2. The first epoch is the run's, however many steps it has; the source's is the first n rows. A
   sampler that is never told an epoch stays in the first. The history then holds losses of
   training (augmented, in training mode), not of a forward pass in evaluation mode.
3. Losses that are not finite do not enter the history; their rows count as of the lowest rank.
4. Scores of earlier epochs are never used again (the authors' `stale` variant).
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_positive
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.state import Stateful
from impon_hpo.sampling.stream import Stream


class RecentLosses(Stateful):
    """The last `size` finite losses, in a ring; filled without waiting for the device.

    Args:
        size: How many are remembered.
        device: Where they are kept.
    """

    _state = ("_losses", "_n_added")

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        # One slot more than are remembered: it takes what is not to be.
        self._losses = torch.zeros(size + 1, device=device)
        self._n_added = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, losses: Tensor) -> None:
        """Take in losses (k,), the last of them as the most recent."""
        finite = torch.isfinite(losses)
        number = finite.cumsum(0)
        # Of more losses than are remembered only the last: no slot may be written twice.
        remembered = finite & (number > number[-1] - self.size)
        slots = torch.where(remembered, (self._n_added + number - 1) % self.size, self.size)
        self._losses[slots] = torch.where(remembered, losses.float(), 0.0)
        self._n_added = self._n_added + number[-1]

    def percentile(self, losses: Tensor) -> Tensor:
        """Return the share (k,) float64 of the remembered losses that lie below each of `losses`.

        It is 0 for a loss that is not finite, and 1 for all while nothing is remembered.
        """
        slots = torch.arange(self.size, device=self._losses.device)
        known = torch.where(slots < self._n_added, self._losses[:-1], math.inf)
        n_below = torch.searchsorted(known.sort().values, losses.float().contiguous())
        share = n_below / self._n_added.clamp(1, self.size).double()
        return torch.where(self._n_added > 0, torch.where(torch.isfinite(losses), share, 0.0), 1.0)


class SelectiveBackprop(BatchSampler):
    """Train on scored rows that are kept by chance, the likelier the higher their loss ranks.

    Args:
        rows: The training rows.
        beta: Power of the percentile, at least 0 (0: every row is kept).
        history_size: Losses that the percentile is taken of, at least 1.
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
        use="rows kept by the rank of their loss, seen by a forward pass",
    )
    beside_training = True
    needs_forward = True
    _state = ("_stream", "_history", "_epoch", "_n_accepted", "_n_scored")

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
        self._stream = Stream(len(rows), self.generator)
        self._epoch = 1
        self._forget_accepted()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._epoch = epoch
        self._stream.shuffle()
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
        """Add `share_accepted`: kept by chance of the rows scored this epoch, nan if none was."""
        share = float(self._n_accepted) / self._n_scored if self._n_scored else math.nan
        return super().diagnostics() | {"share_accepted": share}

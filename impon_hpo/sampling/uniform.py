"""`uniform`: shuffled epochs, the control that every other batch sampler has to beat.

Rule: at the start of an epoch all rows are shuffled; batches are taken in that order. An epoch of
fewer steps than n / B trains on a fresh random share of the rows; one of more steps shuffles again.
Cost a step: none beyond training. State: the order, 8 bytes a row. Weights: none.
Helps: always there, hard to beat. Hurts: spends as much on rows long learnt as on any other.
"""

from __future__ import annotations

from typing import Unpack

from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class Uniform(BatchSampler):
    """Draw every row equally often: batches of a shuffled epoch, without replacement.

    Args:
        rows: The training rows.
        common: As for every `BatchSampler`.
    """

    card = Card(
        source="control",
        forward="0",
        state="none",
        weights="none",
        use="the control that every other sampler has to beat",
    )
    beside_training = True
    _state = ("_stream",)

    def __init__(self, rows: Rows, **common: Unpack[Common]) -> None:
        super().__init__(rows, **common)
        self._stream = Stream(len(rows), self.generator)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()

    def _draw(self, forward: Forward | None) -> Draw:
        return Draw(self._stream.take(self.batch_size))

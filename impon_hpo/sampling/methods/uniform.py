"""`uniform`: shuffled epochs, the control that every other batch sampler has to beat.

Rule: at the start of an epoch all rows are shuffled, and batches are taken in that order. An epoch
of fewer than n / B steps trains on a fresh random share of the rows; a longer one shuffles again.
Cost a step: none beyond training. State: the order, 8 bytes a row. Weights: none.
Helps: needs nothing and is hard to beat. Hurts: trains as often on rows learnt long ago as on
others.
"""

from __future__ import annotations

from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs


class Uniform(ShuffledEpochs):
    """Train on every row equally often: batches of a shuffled epoch, without replacement.

    Args:
        rows: The training rows.
        common: As for every `BatchSampler`.

    Example:
        >>> import torch
        >>> from impon_hpo import Rows, Uniform
        >>> rows = Rows(torch.rand(6, 8), torch.arange(6) % 3, n_classes=3)
        >>> sampler = Uniform(rows, batch_size=3, model=torch.nn.Linear(8, 3), seed=0)
        >>> sampler
        Uniform(6 rows, batch_size=3)
        >>> sampler.start_epoch(1)
        >>> sorted(sampler.draw().rows.tolist() + sampler.draw().rows.tolist())
        [0, 1, 2, 3, 4, 5]
    """

    card = Card(
        source="control",
        forward="0",
        state="none",
        weights="none",
        use="the control that every other sampler has to beat",
    )
    beside_training = True

    def _draw(self, forward: Forward | None) -> Draw:
        return Draw(self._stream.take(self.batch_size))

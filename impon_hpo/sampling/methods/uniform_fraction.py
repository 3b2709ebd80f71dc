"""`uniform-fraction`: a fresh random fraction of the rows each epoch; the control for methods that
train on fewer rows.

Source: RS2, Okanovic et al. (2024), "Repeated random sampling for minimizing the time-to-accuracy
of learning"; "unif-SGD" of Arazo et al. (2021).
Rule: at the start of an epoch a pool of `fraction` · n rows is drawn without replacement. The epoch
trains on the pool only, in random order, and shuffles it again whenever it is used up.
Cost a step: none beyond training. State: the pool, 8 bytes for each of its rows. Weights: none.
Helps: with `epoch_fraction` equal to `fraction`, each row of the pool is trained on once. Every
method that trains on a fraction has to beat that. Hurts: a longer epoch repeats the same rows.
"""

from __future__ import annotations

from typing import Unpack

from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.draws import Stream, random_order
from impon_hpo.sampling.rows import Rows


class UniformFraction(BatchSampler):
    """Train on a random fraction of the rows, a new one each epoch.

    Args:
        rows: The training rows.
        fraction: Share of the rows, above 0, at most 1, and at least one batch.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="control; Okanovic et al. 2024",
        forward="0",
        state="none",
        weights="none",
        use="tells importance from merely using fewer rows",
    )
    beside_training = True
    _state = ("_pool",)

    def __init__(self, rows: Rows, *, fraction: float = 1 / 3, **common: Unpack[Common]) -> None:
        super().__init__(rows, **common)
        self.n_pool = self._pool_size("fraction", fraction)
        self._pool = Stream(len(rows), self.generator)
        self._pool.begin(self._pool.order[: self.n_pool])

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._pool.shuffle()
        self._pool.begin(self._pool.order[: self.n_pool])

    def _draw(self, forward: Forward | None) -> Draw:
        if not self._pool.has(self.batch_size):
            self._pool.begin(self._pool.order[random_order(self.n_pool, self.generator)])
        return Draw(self._pool.take(self.batch_size))

"""`uniform-fraction`: a fresh random fraction of the rows each epoch; the control of methods that
train on fewer rows.

Source: RS2, Okanovic et al. (2024), "Repeated random sampling for minimizing the time-to-accuracy
of learning"; "unif-SGD" of Arazo et al. (2021).
Rule: at the start of an epoch `fraction` · n rows are drawn without replacement; only they are
trained on during the epoch, shuffled, and shuffled again where the epoch has more steps.
Cost a step: none beyond training. State: the pool, 8 bytes a row of it. Weights: none.
Helps: with `epoch_fraction` equal to `fraction` it trains on each of its rows once: what any method
that trains on a fraction has to beat. Hurts: an epoch of more steps repeats the same rows.
"""

from __future__ import annotations

import math
from typing import Unpack

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_share
from impon_hpo.sampling.choice import random_order
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class UniformFraction(BatchSampler):
    """Train on a random fraction of the rows, another one each epoch.

    Args:
        rows: The training rows.
        fraction: Share of the rows, above 0, at most 1; at least a batch of rows.
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
        check_share("fraction", fraction)
        self.n_pool = math.floor(fraction * len(rows) + 1e-9)
        if self.n_pool < self.batch_size:
            raise ConfigError(
                f"fraction={fraction} of {len(rows)} rows is {self.n_pool}, fewer than a batch "
                f"({self.batch_size})."
            )
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

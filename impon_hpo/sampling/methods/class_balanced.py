"""`class-balanced`: every class fills the same share of the batches, however few its rows are.

Source: control; "class-balanced sampling" of Kang et al. (2020), "Decoupling representation and
classifier for long-tailed recognition".
Rule: rows are handed out in rounds. A round has one row of each class, in random order of the
classes, and batches are cut from the rounds one after the other. Within a class, rows come in
random order, none again before all have come; then they are shuffled again. This goes on across
epochs. A class without a row has no place in a round.
Cost a step: none beyond training. State: two orders of the rows, 16 bytes a row. Weights: none, so
the training loss is that of classes of equal size.
Helps: the control in a long tail: what a method gains over it is due to importance, not to picking
rare classes more often. Where classes have equal sizes it visits every row once in n draws, as
`uniform` does. Hurts: rows of a rare class come many times an epoch, and can be learnt by heart.

Departure from the source: it draws a class at random and then a row of it, both with replacement.
Here each class has exactly its share, and rows differ until the class is exhausted.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.draws import Stream, random_order
from impon_hpo.sampling.rows import Rows


class ClassBalanced(BatchSampler):
    """Train on every class equally often, and within a class on every row equally often.

    Args:
        rows: The training rows.
        common: As for every `BatchSampler`.

    Example:
        >>> import torch
        >>> from impon_hpo import ClassBalanced, Rows
        >>> rows = Rows(torch.rand(9, 8), torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 2]), n_classes=3)
        >>> sampler = ClassBalanced(rows, batch_size=6, model=torch.nn.Linear(8, 3), seed=0)
        >>> sampler.start_epoch(1)
        >>> rows.labels[sampler.draw().rows].bincount()
        tensor([2, 2, 2])
    """

    card = Card(
        source="control; Kang et al. 2020",
        forward="0",
        state="16 bytes",
        weights="none",
        use="tells importance from an equal share of each class",
    )
    beside_training = True
    repeats_rows = True
    _state = ("_order", "_rounds", "_stream")

    def __init__(self, rows: Rows, **common: Unpack[Common]) -> None:
        super().__init__(rows, **common)
        sizes = torch.bincount(rows.labels, minlength=rows.n_classes).tolist()
        self._sizes = [size for size in sizes if size]
        shuffled = random_order(len(rows), self.generator)
        # The rows of each class after those of the former, in the order in which they come next.
        self._order = shuffled[torch.argsort(rows.labels[shuffled], stable=True)]
        self._rounds = 0
        self._stream = Stream(len(rows), self.generator, first=self._order[:0])

    def _draw(self, forward: Forward | None) -> Draw:
        if not self._stream.has(self.batch_size):
            left = self._stream.order[self._stream.position :]
            self._stream.begin(torch.cat([left, self._next_rounds()]))
        return Draw(self._stream.take(self.batch_size))

    def _next_rounds(self) -> Tensor:
        """Return the rows of as many rounds as have at least n rows, so at least a batch.

        How many rows of a class have come is known from the number of rounds alone, so that the
        host never waits for a GPU.
        """
        n_rounds = math.ceil(len(self.rows) / len(self._sizes))
        columns, orders = [], []
        for order in self._order.split(self._sizes):
            size = len(order)
            used = self._rounds % size
            n_new = (used + n_rounds) // size
            # All the orders that will be needed, and one of which some is left, are in sequence.
            rows = torch.cat([order, order[self._random_orders(n_new, size)].flatten()])
            columns.append(rows[used : used + n_rounds])
            orders.append(rows[n_new * size :])
        self._order = torch.cat(orders)
        self._rounds += n_rounds
        mixed = self._random_orders(n_rounds, len(columns))
        return torch.stack(columns, dim=1).gather(1, mixed).flatten()

    def _random_orders(self, n_orders: int, n: int) -> Tensor:
        """Return (n_orders, n) int64: in each line, the numbers 0 … n - 1 in random order."""
        keys = torch.empty(n_orders, n, dtype=torch.float64, device=self.rows.device)
        return keys.uniform_(generator=self.generator).argsort(dim=1)

"""`impon-paced`: first the rows that were easy for earlier training, then all rows.

Source: this project.
Rule: the reference (what a cheap earlier run learnt about each row) orders the rows of each class
by its loss. Batches are drawn from the easiest share, which widens from `easiest` to all rows over
the first `pacing` of the run. From then on the run is that of `uniform`. With `then = "reducible"`
it trains on those rows of each bank whose last seen loss exceeds the reference's loss most.
Cost a step: none; the reference is made once for a study and charged to it. State: 8 bytes a row
for the order, 8 more for the last losses. Weights: none.
Helps: early accuracy, which is what a pruner sees (studies/samplers). Hurts: a pacing that lasts
too long; a reference of other data.
"""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.draws import draw_bank
from impon_hpo.sampling.history import LossHistory
from impon_hpo.sampling.pacing import Pacing, Shape, easiest_first
from impon_hpo.sampling.rows import Rows


class ImponPaced(ShuffledEpochs):
    """Train on the rows that were easy for earlier training, then on all rows.

    Args:
        rows: The training rows, with a reference.
        easiest: Share of the rows open at the beginning, above 0, at most 1.
        pacing: Share of the run after which all rows are open, above 0, at most 1.
        shape: How the share widens: "linear", "root" or "step".
        balance: Whether the open rows have the classes in proportion.
        then: "uniform", or "reducible": of each bank, the rows with the highest last seen loss
            minus reference loss. The difference is 0 for rows never seen.
        bank_size: Rows of a bank for "reducible", from a batch to all training rows; default two
            batches.
        common: As for every `BatchSampler`; `total_steps` is needed.

    Raises:
        ConfigError: An argument is out of its range, or `rows` have no reference.

    Example:
        >>> import torch
        >>> from impon_hpo import ImponPaced, Reference, Rows
        >>> labels, loss = torch.zeros(30, dtype=torch.int64), torch.arange(30.0)
        >>> reference = Reference(loss, torch.full((30, 2), 0.5))
        >>> rows = Rows(torch.rand(30, 8), labels, n_classes=2, reference=reference)
        >>> model = torch.nn.Linear(8, 2)
        >>> sampler = ImponPaced(rows, easiest=0.2, batch_size=6, model=model, total_steps=50)
        >>> sorted(sampler.draw().rows.tolist())  # a fifth of the rows is open, the easiest ones
        [0, 1, 2, 3, 4, 5]
    """

    card = Card(
        source="this project",
        forward="0",
        state="16 bytes",
        weights="none",
        use="easy rows of a reference first, then uniform",
    )
    beside_training = True
    needs_reference = True
    _state = ("_history",)

    def __init__(
        self,
        rows: Rows,
        *,
        easiest: float = 1 / 3,
        pacing: float = 7 / 9,
        shape: Shape = "linear",
        balance: bool = True,
        then: Literal["uniform", "reducible"] = "uniform",
        bank_size: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        self.pacing = Pacing(easiest, pacing, shape)
        self.then = then
        self.bank_size = self._bank_size(bank_size, default=2 * self.batch_size)
        _ = self.progress  # raises if there is no total_steps
        self._loss = self._reference.loss
        self._easiest_first = easiest_first(self._loss, rows.labels if balance else None)
        self._history = LossHistory(len(rows), rows.device)

    def _draw(self, forward: Forward | None) -> Draw:
        share = self.pacing.share(self.progress)
        if share < 1:
            n_open = max(self.batch_size, round(share * len(self.rows)))
            picked = draw_bank(n_open, self.batch_size, self.generator)
            # The placebo opens as many rows, at random.
            return Draw(self._stream.order[picked] if self.blind else self._easiest_first[picked])
        if self.then == "uniform":
            return Draw(self._stream.take(self.batch_size))
        bank = self._stream.take(self.bank_size)
        seen, last = self._history.seen_at[bank] >= 0, self._history.last[bank]
        scores = torch.where(seen, last - self._loss[bank], 0.0)
        picked = torch.topk(self._seen(scores), self.batch_size).indices
        return Draw(bank[picked], scores=scores[picked])

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        self._history.update(draw.rows, losses, self.steps)

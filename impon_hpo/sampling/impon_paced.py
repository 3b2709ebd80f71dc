"""`impon-paced`: the rows that earlier training found easy first, before all of them.

Source: this project.
Rule: the reference (what a cheap earlier run learnt about each row) orders the rows of each class
by its loss.
The share that is open widens from `easiest` to all rows during the first `pacing` of the run. From
then on the run is that of `uniform`, or, with `then = "reducible"`, of each bank those rows are
trained on whose last seen loss exceeds the reference's most.
Cost a step: none; the reference is made once a study and charged to it. State: 8 bytes a row for
the order, 8 more for the last losses. Weights: none.
Helps: early accuracy, which is what a pruner sees (studies/samplers). Hurts: a pacing that lasts
too long; a reference of other data.
"""

from __future__ import annotations

from typing import Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.history import LossHistory
from impon_hpo.sampling.pacing import Pacing, Shape, easiest_first
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class ImponPaced(BatchSampler):
    """Train on what earlier training found easy, then on everything.

    Args:
        rows: The training rows, with a reference.
        easiest: Share of the rows open at the beginning, above 0, at most 1.
        pacing: Share of the run after which all rows are open, above 0, at most 1.
        shape: "linear", "root" or "step", how the share widens.
        balance: Whether the open rows have the classes in proportion.
        then: "uniform", or "reducible": of each `bank_size` rows the batch with the highest last
            seen loss minus the reference's; rows never seen count as seen at their reference.
        bank_size: Rows of a bank for "reducible", from a batch to all training rows; default two
            batches.
        common: As for every `BatchSampler`; `total_steps` is needed.

    Raises:
        ConfigError: An argument is out of its range, or `rows` have no reference.
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
    _state = ("_stream", "_history")

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
        _ = self.progress  # refuses to go on without total_steps
        self._loss = self._reference.loss
        self._easiest_first = easiest_first(self._loss, rows.labels if balance else None)
        self._history = LossHistory(len(rows), rows.device)
        self._stream = Stream(len(rows), self.generator)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()

    def _draw(self, forward: Forward | None) -> Draw:
        share = self.pacing.share(self.progress)
        if share < 1:
            n_open = max(self.batch_size, round(share * len(self.rows)))
            picked = draw_bank(n_open, self.batch_size, self.generator)
            # The placebo opens as many rows, but any.
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

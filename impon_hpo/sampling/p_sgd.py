"""`p-sgd` and `c-sgd`: pools drawn by the history of the probability given to the true class.

Source: Chang, Learned-Miller, McCallum (2017), "Active bias"; the form is that of Arazo et al.
(2021), which the IMPON paper compares with.
Rule: d_i is the mean of 1 - p(y_i | x_i) over the visits of row i. The score is d_i (`p-sgd`,
difficulty) or d_i (1 - d_i) (`c-sgd`, closeness to the threshold). At the start of an epoch, and
whenever a pool is used up, a pool of `budget` · n rows is drawn without replacement with
probability ∝ score + ε, and its rows are trained on in random order.
Cost a step: none beyond training; O(n) once a pool. State: 8 bytes a row, 8 more a row of the pool.
Weights: none. With `budget` = 1 a pool is a permutation of all rows, so both are exactly `uniform`.
Helps: where labels are clean and data redundant. Hurts: `p-sgd` spends most on wrong labels; under
a budget neither has been shown to beat a random pool (Arazo et al. 2021).

Departures from the sources:
1. A pool is drawn anew when it is used up within an epoch, so any `epoch_fraction` works.
2. In `c-sgd`, rows never seen get the highest score; Arazo's code gives them the highest d before
   the map, which makes them the least likely (`unseen = "arazo"` does the same).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_share
from impon_hpo.sampling.choice import choose_distinct, random_order
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class PSgd(BatchSampler):
    """Train on pools of rows drawn in proportion to how little the true class was believed in.

    Args:
        rows: The training rows.
        budget: Share of the rows in a pool, above 0, at most 1; at least a batch.
        smoothing: ε: "mean", the mean of the scores when the pool is drawn (Arazo), or "constant",
            their mean at the end of the warm-up (Chang).
        warmup_epochs: Epochs of uniform pools of all rows first, at least 0.
        unseen: Score of rows never seen: "max", the highest score, or "arazo".
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Chang et al. 2017, Arazo et al. 2021",
        forward="0",
        state="16 bytes",
        weights="none",
        use="rows whose true class has been believed in little",
    )
    beside_training = True
    _closeness: ClassVar[bool] = False
    _state = ("_doubt", "_n_seen", "_constant", "_warm", "_pool")

    def __init__(
        self,
        rows: Rows,
        *,
        budget: float = 1 / 3,
        smoothing: Literal["mean", "constant"] = "mean",
        warmup_epochs: int = 1,
        unseen: Literal["max", "arazo"] = "max",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        check_share("budget", budget)
        if warmup_epochs < 0:
            raise ConfigError(
                f"warmup_epochs must be at least 0, but got warmup_epochs={warmup_epochs}."
            )
        self.n_pool = math.floor(budget * len(rows) + 1e-9)
        if self.n_pool < self.batch_size:
            raise ConfigError(
                f"budget={budget} of {len(rows)} rows is {self.n_pool}, fewer than a batch "
                f"({self.batch_size})."
            )
        self.smoothing = smoothing
        self.warmup_epochs = warmup_epochs
        self.unseen = unseen
        self._doubt = torch.zeros(len(rows), device=rows.device)
        self._n_seen = torch.zeros(len(rows), device=rows.device)
        self._constant = torch.full((), -1.0, device=rows.device)  # below 0: not fixed yet
        self._warm = warmup_epochs > 0
        self._pool = Stream(len(rows), self.generator, first=self._new_pool())

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._warm = epoch <= self.warmup_epochs
        self._pool.begin(self._new_pool())

    def scores(self) -> Tensor:
        """Return the scores (n,) float32 of all rows, before smoothing."""
        seen = self._n_seen > 0
        doubt = self._doubt / self._n_seen.clamp_min(1)
        if self.unseen == "arazo":
            doubt = torch.where(seen, doubt, torch.where(seen, doubt, 0).max())
        scores = doubt * (1 - doubt) if self._closeness else doubt
        if self.unseen == "max":
            scores = torch.where(seen, scores, torch.where(seen, scores, 0).max())
        return scores

    def _draw(self, forward: Forward | None) -> Draw:
        if not self._pool.has(self.batch_size):
            self._pool.begin(self._new_pool())
        return Draw(self._pool.take(self.batch_size))

    def _new_pool(self) -> Tensor:
        """Return the rows (m,) int64 that are trained on next, in random order."""
        if self._warm:
            return random_order(len(self.rows), self.generator)
        scores = self.scores()
        mean = scores.mean()
        if self.smoothing == "constant":
            self._constant = torch.where(self._constant < 0, mean, self._constant)
            mean = self._constant
        # Nobody seen yet: all scores are 0, and every row is as likely as the others.
        importance = self._seen((scores + mean).clamp_min(1e-12))
        pool = choose_distinct(importance, self.n_pool, self.generator)
        return pool[random_order(self.n_pool, self.generator)]

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if logits is None:
            believed = losses.float().neg().exp()
        else:
            labels = self.rows.labels[draw.rows]
            believed = logits.float().softmax(1).gather(1, labels[:, None])[:, 0]
        finite = torch.isfinite(believed) & torch.isfinite(losses)
        doubt = torch.where(finite, 1 - believed.clamp(0, 1), 0.0)
        # The rows of a batch are different, so these are plain sums.
        self._doubt.index_add_(0, draw.rows, doubt)
        self._n_seen.index_add_(0, draw.rows, finite.float())


class CSgd(PSgd):
    """Train on pools of rows drawn by d (1 - d): those the model is undecided about."""

    card = Card(
        source="Chang et al. 2017, Arazo et al. 2021",
        forward="0",
        state="16 bytes",
        weights="none",
        use="rows whose true class is believed in by half",
    )
    beside_training = True
    _closeness = True

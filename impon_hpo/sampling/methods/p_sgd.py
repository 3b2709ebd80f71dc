"""`p-sgd` and `c-sgd`: pools drawn by the past probabilities of the true class.

Source: Chang, Learned-Miller, McCallum (2017), "Active bias", in the form of Arazo et al. (2021),
with which the IMPON paper compares.
Rule: d_i is the mean of 1 - p(y_i | x_i) over the visits of row i. The score is d_i (`p-sgd`,
difficulty) or d_i (1 - d_i) (`c-sgd`, closeness to the threshold). At the start of an epoch, and
whenever a pool is used up, a pool of `budget` · n rows is drawn without replacement with
probability ∝ score + ε. Its rows are trained on in random order.
Cost a step: none beyond training; O(n) once a pool. State: 8 bytes a row, 8 more for each row of
the pool. Weights: none. With `budget` = 1 a pool is a permutation of all rows, so both methods are
exactly `uniform`.
Helps: if labels are clean and data redundant. Hurts: `p-sgd` spends most on wrong labels; under a
budget neither has been shown to beat a random pool (Arazo et al. 2021).

Departures from the sources:
1. A new pool is drawn when one is used up within an epoch, so any `epoch_fraction` works.
2. In `c-sgd`, rows never seen have the highest score. Arazo's code gives them the highest d before
   it computes d (1 - d), which makes them the least likely; `unseen = "arazo"` does the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common
from impon_hpo.sampling.draws import Stream, choose_distinct, random_order
from impon_hpo.sampling.rows import Rows


class PSgd(BatchSampler):
    """Train on pools of rows, drawn with a preference for a low probability of the true class.

    Args:
        rows: The training rows.
        budget: Share of the rows in a pool, above 0, at most 1, and at least one batch.
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
        use="rows whose true class had a low probability",
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
        if warmup_epochs < 0:
            raise ConfigError(
                f"warmup_epochs must be at least 0, but got warmup_epochs={warmup_epochs}."
            )
        self.n_pool = self._pool_size("budget", budget)
        self.smoothing = smoothing
        self.warmup_epochs = warmup_epochs
        self.unseen = unseen
        self._doubt = torch.zeros(len(rows), device=rows.device)
        self._n_seen = torch.zeros(len(rows), device=rows.device)
        self._constant = torch.full((), -1.0, device=rows.device)  # below 0: not set yet
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
        # If no row has been seen, all scores are 0 and all rows are equally likely.
        importance = self._seen((scores + mean).clamp_min(1e-12))
        pool = choose_distinct(importance, self.n_pool, self.generator)
        return pool[random_order(self.n_pool, self.generator)]

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if logits is None:
            probability = losses.float().neg().exp()
        else:
            labels = self.rows.labels[draw.rows]
            probability = logits.float().softmax(1).gather(1, labels[:, None])[:, 0]
        finite = torch.isfinite(probability) & torch.isfinite(losses)
        doubt = torch.where(finite, 1 - probability.clamp(0, 1), 0.0)
        # The rows of a batch are different, so these are plain sums.
        self._doubt.index_add_(0, draw.rows, doubt)
        self._n_seen.index_add_(0, draw.rows, finite.float())


class CSgd(PSgd):
    """Train on pools of rows drawn by d (1 - d), that is rows on which the model is undecided."""

    card = replace(PSgd.card, use="rows whose true class had a probability near one half")
    beside_training = True
    _closeness = True

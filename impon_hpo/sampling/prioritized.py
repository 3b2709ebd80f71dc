"""`prioritized`: rows drawn in proportion to a power of their last loss, weighted for the bias.

Source: Schaul, Quan, Antonoglou, Silver (2015), "Prioritized experience replay".
Rule: P(i) = p_i / Σ p with p_i = (loss_i + `eps`)^`alpha`; rows never seen have the highest
priority so far. The loss of row i is weighted by (n P(i))^(-β) / max over the batch, and β grows
linearly from `beta` to 1 over the run.
Cost a step: none beyond training; priorities are kept in blocks of blocks. State: 8 bytes a row.
Weights: as above, at most 1.
Helps: in replay memories, from which it comes. Hurts: on shuffled data sets nobody has shown a
gain; rows repeat within a batch.

Departures from the source:
1. Rows never seen follow the highest priority once an epoch, not at every step.
2. Blocks of up to 256 for its binary tree: the same distribution, fewer and larger operations.
3. The maximum of the weights is taken over the batch, as its implementations do.
4. Without `total_steps`, β stays.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.priorities import Priorities
from impon_hpo.sampling.rows import Rows


class Prioritized(BatchSampler):
    """Draw rows in proportion to (last loss + eps)^alpha, with importance weights.

    Args:
        rows: The training rows.
        alpha: How much the loss matters, 0 (not at all) … 1.
        beta: How much the bias is corrected at the beginning, 0 … 1; 1 at the end of the run.
        eps: Added to every loss, positive.
        common: As for every `BatchSampler`; `total_steps` where β is to grow.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Schaul et al. 2015",
        forward="0",
        state="8 bytes",
        weights="(n P)^-beta / max",
        use="rows in proportion to a power of their last loss",
    )
    beside_training = True
    repeats_rows = True
    _state = ("_priorities", "_highest", "_unseen")

    def __init__(
        self,
        rows: Rows,
        *,
        alpha: float = 0.6,
        beta: float = 0.4,
        eps: float = 1e-6,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        check_between("alpha", alpha, 0, 1)
        check_between("beta", beta, 0, 1)
        check_positive("eps", eps)
        self.alpha, self.eps = alpha, eps
        self._beta = beta
        self._priorities = Priorities(len(rows), rows.device)
        self._highest = torch.ones((), dtype=torch.float64, device=rows.device)
        # The first loss says what "highest so far" is; until then all rows share the first 1.
        self._unseen = torch.ones(len(rows), dtype=torch.bool, device=rows.device)

    @property
    def beta(self) -> float:
        """β of the next draw."""
        if self.total_steps is None:
            return self._beta
        return self._beta + self.progress * (1 - self._beta)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        # Rows never seen follow the highest priority once an epoch: to follow it at every step
        # would cost O(n).
        everyone = torch.arange(len(self.rows), device=self.rows.device)
        raised = torch.where(self._unseen, self._highest, self._priorities.of(everyone))
        self._priorities.fill(raised)

    def _draw(self, forward: Forward | None) -> Draw:
        rows = self._priorities.draw(self.batch_size, self.generator)
        chance = self._priorities.of(rows) / self._priorities.total
        if self.blind:  # the same weights, on any rows
            rows = torch.randint(
                len(self.rows), rows.shape, generator=self.generator, device=rows.device
            )
        weights = (len(self.rows) * chance).pow(-self.beta)
        return Draw(rows, weights=(weights / weights.max()).float())

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        losses = losses.double()
        finite = torch.isfinite(losses)
        given = (torch.where(finite, losses, 0.0).clamp_min(0) + self.eps).pow(self.alpha)
        before = self._priorities.of(draw.rows)
        raised = torch.where(finite, given, before)
        # Rows that repeat agree on the highest of their priorities.
        raised = _highest_of_equal(draw.rows, raised)
        self._priorities.set(draw.rows, raised)
        self._unseen[draw.rows] = self._unseen[draw.rows] & ~_any_of_equal(draw.rows, finite)
        self._highest = torch.maximum(self._highest, torch.where(finite, given, 0.0).max())


def _highest_of_equal(rows: Tensor, values: Tensor) -> Tensor:
    """Return for each of rows (k,) the highest of the values (k,) of the rows equal to it."""
    same = rows[:, None] == rows
    return torch.where(same, values, -torch.inf).amax(1)


def _any_of_equal(rows: Tensor, flags: Tensor) -> Tensor:
    return ((rows[:, None] == rows) & flags).any(1)

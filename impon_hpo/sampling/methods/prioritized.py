"""`prioritized`: rows drawn in proportion to a power of their last loss, weighted for the bias.

Source: Schaul, Quan, Antonoglou, Silver (2015), "Prioritized experience replay".
Rule: P(i) = p_i / Σ p with p_i = (loss_i + `eps`)^`alpha`. Rows never seen have the highest
priority so far. The loss of row i is weighted by (n P(i))^(-β), divided by the maximum over the
batch; β grows linearly from `beta` to 1 over the run.
Cost a step: none beyond training; priorities are kept in blocks of blocks. State: 8 bytes a row.
Weights: as above, at most 1.
Helps: in replay memories, for which it was made. Hurts: no gain has been shown on shuffled data
sets; rows repeat within a batch.

Departures from the source:
1. Rows never seen get the highest priority once an epoch, not at every step.
2. Blocks of up to 256 instead of a binary tree: the same distribution, fewer and larger operations.
3. The maximum of the weights is that of the batch, as in existing implementations.
4. Without `total_steps`, β does not grow.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.state import Stateful


class Prioritized(BatchSampler):
    """Draw rows in proportion to (last loss + eps)^alpha, with importance weights.

    Args:
        rows: The training rows.
        alpha: How much the loss counts, from 0 (not at all) to 1.
        beta: How much the bias is corrected at the beginning, 0 … 1; 1 at the end of the run.
        eps: Added to every loss, positive.
        common: As for every `BatchSampler`; β grows only with `total_steps`.

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
        # Rows never seen share a priority of 1 until there is a first loss.
        self._unseen = torch.ones(len(rows), dtype=torch.bool, device=rows.device)

    @property
    def beta(self) -> float:
        """β of the next draw."""
        if self.total_steps is None:
            return self._beta
        return self._beta + self.progress * (1 - self._beta)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        # Once an epoch, since raising them at every step would cost O(n).
        all_rows = torch.arange(len(self.rows), device=self.rows.device)
        raised = torch.where(self._unseen, self._highest, self._priorities.of(all_rows))
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
        fresh = (torch.where(finite, losses, 0.0).clamp_min(0) + self.eps).pow(self.alpha)
        before = self._priorities.of(draw.rows)
        raised = torch.where(finite, fresh, before)
        # Copies of a row agree on the highest of their priorities.
        raised = _highest_of_equal(draw.rows, raised)
        self._priorities.set(draw.rows, raised)
        self._unseen[draw.rows] = self._unseen[draw.rows] & ~_any_of_equal(draw.rows, finite)
        self._highest = torch.maximum(self._highest, torch.where(finite, fresh, 0.0).max())


def _highest_of_equal(rows: Tensor, values: Tensor) -> Tensor:
    """Return for each of rows (k,) the highest of the values (k,) of the rows equal to it."""
    same = rows[:, None] == rows
    return torch.where(same, values, -torch.inf).amax(1)


def _any_of_equal(rows: Tensor, flags: Tensor) -> Tensor:
    return ((rows[:, None] == rows) & flags).any(1)


class Priorities(Stateful):
    """Weights of n rows, 1 each at first, in blocks, their sums in blocks again, and so on.

    A draw searches the sums at the top, then one block on every level below. A change recomputes
    the sums of its blocks from their contents, so rounding errors never build up. Both cost
    O(B · m) on each level and never wait for the device. Up to m² rows there are two levels, up to
    m³ three, with m = `fanout`. 8 bytes a row.

    Args:
        n_rows: Number of rows.
        device: Where they are kept.
        fanout: Largest number of weights in a block, at least 2.
    """

    _state = ("_levels", "_top")

    def __init__(self, n_rows: int, device: torch.device, *, fanout: int = 256) -> None:
        self.n_rows = n_rows
        n_levels = 2
        while fanout**n_levels < n_rows:
            n_levels += 1
        self.block_size = max(1, int(n_rows ** (1 / n_levels)))
        levels: list[Tensor] = []
        length = n_rows
        for _ in range(n_levels - 1):
            n_blocks = -(-length // self.block_size)
            shape = n_blocks, self.block_size
            levels += [torch.zeros(shape, dtype=torch.float64, device=device)]
            length = n_blocks
        self._levels = tuple(levels)
        self.fill(torch.ones(n_rows, dtype=torch.float64, device=device))

    @property
    def total(self) -> Tensor:
        """The sum of all weights, () float64."""
        return self._top.sum()

    def of(self, rows: Tensor) -> Tensor:
        """Return the weights (k,) float64 of rows (k,)."""
        return self._levels[0].view(-1)[rows]

    def set(self, rows: Tensor, weights: Tensor) -> None:
        """Give rows (k,) the positive weights (k,); copies of a row must have the same weight."""
        places, values = rows, weights.double()
        for level in self._levels:
            level.view(-1)[places] = values
            places = places // self.block_size
            values = level[places].sum(1)
        self._top[places] = values

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """Draw k rows (k,) int64 with replacement, in proportion to their weights."""
        ends = self._top.cumsum(0)
        shape = k, 1 + len(self._levels)
        uniform = torch.rand(shape, dtype=torch.float64, device=ends.device, generator=generator)
        places = torch.searchsorted(ends, uniform[:, 0] * ends[-1], right=True)
        places = places.clamp_max(len(ends) - 1)
        lengths = [self.n_rows, *(len(level) for level in self._levels[:-1])]
        for level, length, share in zip(
            reversed(self._levels), reversed(lengths), uniform.T[1:], strict=True
        ):
            within = level[places].cumsum(1)
            at = (share * within[:, -1])[:, None]
            inside = torch.searchsorted(within, at, right=True)[:, 0]
            places = (places * self.block_size + inside).clamp_max(length - 1)
        return places

    def fill(self, weights: Tensor) -> None:
        """Give all rows the weights (n,) float64."""
        for level in self._levels:
            level.view(-1)[: len(weights)] = weights
            weights = level.sum(1)
        self._top = weights

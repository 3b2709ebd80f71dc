"""`impon-memory`: the paper's linear loss estimator with a memory across the trials of a study.

Source: this project; the estimator of Ganapathiraman et al. (2022) with the context it deserved,
the reducible loss of Mindermann et al. (2022) as what it regresses.
Rule: of a bank taken from shuffled epochs, predict each row's reducible loss (loss under the model
that is trained - loss of the reference) by recursive least squares from {reference loss and class
probabilities; label; last seen loss, whether there is one, and its age; progress; products of
these}; draw the batch without replacement with probability ∝ exp(T · rank / N), rank 0 for the
lowest of N predictions, N - 1 for the highest. T, the temperature, runs linearly from
`temperature` to `temperature_end` over the run: below 0 the lowest predictions are favoured, at 0
(with all rows open) the run is exactly that of `uniform`, and with T → ∞ the batch is the top of
the bank. Banks come from the rows that the reference found easiest, widening from `easiest` to all
rows over `pacing`, as in `impon-paced`. A share `explore` of each batch
comes from the stream whatever its prediction.
Cost a step: none but a linear model on the bank; the reference is made once a study and charged.
State: 28 + 8 · classes bytes a row; (d + 1)² floats, d = 2 · classes + 11. Weights: none.
Helps: see studies/samplers, which also says where not. Hurts: with a reference of other data.

Without a reference it draws as `uniform` or as the paper's `impon`, as told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.captured import Captured
from impon_hpo.sampling.checks import Common, check_between, check_positive, check_share
from impon_hpo.sampling.choice import gumbel
from impon_hpo.sampling.fit import EstimatorFit
from impon_hpo.sampling.history import LossHistory
from impon_hpo.sampling.impon import Impon
from impon_hpo.sampling.pacing import Pacing, easiest_first
from impon_hpo.sampling.rls import RecursiveLeastSquares
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class ImponMemory(BatchSampler):
    """Train on rows by their predicted reducible loss, from what earlier trials learnt about them.

    Args:
        rows: The training rows, with a reference.
        bank_size: Rows of a bank, from a batch to all training rows; default three batches.
        temperature: T at the beginning; any number, inf for the top of the bank.
        temperature_end: T at the end; default the same.
        easiest: Share of the rows, easiest by the reference first, that banks are drawn from at the
            beginning, above 0, at most 1 (1: all rows, all the time).
        pacing: Share of the run over which it widens to all rows, above 0, at most 1.
        balance: Whether the open rows have the classes in proportion.
        target: What is regressed: "reducible" (loss - reference loss) or "loss".
        explore: Share of a batch taken without looking, 0 … 1.
        forgetting: Factor a batch of the least squares, above 0, at most 1.
        ridge: Ridge penalty of the least squares, positive.
        without_reference: What to do where `rows` have none: "uniform" or "impon".
        common: As for every `BatchSampler`; `total_steps` is needed.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="this project",
        forward="0",
        state="28 + 8 · classes bytes",
        weights="none",
        use="the reducible loss, predicted from what earlier trials learnt",
    )
    beside_training = True
    _state = ("_fit", "_stream", "_history", "estimator", "_plain")

    @classmethod
    def wants_reference(cls, options: Mapping[str, Any]) -> bool:
        return True

    def __init__(
        self,
        rows: Rows,
        *,
        bank_size: int | None = None,
        temperature: float = 2.0,
        temperature_end: float | None = None,
        easiest: float = 1 / 4,
        pacing: float = 4 / 9,
        balance: bool = True,
        target: Literal["reducible", "loss"] = "reducible",
        explore: float = 0.2,
        forgetting: float = 0.99,
        ridge: float = 1.0,
        without_reference: Literal["uniform", "impon"] = "uniform",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        check_between("explore", explore, 0, 1)
        check_share("forgetting", forgetting)
        check_positive("ridge", ridge)
        temperatures = (temperature, temperature if temperature_end is None else temperature_end)
        if any(math.isnan(value) for value in temperatures) or (
            temperatures[0] != temperatures[1] and float("inf") in map(abs, temperatures)
        ):
            raise ConfigError(
                "temperature and temperature_end must be finite, or both the same infinity, but "
                f"got {temperatures[0]} and {temperatures[1]}."
            )
        _ = self.progress  # refuses to go on without total_steps
        self.bank_size = self._bank_size(bank_size, default=3 * self.batch_size)
        self.temperatures = temperatures
        self.pacing = Pacing(easiest, pacing)
        self.target = target
        self.n_explored = round(explore * self.batch_size)
        self._stream = Stream(len(rows), self.generator)
        self._history = LossHistory(len(rows), rows.device)
        self._plain: Impon | None = None
        self._fixed: Tensor | None = None
        if rows.reference is not None:
            self._fixed = self._what_stays(rows)
            labels = rows.labels if balance else None
            self._easiest_first = easiest_first(rows.reference.loss, labels)
        elif without_reference == "impon":
            self._plain = Impon(rows, bank_size=bank_size or min(200, len(rows)), **common)
        n_features = 2 * rows.n_classes + 11
        self.estimator = RecursiveLeastSquares(
            n_features, forgetting=forgetting, ridge=ridge, device=rows.device
        )
        self._fit = EstimatorFit()
        self._choose = Captured(self._chosen, rows.device, generators=[self.generator])
        self._learn = Captured(self._learnt, rows.device)

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()
        self._fit.clear()
        if self._plain is not None:
            self._plain.blind = self.blind
            self._plain.start_epoch(epoch)

    def before_weights(self, wait: Callable[[], None]) -> None:
        super().before_weights(wait)
        if self._plain is not None:
            self._plain.before_weights(wait)

    @property
    def temperature(self) -> float:
        """The temperature of the next draw."""
        return float(self._temperature(lambda: self.progress))

    def _temperature(self, progress: Callable[[], float | Tensor]) -> float | Tensor:
        start, end = self.temperatures
        return start if start == end else start + progress() * (end - start)

    def _draw(self, forward: Forward | None) -> Draw:
        if self._plain is not None:
            return self._plain.draw(forward)
        if self._fixed is None or (self.temperature == 0 and self._n_open() == len(self.rows)):
            rows = self._stream.take(self.batch_size)
            if self._fixed is None:
                return Draw(rows)
            context = self._context(rows, self._now())
            return Draw(rows, scores=self.estimator.predict(context), context=context)
        rows, scores, context = self._choose(self._bank(), self._now())
        return Draw(rows, scores=scores, context=context)

    def _now(self) -> Tensor:
        """Return the steps so far, () int64, as a tensor: a captured function keeps its numbers."""
        return torch.full((), self.steps, device=self.rows.device)

    def _progress(self, now: Tensor) -> Tensor:
        assert self.total_steps is not None
        return (now.double() / self.total_steps).clamp_max(1.0)

    def _chosen(self, taken: Tensor, now: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows (B,) of a batch out of a bank, their scores (B,) and contexts (B, d)."""
        context = self._context(taken, now)
        scores = self.estimator.predict(context)
        seen = self._seen(scores[self.n_explored :])
        temperature = self._temperature(lambda: self._progress(now))
        picked = self._pick(seen, temperature, self.batch_size - self.n_explored)
        explored = torch.arange(self.n_explored, device=taken.device)
        chosen = torch.cat([explored, self.n_explored + picked])
        rows, scores, context = (part.index_select(0, chosen) for part in (taken, scores, context))
        return rows, scores, context

    def _n_open(self) -> int:
        return max(self.bank_size, round(self.pacing.share(self.progress) * len(self.rows)))

    def _bank(self) -> Tensor:
        n_open = self._n_open()
        if n_open == len(self.rows) or self.blind:
            return self._stream.take(self.bank_size)
        return self._easiest_first[draw_bank(n_open, self.bank_size, self.generator)]

    def _pick(self, scores: Tensor, temperature: float | Tensor, k: int) -> Tensor:
        if isinstance(temperature, float) and math.isinf(temperature):
            return torch.topk(scores, k, largest=temperature > 0).indices
        ascending = torch.arange(len(scores), dtype=torch.float64, device=scores.device)
        rank = torch.empty_like(ascending)
        rank.scatter_(0, scores.argsort(stable=True), ascending / len(scores))
        return torch.topk(temperature * rank + gumbel(rank, self.generator), k).indices

    def _what_stays(self, rows: Rows) -> Tensor:
        """Return (n, 2 · classes + 3) float32: what of the context is the same all the time."""
        reference = self._reference
        p = reference.probabilities
        loss = reference.loss[:, None]
        entropy = -torch.special.xlogy(p, p).sum(1, keepdim=True)
        labels = one_hot(rows.labels, rows.n_classes).float()
        return torch.cat([loss, loss.square(), entropy, p, labels], dim=1)

    def _context(self, rows: Tensor, now: Tensor) -> Tensor:
        """Return the context vectors (k, 2 · classes + 11) float32 of rows (k,) at step `now`."""
        assert self._fixed is not None
        fixed = self._fixed.index_select(0, rows)
        loss = fixed[:, 0]
        seen_at = self._history.seen_at.index_select(0, rows)
        was_seen = seen_at >= 0
        last = self._history.last.index_select(0, rows)
        above = torch.where(was_seen, last - loss, 0.0)
        # In epochs, so that it means the same for every size of the data and of the batch.
        steps = (now - seen_at) * was_seen
        age = steps * (self.batch_size / len(self.rows))
        seen = was_seen.to(loss)
        time = self._progress(now).to(loss).expand_as(loss)
        moving = [seen, above, above * age, age, time, time * loss, time * above, time * time]
        return torch.cat([fixed, *(column[:, None] for column in moving)], dim=1)

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if self._plain is not None:
            self._plain.observe(draw, losses, logits)
            return
        if self._fixed is None:
            self._history.update(draw.rows, losses, self.steps)
            return
        if draw.scores is None or draw.context is None:
            raise ConfigError("observe() needs the draw that this batch sampler returned.")
        (target,) = self._learn(draw.rows, draw.context, losses.float(), self._now())
        self._fit.add(draw.scores, target)

    def _learnt(self, rows: Tensor, context: Tensor, losses: Tensor, now: Tensor) -> tuple[Tensor]:
        """Learn from the losses (B,) of rows (B,) and return what was regressed (B,)."""
        target = losses
        if self.target == "reducible":
            target = losses - self._reference.loss.index_select(0, rows)
        self.estimator.update(context, target)
        self._history.update(rows, losses, now)
        return (target,)

    def diagnostics(self) -> dict[str, float]:
        if self._plain is not None:
            return self._plain.diagnostics()
        return super().diagnostics() | self._fit.measures()

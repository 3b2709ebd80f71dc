"""`impon-memory`: the paper's linear loss estimator with a memory across the trials of a study.

Source: this project; the estimator of Ganapathiraman et al. (2022) with a richer context, and the
reducible loss of Mindermann et al. (2022) as its target.
Rule: in a bank from shuffled epochs, predict each row's reducible loss (loss under the trained
model - loss of the reference) by recursive least squares from {reference loss and class
probabilities; label; last seen loss, whether it exists, and its age; progress; products of these}.
Draw the batch without replacement with probability ∝ exp(T · rank / N), where rank is 0 for the
lowest of N predictions and N - 1 for the highest. The temperature T goes linearly from
`temperature` to `temperature_end` over the run. Below 0 the lowest predictions are favoured, at 0
(with all rows open) the run is exactly that of `uniform`, and with T → ∞ the batch is the top of
the bank. Banks come from the rows that are easiest by the reference, widening from `easiest` to all
rows over `pacing`, as in `impon-paced`. A share `explore` of each batch comes from the stream,
independent of its prediction.
Cost a step: a linear model on the bank; the reference is made once for a study and charged.
State: 28 + 8 · classes bytes a row; (d + 1)² floats, d = 2 · classes + 11. Weights: none.
Helps: see studies/samplers, which also shows where it does not. Hurts: with a reference of other
data.

Without a reference it draws as `uniform` or as the paper's `impon`, by `without_reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import Card, Draw, Forward, ShuffledEpochs
from impon_hpo.sampling.captured import Captured
from impon_hpo.sampling.checks import Common, check_between, check_positive, check_share
from impon_hpo.sampling.draws import draw_bank, gumbel
from impon_hpo.sampling.estimators import EstimatorFit, RecursiveLeastSquares
from impon_hpo.sampling.history import LossHistory
from impon_hpo.sampling.methods.impon import Impon
from impon_hpo.sampling.pacing import Pacing, easiest_first
from impon_hpo.sampling.rows import Rows


class ImponMemory(ShuffledEpochs):
    """Train on rows by their predicted reducible loss, with what earlier trials learnt about them.

    Args:
        rows: The training rows, with a reference.
        bank_size: Rows of a bank, from a batch to all training rows; default three batches.
        temperature: T at the beginning: any number, or inf for the top of the bank.
        temperature_end: T at the end; default: as at the beginning.
        easiest: Share of the rows, easiest by the reference, that banks are drawn from at the
            beginning, above 0, at most 1 (1: always all rows).
        pacing: Share of the run over which that share widens to 1, above 0, at most 1.
        balance: Whether the open rows have the classes in proportion.
        target: What is predicted: "reducible" (loss - reference loss) or "loss".
        explore: Share of a batch that is taken independent of its prediction, 0 … 1.
        forgetting: Factor of the least squares at each batch, above 0, at most 1.
        ridge: Ridge penalty of the least squares, positive.
        without_reference: What to do if `rows` have no reference: "uniform" or "impon".
        common: As for every `BatchSampler`; `total_steps` is needed.

    Raises:
        ConfigError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from impon_hpo import ImponMemory, Reference, Rows
        >>> labels, probabilities = torch.arange(300) % 3, torch.rand(300, 3).softmax(1)
        >>> loss = -probabilities[torch.arange(300), labels].log()
        >>> reference = Reference(loss, probabilities)
        >>> rows = Rows(torch.rand(300, 8), labels, n_classes=3, reference=reference)
        >>> model = torch.nn.Linear(8, 3)
        >>> sampler = ImponMemory(rows, temperature=4.0, batch_size=32, model=model, total_steps=50)
        >>> sampler.draw()
        Draw(rows=int64 (32,), weights=None, scores=float32 (32,), context=float32 (32, 17))
    """

    card = Card(
        source="this project",
        forward="0",
        state="28 + 8 · classes bytes",
        weights="none",
        use="the reducible loss, predicted from what earlier trials learnt",
    )
    beside_training = True
    _state = ("_fit", "_history", "estimator", "_plain")

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
                "temperature and temperature_end must be finite, or the same infinity, but got "
                f"temperature={temperatures[0]} and temperature_end={temperatures[1]}."
            )
        _ = self.progress  # raises if there is no total_steps
        self.bank_size = self._bank_size(bank_size, default=3 * self.batch_size)
        self.temperatures = temperatures
        self.pacing = Pacing(easiest, pacing)
        self.target = target
        self.n_explored = round(explore * self.batch_size)
        self._history = LossHistory(len(rows), rows.device)
        self._plain: Impon | None = None
        self._fixed: Tensor | None = None
        if rows.reference is not None:
            self._fixed = self._fixed_context(rows)
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
        """Return the steps so far, () int64; a captured function would keep a plain number."""
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

    def _fixed_context(self, rows: Rows) -> Tensor:
        """Return (n, 2 · classes + 3) float32: the part of the context that never changes."""
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
        # In epochs, so that it does not depend on the sizes of data and batch.
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
        """Learn from the losses (B,) of rows (B,) and return the targets (B,)."""
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

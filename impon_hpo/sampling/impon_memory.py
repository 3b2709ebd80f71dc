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
State: 36 + 8 · classes bytes a row; (d + 1)² floats, d = 2 · classes + 11. Weights: none.
Helps: see studies/samplers, which also says where not. Hurts: with a reference of other data.

Without a reference it draws as `uniform` or as the paper's `impon`, as told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Common, Draw, Forward
from impon_hpo.sampling.card import Card
from impon_hpo.sampling.checks import check_between, check_choice, check_positive, check_share
from impon_hpo.sampling.choice import gumbel
from impon_hpo.sampling.fit import EstimatorFit
from impon_hpo.sampling.impon import Impon
from impon_hpo.sampling.memory_context import MemoryContext, n_features
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
        state="36 + 8 · classes bytes",
        weights="none",
        use="the reducible loss, predicted from what earlier trials learnt",
    )

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
        check_choice("target", target, ("reducible", "loss"))
        check_choice("without_reference", without_reference, ("uniform", "impon"))
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
        self._explored = torch.arange(self.n_explored, device=rows.device)
        n_scored = self.bank_size - self.n_explored
        self._shares = torch.arange(n_scored, dtype=torch.float64, device=rows.device) / n_scored
        self._stream = Stream(len(rows), self.generator)
        self._plain: Impon | None = None
        self._context: MemoryContext | None = None
        if rows.reference is not None:
            self._context = MemoryContext(rows, rows.reference, batch_size=self.batch_size)
            labels = rows.labels if balance else None
            self._easiest_first = easiest_first(rows.reference.loss, labels)
        elif without_reference == "impon":
            self._plain = Impon(rows, bank_size=bank_size or min(200, len(rows)), **common)
        self.estimator = RecursiveLeastSquares(
            n_features(rows.n_classes), forgetting=forgetting, ridge=ridge, device=rows.device
        )
        self._fit = EstimatorFit()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()
        self._fit.clear()
        if self._plain is not None:
            self._plain.blind = self.blind
            self._plain.start_epoch(epoch)

    @property
    def temperature(self) -> float:
        """The temperature of the next draw."""
        start, end = self.temperatures
        return start if start == end else start + self.progress * (end - start)

    def _draw(self, forward: Forward | None) -> Draw:
        if self._plain is not None:
            return self._plain.draw(forward)
        if self._context is None:
            return Draw(self._stream.take(self.batch_size))
        temperature = self.temperature
        as_uniform = temperature == 0 and self._n_open() == len(self.rows)
        taken = self._stream.take(self.batch_size) if as_uniform else self._bank()
        context = self._context.vectors(taken, steps=self.steps, progress=self.progress)
        scores = self.estimator.predict(context)
        if as_uniform:
            return Draw(taken, scores=scores, context=context)
        seen = self._seen(scores[self.n_explored :])
        picked = self._pick(seen, temperature, self.batch_size - self.n_explored)
        chosen = torch.cat([self._explored, self.n_explored + picked])
        rows, scores, context = (part.index_select(0, chosen) for part in (taken, scores, context))
        return Draw(rows, scores=scores, context=context)

    def _n_open(self) -> int:
        return max(self.bank_size, round(self.pacing.share(self.progress) * len(self.rows)))

    def _bank(self) -> Tensor:
        n_open = self._n_open()
        if n_open == len(self.rows) or self.blind:
            return self._stream.take(self.bank_size)
        return self._easiest_first.index_select(
            0, draw_bank(n_open, self.bank_size, self.generator)
        )

    def _pick(self, scores: Tensor, temperature: float, k: int) -> Tensor:
        if temperature in (float("inf"), -float("inf")):
            return torch.topk(scores, k, largest=temperature > 0).indices
        # The noise belongs to a rank: whichever row stands there, it is as likely.
        noise = gumbel(self._shares, self.generator)
        ranks = torch.topk(torch.add(noise, self._shares, alpha=temperature), k).indices
        return scores.argsort(stable=True).index_select(0, ranks)

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if self._plain is not None:
            self._plain.observe(draw, losses, logits)
            return
        if self._context is None:
            return
        if draw.scores is None or draw.context is None:
            raise ConfigError("observe() needs the draw that this batch sampler returned.")
        losses = losses.float()
        above = self._context.above_reference(draw.context, losses)
        target = above if self.target == "reducible" else losses
        self._fit.add(draw.scores, target)
        self.estimator.update(draw.context, target)
        self._context.note(draw.rows, above, self.steps)

    def diagnostics(self) -> dict[str, float]:
        if self._plain is not None:
            return self._plain.diagnostics()
        return super().diagnostics() | self._fit.measures()

    def state_dict(self) -> dict[str, Any]:
        own = {
            "fit": self._fit.state_dict(),
            "stream": self._stream.state_dict(),
            "estimator": self.estimator.state_dict(),
        }
        if self._context is not None:
            own["context"] = self._context.state_dict()
        if self._plain is not None:
            own["plain"] = self._plain.state_dict()
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._fit.load_state_dict(state["fit"])
        self._stream.load_state_dict(state["stream"])
        self.estimator.load_state_dict(state["estimator"])
        if self._context is not None:
            self._context.load_state_dict(state["context"])
        if self._plain is not None:
            self._plain.load_state_dict(state["plain"])

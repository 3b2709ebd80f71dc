"""`lstm-loss`: rows in proportion to the loss that an LSTM predicts from their last losses.

Source: Katharopoulos & Fleuret (2017), "Biased importance sampling for deep neural network
training", and its code; the parent of the paper's batch sampler.
Rule: of `presample` random rows, predict each one's next loss by two LSTM layers over its last
`history` losses, joined with an embedding of its class, and a linear layer; score
s = max(prediction, 1e-6) + `smoothing` · moving mean of the predictions (0.9 kept a step, from 1).
Draw the batch with replacement in proportion to s. One Adam step on the squared error after each
batch, from the losses that its rows had before. Weights: with w = Σ s / (N s_i) over the N
presampled rows, ŵ_i = w_i^k · Σ w s / Σ w^k s over the batch; `k` = 1 is unbiased, 0 weighs all
rows of a batch alike, and less prefers the highest losses (the paper's choice is ½).
Cost a step: the LSTM over `presample` rows; no extra pass through the deep model.
State: 2 · `history` + 2 bytes a row, and 3 times the LSTM's weights.
Helps: the first evidence that losses can be predicted without pixels. Hurts: on small models the
LSTM costs more than it saves; in the first epoch there is no history, so only the class tells.

Departures from the source:
1. Rows never trained on have an empty history and leave the LSTM in its initial state; there, each
   history begins with a loss of 1, and losses of exactly 0 are masked.
2. Initial weights: PyTorch's uniform ones for the LSTM and the linear layer, Keras' for the
   embedding (±0.05), and no orthogonal ones.
3. The presample is without replacement, and at most all rows.
4. Losses are kept in half precision and cut at ±60000; a row that stands several times in a batch
   adds one loss, its last, to its history. The regression is never in log space.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.bank import draw_bank
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.choice import choose_repeatedly
from impon_hpo.sampling.fit import EstimatorFit
from impon_hpo.sampling.lstm import LossEstimator, Network
from impon_hpo.sampling.rows import Rows

LARGEST = 60000.0
"""Larger losses count as this one, which half precision can hold."""


class LstmLoss(BatchSampler):
    """Train on rows in proportion to the loss that an LSTM predicts from their loss history.

    Args:
        rows: The training rows.
        presample: Rows whose loss is predicted at each step, at least a batch; all rows where
            there are fewer.
        history: Losses kept of each row, 1 … 1000.
        embedding: Length of a class's embedding, at least 1.
        hidden: Units of each of the two LSTM layers, at least 1.
        estimator_lr: Learning rate of the LSTM's Adam, positive.
        smoothing: Share of the moving mean prediction added to every score, 0 … 100.
        k: Exponent of the weights, finite and at most 1.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Katharopoulos & Fleuret 2017",
        forward="0",
        state="22 bytes",
        weights="biased by k",
        use="predicts a row's loss from its history and class, without pixels",
    )
    beside_training = True
    repeats_rows = True
    _state = ("_fit", "_past", "_count", "_mean", "estimator")

    def __init__(
        self,
        rows: Rows,
        *,
        presample: int = 2048,
        history: int = 10,
        embedding: int = 32,
        hidden: int = 32,
        estimator_lr: float = 1e-3,
        smoothing: float = 0.0,
        k: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        if presample < self.batch_size:
            raise ConfigError(
                f"presample must be at least batch_size ({self.batch_size}), but got "
                f"presample={presample}."
            )
        check_between("history", history, 1, 1000)
        check_positive("embedding", embedding)
        check_positive("hidden", hidden)
        check_positive("estimator_lr", estimator_lr)
        check_between("smoothing", smoothing, 0, 100)
        if not -math.inf < k <= 1:
            raise ConfigError(f"k must be finite and at most 1, but got k={k}.")
        self.presample = min(presample, len(rows))
        self.smoothing = smoothing
        self.k = k
        self._past = torch.zeros(len(rows), history, dtype=torch.float16, device=rows.device)
        self._count = torch.zeros(len(rows), dtype=torch.int16, device=rows.device)
        self._mean = torch.ones((), dtype=torch.float64, device=rows.device)
        network = Network(
            rows.n_classes, embedding=embedding, hidden=hidden, generator=self.generator
        )
        self.estimator = LossEstimator(network, lr=estimator_lr)
        self._fit = EstimatorFit()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._fit.clear()

    def _known(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return past losses (k, h), how many there are (k,), and labels (k,) of rows (k,)."""
        return self._past[rows].float(), self._count[rows].long(), self.rows.labels[rows]

    def _draw(self, forward: Forward | None) -> Draw:
        bank = draw_bank(len(self.rows), self.presample, self.generator)
        predicted = self.estimator.predict(*self._known(bank))
        scores = self._seen(predicted.double().clamp_min(1e-6))
        self._mean = 0.9 * self._mean + 0.1 * scores.mean()
        scores = scores + self.smoothing * self._mean
        picked = choose_repeatedly(scores, self.batch_size, self.generator)
        weights = self._weights(scores, picked)
        return Draw(bank[picked], weights=weights, scores=predicted[picked])

    def _weights(self, scores: Tensor, picked: Tensor) -> Tensor:
        chosen = scores[picked]
        unbiased = scores.mean() / chosen
        # w^k over its largest value in the batch, which cancels: no k is too low for it.
        power = self.k * unbiased.log()
        power = (power - power.amax()).exp()
        weights = power * (unbiased * chosen).sum() / (power * chosen).sum()
        return weights.float().clamp_min(1e-30)

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        losses = losses.float()
        if draw.scores is not None:
            self._fit.add(draw.scores, losses)
        losses = torch.where(torch.isfinite(losses), losses.clamp(-LARGEST, LARGEST), math.nan)
        past, count, labels = self._known(draw.rows)
        self.estimator.update(past, count, labels, losses)
        self._remember(draw.rows, past, count, losses)

    def _remember(self, rows: Tensor, past: Tensor, count: Tensor, losses: Tensor) -> None:
        """Append each row's loss to its history, whose oldest loss leaves where it is full."""
        # Of a row's several losses the last finite one, so that all its copies write the same.
        key = 2 * rows + torch.isfinite(losses)
        ordered, order = torch.sort(key, stable=True)
        losses = losses[order[torch.searchsorted(ordered, 2 * rows + 1, right=True) - 1]]
        finite = torch.isfinite(losses)
        size = past.shape[1]
        moved = torch.where((count == size)[:, None], past.roll(-1, dims=1), past)
        at = count.clamp_max(size - 1)[:, None]
        moved = moved.scatter(1, at, losses[:, None])
        self._past[rows] = torch.where(finite[:, None], moved, past).half()
        self._count[rows] = torch.where(finite, (count + 1).clamp_max(size), count).short()

    def diagnostics(self) -> dict[str, float]:
        return super().diagnostics() | self._fit.measures()

"""`lstm-loss`: rows in proportion to the loss that an LSTM predicts from their last losses.

Source: Katharopoulos & Fleuret (2017), "Biased importance sampling for deep neural network
training", and its code; the parent of the paper's batch sampler.
Rule: for `presample` random rows, predict the next loss of each by two LSTM layers over its last
`history` losses, joined with an embedding of its class, and a linear layer. The score is
s = max(prediction, 1e-6) + `smoothing` · moving mean of the predictions (it begins with 1 and keeps
0.9 at each step). Draw the batch with replacement in proportion to s. After each batch take one
Adam step on the squared error, from the losses that its rows had before.
Weights: with w = Σ s / (N s_i) over the N presampled rows, ŵ_i = w_i^k · Σ w s / Σ w^k s over the
batch. `k` = 1 is unbiased, 0 gives all rows of a batch the same weight, and below 0 the highest
losses have the largest weights (the paper uses ½).
Cost a step: the LSTM over `presample` rows; no extra pass through the deep model.
State: 2 · `history` + 2 bytes a row, and 3 times the LSTM's weights.
Helps: it was the first evidence that losses can be predicted without pixels. Hurts: on small models
the LSTM costs more than it saves; in the first epoch there is no history, only the class.

Departures from the source:
1. Rows never trained on have an empty history and leave the LSTM in its initial state. In the
   source each history begins with a loss of 1, and losses of exactly 0 are masked.
2. Initial weights are PyTorch's uniform ones for the LSTM and the linear layer, and Keras' for the
   embedding (±0.05); none are orthogonal.
3. The presample is drawn without replacement and has at most all rows.
4. Losses are kept in half precision and cut at ±60000. A row that occurs several times in a batch
   adds one loss, its last, to its history. The regression is never in log space.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.draws import choose_repeatedly, draw_bank
from impon_hpo.sampling.estimators import EstimatorFit
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.state import Stateful

LARGEST = 60000.0
"""Larger losses are cut to this one, which half precision can hold."""


class LstmLoss(BatchSampler):
    """Train on rows in proportion to the loss that an LSTM predicts from their loss history.

    Args:
        rows: The training rows.
        presample: Rows whose loss is predicted at each step, at least a batch; at most all rows
            are used.
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
        """Return past losses (k, h), their numbers (k,) and the labels (k,) of rows (k,)."""
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
        # Divided by the largest w^k of the batch, which cancels, so that no k overflows.
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
        """Append each row's loss to its history; a full history loses its oldest loss."""
        # Of several losses of a row the last finite one, so that all its copies write the same.
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


class Network(nn.Module):
    """Predicts the next loss from class and past losses; initial weights come from `generator`."""

    def __init__(
        self, n_classes: int, *, embedding: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        # On the meta device no weights are drawn yet, so the global generator is not used.
        self.classes = nn.Embedding(n_classes, embedding, device="meta")
        self.lstm = nn.LSTM(1, hidden, num_layers=2, batch_first=True, device="meta")
        self.dense = nn.Linear(hidden + embedding, 1, device="meta")
        self.to_empty(device=generator.device)
        bounds = {
            self.classes: 0.05,
            self.lstm: 1 / math.sqrt(hidden),
            self.dense: 1 / math.sqrt(hidden + embedding),
        }
        for layer, bound in bounds.items():
            for weights in layer.parameters():
                weights.data.uniform_(-bound, bound, generator=generator)

    def forward(self, past: Tensor, count: Tensor, labels: Tensor) -> Tensor:
        """Return predictions (k,) from losses (k, h), of which the first `count` (k,) are valid."""
        outputs, _ = self.lstm(past[:, :, None])
        last = (count - 1).clamp_min(0)[:, None, None].expand(-1, 1, outputs.shape[2])
        state = torch.where(count[:, None] > 0, outputs.gather(1, last)[:, 0], 0.0)
        return self.dense(torch.cat([state, self.classes(labels)], dim=1))[:, 0]  # type: ignore[no-any-return]


class LossEstimator(Stateful):
    """The network and its Adam (Kingma & Ba 2015); it never waits for the device.

    Args:
        network: Predicts the losses.
        lr: Learning rate, positive.
    """

    _state = ("network", "_mean", "_square", "_n_updates")

    def __init__(self, network: Network, *, lr: float) -> None:
        self.network = network
        self.lr = lr
        self._weights = list(network.parameters())
        self._mean = torch.zeros_like(self._vector())
        self._square = torch.zeros_like(self._mean)
        self._n_updates = 0

    @torch.no_grad()
    def predict(self, past: Tensor, count: Tensor, labels: Tensor) -> Tensor:
        """Return predicted losses (k,) float32."""
        return self.network(past, count, labels)  # type: ignore[no-any-return]

    def update(self, past: Tensor, count: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Take one step on the mean squared error; losses that are not finite do not count."""
        finite = torch.isfinite(losses)
        losses = torch.where(finite, losses, 0.0)
        with torch.enable_grad():
            error = torch.where(finite, self.network(past, count, labels) - losses, 0.0)
            objective = error.square().sum() / finite.sum().clamp_min(1)
            gradients = torch.autograd.grad(objective, self._weights)
        self._adam(torch.cat([gradient.flatten() for gradient in gradients]))

    @torch.no_grad()
    def _adam(self, gradient: Tensor) -> None:
        self._n_updates += 1
        self._mean.lerp_(gradient, 1 - 0.9)
        self._square.lerp_(gradient.square(), 1 - 0.999)
        mean = self._mean / (1 - 0.9**self._n_updates)
        square = self._square / (1 - 0.999**self._n_updates)
        self._set(self._vector() - self.lr * mean / (square.sqrt() + 1e-8))

    def _vector(self) -> Tensor:
        return parameters_to_vector(self._weights).detach()

    @torch.no_grad()
    def _set(self, vector: Tensor) -> None:
        # In place, since cuDNN keeps the LSTM's weights together in one piece of memory.
        sizes = [weights.numel() for weights in self._weights]
        for weights, values in zip(self._weights, vector.split(sizes), strict=True):
            weights.copy_(values.view_as(weights))

"""`autoassist`: rows that a logistic model of pixels and class holds for not yet trivial.

Source: Zhang, Yu, Dhillon (2019), "AutoAssist: a framework to accelerate training of deep neural
networks", and its code.
Rule: the assistant gives a row the probability p = σ(W · x + U[y]) of having a loss above the
moving mean; a row of the shuffled epoch is kept with probability `base` + (1 - `base`) · p. After
the step the assistant learns from the rows trained on, with target t = 1[loss > mean]: gradients
g = p - t summed over the batch, W ← W - η/B · (Σ g x + λ W), U[y] ← U[y] - η/B · Σ (g + λ U[y]),
η = `estimator_lr`, λ = `weight_decay`. The mean is that of sums of losses and of rows which both
keep `momentum` = 0.75 a batch, the batch at hand included.
Cost a step: a linear model on the bank; no extra pass through the deep model.
State: none a row but the order (8 bytes); d + classes floats. Weights: none, so the training loss
is biased.
Helps: keeps a floor of `base` under every row, so that none is forgotten. Hurts: a linear model of
pixels tells little of the loss; what it does learn is mostly the class.

Departures from the source:
1. Deep model and assistant take turns; there, processes exchange batches and losses that are some
   steps old, and the assistant skips batches where it is behind.
2. Of a bank of `bank_size` rows the first B that are kept are the batch; where fewer are kept, the
   rows that were closest to it fill up. So batches have a fixed size without waiting for the GPU.
   Rows kept beyond B, and those left over when a bank no longer fits, wait for the next shuffle.
3. Rows come in shuffled order, as there for ImageNet; the code for small data goes in file order.
4. The rows of a batch move U at once, not one after the other; pixels are not augmented.
5. Targets are always by loss; the code can also ask whether the prediction was wrong.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.estimator import finite_rows
from impon_hpo.sampling.features import make_features
from impon_hpo.sampling.fit import EstimatorFit
from impon_hpo.sampling.rows import Rows
from impon_hpo.sampling.stream import Stream


class AutoAssist(BatchSampler):
    """Train on the rows of a shuffled epoch that an assistant does not hold for trivial.

    Args:
        rows: The training rows.
        base: Probability that a row is kept whatever the assistant says, 0 … 1.
        bank_size: Rows looked at for a batch, from a batch to all training rows; default two
            batches.
        estimator_lr: Learning rate of the assistant, positive.
        weight_decay: Squared penalty of the assistant, 0 … 1.
        momentum: What the moving mean of the loss keeps at each batch, from 0 to below 1.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Zhang, Yu, Dhillon 2019",
        forward="0",
        state="none",
        weights="none",
        use="skips rows that a linear assistant holds for trivial",
    )
    beside_training = True
    _state = ("_fit", "_stream", "_w", "_u", "_sums")

    def __init__(
        self,
        rows: Rows,
        *,
        base: float = 0.3,
        bank_size: int | None = None,
        estimator_lr: float = 0.01,
        weight_decay: float = 1e-3,
        momentum: float = 0.75,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(rows, **common)
        check_between("base", base, 0, 1)
        check_positive("estimator_lr", estimator_lr)
        check_between("weight_decay", weight_decay, 0, 1)
        if not 0 <= momentum < 1:
            raise ConfigError(
                f"momentum must be at least 0 and below 1, but got momentum={momentum}."
            )
        self.base = base
        self.bank_size = self._bank_size(bank_size, default=2 * self.batch_size)
        self.estimator_lr = estimator_lr
        self.weight_decay = weight_decay
        self.momentum = momentum
        self._features, n_features = make_features("pixels", rows)
        device, draws = rows.device, self.generator
        self._w = 0.001 * torch.randn(n_features, generator=draws, device=device)
        self._u = 0.001 * torch.randn(rows.n_classes, generator=draws, device=device)
        # Moving sums of losses and of rows.
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._stream = Stream(len(rows), self.generator)
        self._fit = EstimatorFit()

    def start_epoch(self, epoch: int) -> None:
        super().start_epoch(epoch)
        self._stream.shuffle()
        self._fit.clear()

    def _probability(self, rows: Tensor, inputs: Tensor) -> Tensor:
        return torch.sigmoid(inputs @ self._w + self._u[self.rows.labels[rows]])

    def _draw(self, forward: Forward | None) -> Draw:
        bank = self._stream.take(self.bank_size)
        inputs = self._features(bank)
        p = self._probability(bank, inputs)
        keep = self.base + (1 - self.base) * self._seen(p).double()
        coin = torch.rand(
            keep.shape, dtype=keep.dtype, device=keep.device, generator=self.generator
        )
        # Kept rows first, as they came; then the others (margin ≤ 0), the closest first.
        as_they_came = torch.arange(len(bank), 0, -1, dtype=keep.dtype, device=keep.device)
        order = torch.where(coin < keep, as_they_came, keep - coin)
        picked = torch.topk(order, self.batch_size).indices
        return Draw(bank[picked], scores=p[picked], context=inputs[picked])

    def _observe(self, draw: Draw, losses: Tensor, logits: Tensor | None) -> None:
        if draw.scores is None or draw.context is None:
            raise ConfigError("observe() needs the draw that this batch sampler returned.")
        losses = losses.float()
        self._fit.add(draw.scores, losses)
        finite = torch.isfinite(losses) & finite_rows(draw.context)
        inputs = torch.where(finite[:, None], draw.context, 0.0)
        losses = torch.where(finite, losses, 0.0).double()
        n_rows = finite.sum()
        new = torch.stack([losses.sum(), n_rows.double()])
        # A batch without a finite loss is as if it had not been.
        moved = self.momentum * self._sums + (1 - self.momentum) * new
        self._sums = torch.where(n_rows > 0, moved, self._sums)
        mean = self._sums[0] / torch.where(self._sums[1] > 0, self._sums[1], 1.0)

        error = self._probability(draw.rows, inputs) - (losses > mean).float()
        error = torch.where(finite, error, 0.0)
        classes = torch.arange(self.rows.n_classes, device=finite.device)
        member = self.rows.labels[draw.rows] == classes[:, None]
        member = (member & finite).float()
        step = self.estimator_lr * (n_rows > 0) / n_rows.clamp_min(1)
        decay = self.weight_decay
        self._w = self._w - step * (error @ inputs + decay * self._w)
        self._u = self._u - step * (member @ error + decay * member.sum(1) * self._u)

    def diagnostics(self) -> dict[str, float]:
        # What is predicted is a probability, so only its order can be held against the losses.
        fit = {"rank_correlation": self._fit.measures()["rank_correlation"]}
        return super().diagnostics() | fit

"""`autoassist`: rows that a logistic model of pixels and class considers not trivial yet.

Source: Zhang, Yu, Dhillon (2019), "AutoAssist: a framework to accelerate training of deep neural
networks", and its code.
Rule: the assistant gives a row the probability p = σ(W · x + U[y]) of having a loss above the
moving mean. A row of the shuffled epoch is kept with probability `base` + (1 - `base`) · p. After
the step the assistant learns from the rows of the batch, with the target t = 1[loss > mean] and
g = p - t: W ← W - η/B · (Σ g x + λ W), U[y] ← U[y] - η/B · Σ (g + λ U[y]), where η is
`estimator_lr` and λ is `weight_decay`. The mean is a moving sum of losses over a moving sum of
rows, this batch included; both sums keep `momentum` = 0.75 of themselves at each batch.
Cost a step: a linear model on the bank; no extra pass through the deep model.
State: the order, 8 bytes a row, and d + classes floats. Weights: none, so the training loss is
biased.
Helps: every row is kept with at least the probability `base`, so that none is forgotten. Hurts: a
linear model of pixels says little about the loss; it learns mostly the class.

Departures from the source:
1. Deep model and assistant take turns. In the source, processes exchange batches and losses that
   are some steps old, and the assistant skips batches when it is behind.
2. Of a bank of `bank_size` rows, the first B that are kept are the batch. If fewer are kept, the
   rows that came closest to being kept fill the batch. So batches have a fixed size, and the host
   never waits for the GPU. Rows kept beyond B, and those left when a bank no longer fits, wait for
   the next shuffle.
3. Rows come in shuffled order, as in the source for ImageNet; its code for small data uses the
   order of the file.
4. The rows of a batch change U all at once, not one after the other; pixels are not augmented.
5. Targets depend on the loss only; the code can also use whether the prediction was wrong.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.base import BatchSampler, Card, Draw, Forward
from impon_hpo.sampling.checks import Common, check_between, check_positive
from impon_hpo.sampling.draws import Stream
from impon_hpo.sampling.estimators import EstimatorFit, finite_rows
from impon_hpo.sampling.features import make_features
from impon_hpo.sampling.rows import Rows


class AutoAssist(BatchSampler):
    """Train on the rows of a shuffled epoch that an assistant does not consider trivial.

    Args:
        rows: The training rows.
        base: Least probability that a row is kept, 0 … 1.
        bank_size: Rows considered for a batch, from a batch to all training rows; default two
            batches.
        estimator_lr: Learning rate of the assistant, positive.
        weight_decay: Squared penalty of the assistant, 0 … 1.
        momentum: Share of the moving sums that is kept at each batch, from 0 to below 1.
        common: As for every `BatchSampler`.

    Raises:
        ConfigError: An argument is out of its range.
    """

    card = Card(
        source="Zhang, Yu, Dhillon 2019",
        forward="0",
        state="none",
        weights="none",
        use="skips rows that a linear assistant considers trivial",
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
        self._features, n_features = make_features("auto", rows)
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
        # Kept rows first, in their order; then the others (keep ≤ coin), the closest first.
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
        # A batch without a finite loss changes nothing.
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
        # The prediction is a probability, so only its order can be compared with the losses.
        fit = {"rank_correlation": self._fit.measures()["rank_correlation"]}
        return super().diagnostics() | fit

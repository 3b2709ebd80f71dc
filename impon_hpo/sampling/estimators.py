"""The loss estimators: small linear models that predict the deep model's losses, and their fit."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from impon_hpo.sampling.state import Stateful

Init = Literal["uniform", "zeros"]


class LinearEstimator(Stateful):
    """Predicts a row's loss from its context vector; learns by SGD on the squared error.

    Source: Ganapathiraman, Calderon Rodriguez, Joshi (2022). Prediction ŷ = a · c + β. One step on
    the batch mean of (ŷ - l)² with learning rate η is
    a ← a - η · 2/B · Σ (ŷ_i - l_i) c_i,  β ← β - η · 2/B · Σ (ŷ_i - l_i).
    Rows with a loss or a context that is not finite do not count, in B neither.

    Args:
        n_features: Length d of a context vector.
        lr: Learning rate η, positive.
        init: "uniform" (between ±1/√d, as `torch.nn.Linear`) or "zeros". The paper does not say
            which. The choice matters, since a learning rate of 1e-6 hardly moves the weights.
        generator: Draws the initial weights; the estimator lives on its device.
    """

    _state = ("weight", "bias")

    def __init__(
        self, n_features: int, *, lr: float, init: Init, generator: torch.Generator
    ) -> None:
        self.lr = lr
        self.init = init
        self.generator = generator
        self.weight = torch.zeros(n_features, device=generator.device)
        self.bias = torch.zeros((), device=generator.device)
        self.reset()

    def reset(self) -> None:
        """Draw new initial weights."""
        if self.init == "zeros":
            self.weight.zero_()
            self.bias.zero_()
        else:
            bound = 1 / math.sqrt(len(self.weight))
            self.weight.uniform_(-bound, bound, generator=self.generator)
            self.bias.uniform_(-bound, bound, generator=self.generator)

    def shrink(self, factor: float) -> None:
        """Forget: mix `factor` (0 … 1) of the weights with 1 - `factor` of new initial ones."""
        weight, bias = self.weight.clone(), self.bias.clone()
        self.reset()
        if factor == 0:  # 0 · nan would be nan
            return
        self.weight.mul_(1 - factor).add_(weight, alpha=factor)
        self.bias.mul_(1 - factor).add_(bias, alpha=factor)

    def predict(self, context: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return the predicted losses (k,) float32 of context vectors (k, d) float32.

        Args:
            context: The whole vectors, or what comes before `shared`.
            shared: (s,) float32, the last numbers of every vector, if all vectors share them.
        """
        if shared is None:
            return torch.addmv(self.bias, context, self.weight)
        own, rest = self.weight[: -len(shared)], self.weight[-len(shared) :]
        return torch.addmv(torch.dot(rest, shared).add_(self.bias), context, own)

    def update(self, context: Tensor, losses: Tensor) -> None:
        """Take one SGD step on context vectors (B, d) and observed losses (B,)."""
        # If a number of a row is not finite, neither is its error; and 0 · nan would be nan again.
        error = self.predict(context) - losses
        finite = is_finite(error)
        context, error = context.nan_to_num(0.0, 0.0, 0.0), torch.where(finite, error, 0.0)
        change = error * (-2 * self.lr / finite.sum().clamp_min(1))
        self.weight.addmv_(context.T, change)
        self.bias += change.sum()


def is_finite(values: Tensor) -> Tensor:
    """Return `torch.isfinite(values)` in two operations, not five."""
    return values - values == 0  # x - x is nan where x is not finite


def finite_rows(values: Tensor) -> Tensor:
    """Return (k,) bool: which rows of (k, d) have finite numbers only."""
    return (values - values).sum(1) == 0


class RecursiveLeastSquares(Stateful):
    """Predicts from context vectors by exponentially weighted ridge regression with an intercept.

    It needs no learning rate. Source: Haykin, Adaptive Filter Theory (2002), ch. 10, in information
    form, one batch at a time. With c̃ = (c, 1), each batch gives A ← λ A + Σ c̃ c̃ᵀ and
    v ← λ v + Σ l c̃, and the weights solve (A + R) w = v. R is `ridge` on the diagonal, 0 for the
    intercept. The ridge is not forgotten, so A + R stays invertible. Rows with a loss or a context
    that is not finite do not count. Cost: d³/3 multiplications a step, so keep d below 500.

    Args:
        n_features: Length d of a context vector.
        forgetting: Factor λ at each batch, above 0, at most 1 (1: nothing is forgotten).
        ridge: Penalty on the square of a weight, positive.
        device: Where the estimator lives.
    """

    _state = ("_sums", "weight")

    def __init__(
        self, n_features: int, *, forgetting: float, ridge: float, device: torch.device
    ) -> None:
        self.forgetting = forgetting
        size = n_features + 1
        # One matrix holds A and v: one product of (c, 1, l) with itself adds a batch to both.
        self._sums = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=device)
        self.moments, self.products = self._sums[:-1, :-1], self._sums[:-1, -1]
        self.weight = torch.zeros(size, dtype=torch.float64, device=device)
        penalty = torch.full((size,), ridge, dtype=torch.float64, device=device)
        # Not quite 0, so that there is a solution before the first batch.
        penalty[-1] = 1e-9
        self._penalty = torch.diag(penalty)

    def predict(self, context: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return the predicted losses (k,) float32 of context vectors (k, d) float32.

        Args:
            context: The whole vectors, or what comes before `shared`.
            shared: (s,) float32, the last numbers of every vector, if all vectors share them.
        """
        weight, intercept = self.weight[:-1], self.weight[-1]
        if shared is not None:
            weight, rest = weight[: -len(shared)], weight[-len(shared) :]
            intercept = intercept + rest @ shared.double()
        return torch.addmv(intercept, context.double(), weight).float()

    def update(self, context: Tensor, losses: Tensor) -> None:
        """Learn from context vectors (B, d) and observed losses (B,)."""
        joined = torch.cat([context, torch.ones_like(losses)[:, None], losses[:, None]], dim=1)
        joined = torch.where(finite_rows(joined)[:, None], joined, 0.0).double()
        self._sums.addmm_(joined.T, joined, beta=self.forgetting)
        self._solve()

    def shrink(self, factor: float) -> None:
        """Forget at once: multiply the weight of everything seen so far by `factor` (0 … 1)."""
        self._sums *= factor
        self._solve()

    def _solve(self) -> None:
        # The variants of these functions that check their input wait for the device.
        factor, _ = torch.linalg.cholesky_ex(self.moments + self._penalty)
        self.weight.copy_(torch.cholesky_solve(self.products[:, None], factor)[:, 0])


class EstimatorFit(Stateful):
    """How well predicted losses match observed ones in an epoch; computed on request only."""

    _state = ("_predicted", "_observed")

    def __init__(self) -> None:
        self._predicted: list[Tensor] = []
        self._observed: list[Tensor] = []

    def add(self, predicted: Tensor, observed: Tensor) -> None:
        """Keep the predicted and observed losses (B,) of one batch."""
        self._predicted.append(predicted)
        self._observed.append(observed)

    def clear(self) -> None:
        self._predicted.clear()
        self._observed.clear()

    def measures(self) -> dict[str, float]:
        """Return `rank_correlation` (Spearman's, mean over batches) and `r_squared` (whole epoch).

        A measure that is not defined is nan: no batch yet, constant values, values not finite.
        """
        if not self._predicted:
            return {"rank_correlation": float("nan"), "r_squared": float("nan")}
        predicted = torch.stack(self._predicted).double()
        observed = torch.stack(self._observed).double()
        finite = torch.isfinite(predicted).all(1) & torch.isfinite(observed).all(1)
        predicted, observed = predicted[finite], observed[finite]
        total = (observed - observed.mean()).square().sum()
        unexplained = (observed - predicted).square().sum()
        return {
            "rank_correlation": float(rank_correlation(predicted, observed).nanmean()),
            "r_squared": float(1 - unexplained / total) if total > 0 else float("nan"),
        }


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's rank correlation (k,) of the rows of two (k, B) tensors.

    Ties get the average of their ranks. A row of constant values gives nan.
    """
    ranks = torch.stack([_ranks(first), _ranks(second)])
    ranks = ranks - ranks.mean(dim=2, keepdim=True)
    product = (ranks[0] * ranks[1]).sum(1)
    return product / ranks.square().sum(2).prod(0).sqrt()


def _ranks(values: Tensor) -> Tensor:
    ordered = values.sort(dim=1).values
    values = values.contiguous()
    below = torch.searchsorted(ordered, values, right=False)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above).double() / 2

"""The loss estimator: a small linear model that regresses the deep model's losses online."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from impon_hpo.sampling.state import Stateful

Init = Literal["uniform", "zeros"]


class LinearEstimator(Stateful):
    """Predict a row's loss from its context vector; learn by SGD on the squared error.

    Source: Ganapathiraman, Calderon Rodriguez, Joshi (2022): prediction ŷ = a · c + β; one step on
    the batch mean of (ŷ - l)² with learning rate η is
    a ← a - η · 2/B · Σ (ŷ_i - l_i) c_i,  β ← β - η · 2/B · Σ (ŷ_i - l_i).
    Rows with a loss or a context that is not finite leave the step unchanged and do not count in B.

    Args:
        n_features: Length d of a context vector.
        lr: Learning rate η, positive.
        init: "uniform" as `torch.nn.Linear` begins (between ±1/√d), or "zeros". The paper does not
            say; the choice matters, since 1e-6 hardly moves away from where it began.
        generator: Draws the initial weights; its device is where the estimator lives.
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
        """Forget: draw new initial weights, and keep `factor` (0 … 1) of the old ones beside."""
        weight, bias = self.weight.clone(), self.bias.clone()
        self.reset()
        if factor == 0:  # 0 · nan would be nan
            return
        self.weight.mul_(1 - factor).add_(weight, alpha=factor)
        self.bias.mul_(1 - factor).add_(bias, alpha=factor)

    def predict(self, context: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return the predicted losses (k,) float32 of context vectors (k, d) float32.

        Args:
            context: All of the vectors, or what comes before `shared`.
            shared: (s,) float32, the last numbers of every vector, where they are all the same.
        """
        if shared is None:
            return torch.addmv(self.bias, context, self.weight)
        own, rest = self.weight[: -len(shared)], self.weight[-len(shared) :]
        return torch.addmv(torch.dot(rest, shared).add_(self.bias), context, own)

    def update(self, context: Tensor, losses: Tensor) -> None:
        """Take one SGD step on context vectors (B, d) and observed losses (B,)."""
        # A number that is not finite makes its row's error so, and 0 · nan would be nan again.
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
    """Return (k,) bool: which rows of (k, d) hold finite numbers only."""
    return (values - values).sum(1) == 0

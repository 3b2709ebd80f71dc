"""Recursive least squares: a linear loss estimator that needs no learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.estimator import finite_rows
from impon_hpo.sampling.state import Stateful


class RecursiveLeastSquares(Stateful):
    """Predict from context vectors by exponentially weighted ridge regression with an intercept.

    Source: Haykin, Adaptive Filter Theory (2002), ch. 10, in information form, a batch at a time.
    With c̃ = (c, 1), after each batch A ← λ A + Σ c̃ c̃ᵀ, v ← λ v + Σ l c̃, and the weights solve
    (A + R) w = v; R is `ridge` on the diagonal, 0 for the intercept. The ridge is not forgotten, so
    A + R stays invertible however long nothing new is seen. Rows with a loss or context that is
    not finite do not count. Cost: d³/3 multiplications a step, so d should not pass some hundreds.

    Args:
        n_features: Length d of a context vector.
        forgetting: Factor λ a batch, above 0, at most 1 (1: nothing is forgotten).
        ridge: Penalty of a weight's square, positive.
        device: Where it lives.
    """

    _state = ("_sums", "weight")

    def __init__(
        self, n_features: int, *, forgetting: float, ridge: float, device: torch.device
    ) -> None:
        self.forgetting = forgetting
        size = n_features + 1
        # One matrix for A and v, as one product of (c, 1, l) with itself adds a batch to both.
        self._sums = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=device)
        self.moments, self.products = self._sums[:-1, :-1], self._sums[:-1, -1]
        self.weight = torch.zeros(size, dtype=torch.float64, device=device)
        penalty = torch.full((size,), ridge, dtype=torch.float64, device=device)
        # Almost nothing, and not nothing, so that the first solution exists before any batch.
        penalty[-1] = 1e-9
        self._penalty = torch.diag(penalty)

    def predict(self, context: Tensor, shared: Tensor | None = None) -> Tensor:
        """Return the predicted losses (k,) float32 of context vectors (k, d) float32.

        Args:
            context: All of the vectors, or what comes before `shared`.
            shared: (s,) float32, the last numbers of every vector, where they are all the same.
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
        """Forget at once: what was seen counts `factor` (0 … 1) times what it did."""
        self._sums *= factor
        self._solve()

    def _solve(self) -> None:
        # The checking variants of these functions wait for the device.
        factor, _ = torch.linalg.cholesky_ex(self.moments + self._penalty)
        self.weight.copy_(torch.cholesky_solve(self.products[:, None], factor)[:, 0])

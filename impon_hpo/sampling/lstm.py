"""The LSTM loss estimator: a row's next loss from its last ones and its class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from impon_hpo.sampling.state import Stateful


class Network(nn.Module):
    """Class and past losses to the next loss; all weights come from `generator`."""

    def __init__(
        self, n_classes: int, *, embedding: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        # On the meta device there are no weights yet, so none come from the global generator.
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
        """Return predictions (k,) from losses (k, h), of which the first `count` (k,) are there."""
        outputs, _ = self.lstm(past[:, :, None])
        last = (count - 1).clamp_min(0)[:, None, None].expand(-1, 1, outputs.shape[2])
        state = torch.where(count[:, None] > 0, outputs.gather(1, last)[:, 0], 0.0)
        return self.dense(torch.cat([state, self.classes(labels)], dim=1))[:, 0]  # type: ignore[no-any-return]


class LossEstimator(Stateful):
    """The network and its Adam (Kingma & Ba 2015), which never waits for the device.

    Args:
        network: Predicts losses.
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
        # In place: cuDNN wants the LSTM's weights to stay together where they are.
        sizes = [weights.numel() for weights in self._weights]
        for weights, values in zip(self._weights, vector.split(sizes), strict=True):
            weights.copy_(values.view_as(weights))

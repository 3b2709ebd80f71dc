"""The reference: what an earlier, cheap training run learnt about each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError


@dataclass(frozen=True)
class Reference:
    """What earlier training learnt about each of the n training rows.

    Args:
        loss: (n,) float32, non-negative and finite: the row's cross-entropy, as far as possible
            where the row was not trained on.
        probabilities: (n, n_classes) float32, the predicted class probabilities of the row.
        trajectory: (epochs, n) float32 losses over the epochs of that run, where there are any.

    Raises:
        ConfigError: Shapes do not agree, or a value is not finite.
    """

    loss: Tensor
    probabilities: Tensor
    trajectory: Tensor | None = None

    def __post_init__(self) -> None:
        n = self.loss.numel()
        shapes_agree = (
            self.loss.dim() == 1
            and self.probabilities.dim() == 2
            and len(self.probabilities) == n
            and (
                self.trajectory is None
                or (self.trajectory.shape[1:] == (n,) and len(self.trajectory) > 0)
            )
        )
        if not shapes_agree:
            shape = None if self.trajectory is None else tuple(self.trajectory.shape)
            raise ConfigError(
                "A reference has loss (n,), probabilities (n, n_classes) and trajectory "
                f"(epochs, n) or none, but got {tuple(self.loss.shape)}, "
                f"{tuple(self.probabilities.shape)} and {shape}."
            )
        for name in ("loss", "probabilities", "trajectory"):
            values = getattr(self, name)
            if values is not None and not bool(torch.isfinite(values).all()):
                raise ConfigError(f"A reference holds finite numbers, but its {name} does not.")
        if n > 0 and float(self.loss.min()) < 0:
            raise ConfigError(
                f"The losses of a reference are at least 0, but one is {float(self.loss.min()):g}."
            )

    def __len__(self) -> int:
        return len(self.loss)

    def to(self, device: torch.device) -> Reference:
        """Return the same on another device."""
        trajectory = None if self.trajectory is None else self.trajectory.to(device)
        return Reference(self.loss.to(device), self.probabilities.to(device), trajectory)

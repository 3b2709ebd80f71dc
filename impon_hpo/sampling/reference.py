"""The reference: what an earlier, cheap training run learnt about each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.checks import describe


@dataclass(frozen=True, repr=False)
class Reference:
    """What earlier training learnt about each of the n training rows.

    Args:
        loss: (n,) float32, at least 0 and finite: the cross-entropy of each row, if possible from a
            model that was not trained on the row.
        probabilities: (n, n_classes) float32, the predicted class probabilities of each row.
        trajectory: (epochs, n) float32, the losses after each epoch of that run, or None.

    Raises:
        ConfigError: The shapes do not agree, or a value is not finite.

    Example:
        >>> import torch
        >>> from impon_hpo import Reference, Rows
        >>> labels = torch.arange(100) % 3
        >>> probabilities = torch.rand(100, 3).softmax(1)
        >>> loss = -probabilities[torch.arange(100), labels].log()
        >>> reference = Reference(loss, probabilities)
        >>> reference
        Reference(loss=float32 (100,), probabilities=float32 (100, 3), trajectory=None)
        >>> rows = Rows(torch.rand(100, 8), labels, n_classes=3, reference=reference)
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
                "A reference has loss (n,), probabilities (n, n_classes) and a trajectory "
                f"(epochs, n) or None, but got {tuple(self.loss.shape)}, "
                f"{tuple(self.probabilities.shape)} and {shape}."
            )
        for name in ("loss", "probabilities", "trajectory"):
            values = getattr(self, name)
            if values is not None and not bool(torch.isfinite(values).all()):
                raise ConfigError(f"A reference must hold finite numbers, but its {name} does not.")
        if n > 0 and float(self.loss.min()) < 0:
            raise ConfigError(
                "The losses of a reference must be at least 0, but one is "
                f"{float(self.loss.min()):g}."
            )

    def __repr__(self) -> str:
        return describe(self)

    def __len__(self) -> int:
        return len(self.loss)

    def to(self, device: torch.device) -> Reference:
        """Return the same reference on another device."""
        trajectory = None if self.trajectory is None else self.trajectory.to(device)
        return Reference(self.loss.to(device), self.probabilities.to(device), trajectory)

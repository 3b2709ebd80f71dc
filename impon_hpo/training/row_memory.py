"""The memory of a run: the loss and the class probabilities that each row had at its visits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from impon_hpo.sampling.reference import Reference


class RowMemory:
    """Collects what a training run observes of its rows; 4 · (classes + epochs + 4) bytes a row.

    A visit counts with the loss before the row's own update, augmented as it was trained on. Losses
    that are not finite are left out.

    Args:
        labels: (n,) int64, on the device of the run.
        n_classes: Number of classes.
    """

    def __init__(self, labels: Tensor, n_classes: int) -> None:
        self.labels = labels
        self.losses = torch.zeros(len(labels), device=labels.device)
        self.probabilities = torch.zeros(len(labels), n_classes, device=labels.device)
        self.visits = torch.zeros(len(labels), device=labels.device)
        self._trajectory: list[Tensor] = []  # below 0: not visited yet
        self._before = (self.losses.clone(), self.visits.clone())

    def add(self, rows: Tensor, logits: Tensor) -> None:
        """Add the logits (B, n_classes) of rows (B,)."""
        logits = logits.float()
        finite = torch.isfinite(logits).all(1)
        logits = torch.where(finite[:, None], logits, 0.0)
        losses = cross_entropy(logits, self.labels[rows], reduction="none")
        finite = finite & torch.isfinite(losses)
        losses = torch.where(finite, losses, 0.0)
        counted = finite.float()
        self.losses.index_add_(0, rows, losses * counted)
        self.probabilities.index_add_(0, rows, logits.softmax(1) * counted[:, None])
        self.visits.index_add_(0, rows, counted)

    def end_epoch(self) -> None:
        """Record each row's mean loss in the epoch that ends; a row not visited keeps its last."""
        losses, visits = self.losses - self._before[0], self.visits - self._before[1]
        last = self._trajectory[-1] if self._trajectory else torch.full_like(losses, -1.0)
        self._trajectory.append(torch.where(visits > 0, losses / visits.clamp_min(1), last))
        self._before = (self.losses.clone(), self.visits.clone())

    @property
    def share_seen(self) -> float:
        """Share of the rows visited at least once."""
        return float((self.visits > 0).double().mean())

    def reference(self) -> Reference:
        """Return the means over the visits; rows never visited get the means of their class."""
        seen = self.visits > 0
        classes = self.probabilities.shape[1]
        of_class = torch.zeros(classes, classes, device=self.labels.device)
        loss_of_class, visits_of_class = of_class[0].clone(), of_class[0].clone()
        of_class.index_add_(0, self.labels, self.probabilities)
        loss_of_class.index_add_(0, self.labels, self.losses)
        visits_of_class.index_add_(0, self.labels, self.visits)
        scale = visits_of_class.clamp_min(1)
        losses = torch.where(
            seen, self.losses / self.visits.clamp_min(1), (loss_of_class / scale)[self.labels]
        )
        probabilities = torch.where(
            seen[:, None],
            self.probabilities / self.visits.clamp_min(1)[:, None],
            (of_class / scale[:, None])[self.labels],
        )
        if not self._trajectory:
            return Reference(losses, probabilities)
        trajectory = torch.stack(self._trajectory)
        return Reference(losses, probabilities, torch.where(trajectory < 0, losses, trajectory))

    def clear(self) -> None:
        """Forget everything."""
        for values in (self.losses, self.probabilities, self.visits):
            values.zero_()
        self._trajectory = []
        self._before = (self.losses.clone(), self.visits.clone())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {
            "trajectory": self._trajectory,
            "losses": self.losses,
            "probabilities": self.probabilities,
            "visits": self.visits,
            "before": self._before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses.copy_(state["losses"])
        self.probabilities.copy_(state["probabilities"])
        self.visits.copy_(state["visits"])
        device = self.losses.device
        self._trajectory = [losses.to(device) for losses in state.get("trajectory", [])]
        losses, visits = state["before"]
        self._before = (losses.to(device), visits.to(device))

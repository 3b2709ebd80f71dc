"""What is reported of predictions: accuracy, its mean over classes, macro F1, minus loss; and the
loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def accuracy(correct: Tensor, rows: Tensor, predicted: Tensor) -> Tensor:
    """Return the share of all rows that are classified correctly."""
    return correct.sum().double() / rows.sum()


def balanced_accuracy(correct: Tensor, rows: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean of that share over the classes that have rows."""
    shares = correct.double() / rows.clamp_min(1)  # 0 for a class without a row
    return shares.sum() / (rows > 0).sum()


def macro_f1(correct: Tensor, rows: Tensor, predicted: Tensor) -> Tensor:
    """Return the mean of the F1 scores of the classes that have rows; 0 for one never predicted.

    That is scikit-learn's `f1_score(average="macro", zero_division=0)` with these classes as
    `labels`.
    """
    scores = 2 * correct.double() / (rows + predicted).clamp_min(1)
    return scores.sum() / (rows > 0).sum()


METRICS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "accuracy": accuracy,
    "balanced-accuracy": balanced_accuracy,
    "macro-f1": macro_f1,
}
"""From correct predictions, rows and predictions of each class, (n_classes,) int64 each, to ()
float64 on their device, 0 … 1. A "loss" needs no counts."""


class Judgement:
    """Collects the predictions of rows, batch by batch, without waiting for the device.

    Args:
        n_classes: Number of classes.
        device: Where the predictions are.

    Example:
        >>> import torch
        >>> from impon_hpo.training.metrics import Judgement
        >>> judgement = Judgement(2, torch.device("cpu"))
        >>> judgement.add(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
        >>> [round(number, 3) for number in judgement.result("accuracy").tolist()]
        [0.5, 4.5]
    """

    def __init__(self, n_classes: int, device: torch.device) -> None:
        counts = torch.zeros(3, n_classes, dtype=torch.int64, device=device)
        self.correct, self.rows, self.predicted = counts
        self.loss = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add the logits (k, n_classes) of rows with labels (k,)."""
        answers, one_each = logits.argmax(1), torch.ones_like(labels)
        self.correct.index_add_(0, labels, (answers == labels).long())
        self.rows.index_add_(0, labels, one_each)
        self.predicted.index_add_(0, answers, one_each)
        self.loss += cross_entropy(logits, labels, reduction="sum").double()

    def result(self, metric: str) -> Tensor:
        """Return the metric, higher is better, and the mean loss as (2,) float64 on the device."""
        loss = self.loss / self.rows.sum()
        if metric == "loss":
            return torch.stack([-loss, loss])
        return torch.stack([METRICS[metric](self.correct, self.rows, self.predicted), loss])

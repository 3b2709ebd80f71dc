"""What is reported of predictions, from counts: accuracy, its mean over classes, macro F1."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


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
float64 on their device, 0 … 1."""

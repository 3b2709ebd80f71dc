"""The gradient of cross-entropy at the logits: how much a row can move the deep model."""

from __future__ import annotations

import torch
from torch import Tensor


def logit_gradient_norm(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ‖softmax(logits) - onehot(labels)‖₂ of each row.

    It is 0 where all probability is on the label and at most √2. At the label, 1 - p is summed from
    the other classes, so that rows learnt almost perfectly keep their differences.

    Args:
        logits: (k, n_classes) of any float type.
        labels: (k,) int64.

    Returns:
        (k,) float32; nan where a logit is nan or infinite.
    """
    probabilities = torch.softmax(logits.float(), dim=1)
    others = probabilities.scatter(1, labels[:, None], 0.0)
    return (others.square().sum(1) + others.sum(1).square()).sqrt()

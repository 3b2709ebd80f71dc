"""The fit of a loss estimator over one epoch: how well its predictions met the observed losses."""

from __future__ import annotations

import torch
from torch import Tensor

from impon_hpo.sampling.state import Stateful


class EstimatorFit(Stateful):
    """Collects predicted and observed losses of an epoch's batches; computes only when asked."""

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

        A measure that is not defined (no batch yet, constant or non-finite values) is nan.
        """
        if not self._predicted:
            return {"rank_correlation": float("nan"), "r_squared": float("nan")}
        predicted = torch.stack(self._predicted).double()
        observed = torch.stack(self._observed).double()
        finite = torch.isfinite(predicted).all(1) & torch.isfinite(observed).all(1)
        predicted, observed = predicted[finite], observed[finite]
        total = (observed - observed.mean()).square().sum()
        left = (observed - predicted).square().sum()
        return {
            "rank_correlation": float(rank_correlation(predicted, observed).nanmean()),
            "r_squared": float(1 - left / total) if total > 0 else float("nan"),
        }


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's rank correlation (k,) of each row of two (k, B) tensors; nan if constant.

    Ties get the average of their ranks.
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

"""Pacing: which share of the rows, easiest first, is open at a point of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from impon_hpo.sampling.checks import check_share

Shape = Literal["linear", "root", "step"]


@dataclass(frozen=True)
class Pacing:
    """A share that widens from `start` to 1 while the run goes from its beginning to `end`.

    Source: Hacohen & Weinshall (2019), "On the power of curriculum learning"; Platanios et al.
    (2019) for the root. With u = progress / end: linear: start + (1 - start) u; root: the square
    root of start² + (1 - start²) u; step: start until the end.

    Args:
        start: Share open at the beginning, above 0, at most 1.
        end: Progress (0 … 1) at which all rows are open, above 0, at most 1.
        shape: "linear", "root" or "step".

    Raises:
        ConfigError: An argument is out of its range.
    """

    start: float
    end: float
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        check_share("start", self.start)
        check_share("end", self.end)

    def share(self, progress: float) -> float:
        """Return the share of rows open at `progress` (0 … 1)."""
        if progress >= self.end:
            return 1.0
        if self.shape == "step":
            return self.start
        passed = progress / self.end
        if self.shape == "root":
            return float((self.start**2 + (1 - self.start**2) * passed) ** 0.5)
        return self.start + (1 - self.start) * passed


def easiest_first(difficulty: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return all rows (n,) int64 in the order of their difficulty (n,), the easiest first.

    With labels (n,) int64, each row's place is its share of its own class, so that every beginning
    of the order has the classes in proportion; else easy classes come before hard ones.
    """
    order = difficulty.argsort(stable=True)
    if labels is None:
        return order
    by_class = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    begins = counts.cumsum(0) - counts
    classes = labels[by_class]
    place = torch.arange(len(labels), device=labels.device) - begins[classes]
    share = (place.double() + 0.5) / counts[classes]
    return by_class[share.argsort(stable=True)]

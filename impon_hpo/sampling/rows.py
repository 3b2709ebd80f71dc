"""The rows of a training set, as a batch sampler may read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.reference import Reference


def as_float(inputs: Tensor) -> Tensor:
    """Return `inputs` as float32, unscaled."""
    return inputs.to(torch.float32)


@dataclass(frozen=True)
class Rows:
    """Inputs and labels of the n training rows; row i is `inputs[i]`, `labels[i]`.

    Args:
        inputs: (n, ...) of any dtype, on the device where batches are drawn.
        labels: (n,) int64 class indices in 0 … n_classes - 1, on the same device.
        n_classes: Number of classes.
        prepare: Turns `inputs[rows]` into what the deep model would see, float32 of shape
            (k, ...): for images (k, C, H, W), normalised and not augmented.
        reference: What earlier training learnt about each row, where there is something.

    Raises:
        ConfigError: The lengths differ, there is no row, or the labels are not int64.
    """

    inputs: Tensor
    labels: Tensor
    n_classes: int
    prepare: Callable[[Tensor], Tensor] = as_float
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if self.inputs.shape[:1] != self.labels.shape or len(self.labels) == 0:
            raise ConfigError(
                "Inputs (n, ...) and labels (n,) must have the same length of at least 1, but got "
                f"shapes {tuple(self.inputs.shape)} and {tuple(self.labels.shape)}."
            )
        if self.labels.dtype != torch.int64:
            raise ConfigError(f"Labels must be int64, but got {self.labels.dtype}.")
        if self.reference is not None and self.reference.probabilities.shape != (
            len(self.labels),
            self.n_classes,
        ):
            raise ConfigError(
                f"The reference is of {len(self.reference)} rows and "
                f"{self.reference.probabilities.shape[1]} classes, but the data have "
                f"{len(self.labels)} rows and {self.n_classes} classes."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def read(self, rows: Tensor) -> Tensor:
        """Return the prepared inputs (k, ...) float32 of `rows` (k,) int64."""
        return self.prepare(self.inputs.index_select(0, rows))

"""The rows of a training set, as a batch sampler reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from impon_hpo.errors import ConfigError
from impon_hpo.sampling.checks import describe
from impon_hpo.sampling.reference import Reference


def as_float(inputs: Tensor) -> Tensor:
    """Return `inputs` as float32, unscaled."""
    return inputs.to(torch.float32)


class Inputs(Protocol):
    """Inputs (n, ...) that need not be one tensor: a few rows are read at a time."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor: ...

    def index_select(self, dim: int, rows: Tensor, /) -> Tensor:
        """Return the inputs (k, ...) of `rows` (k,) int64, on the device; `dim` is 0."""
        ...


@dataclass(frozen=True, repr=False)
class Rows:
    """Inputs and labels of the n training rows; row i is `inputs[i]` and `labels[i]`.

    Args:
        inputs: (n, ...) of any dtype, read to the device where batches are drawn: a tensor, or
            something that is too large for one and reads a few rows at a time.
        labels: (n,) int64 class indices from 0 to n_classes - 1, on the same device.
        n_classes: Number of classes.
        prepare: Turns `inputs[rows]` into what the deep model sees, float32 of shape (k, ...). For
            images that is (k, C, H, W), normalised and not augmented. Default: float32, unscaled.
        reference: What earlier training learnt about each row, or None.
        thumbnails: (n, h, w, C), each image shrunk to a few pixels, of which features are made that
            do not read large images whole; `prepare` turns them into (k, C, h, w). Or None.

    Raises:
        ConfigError: The lengths differ, there is no row, the labels are not int64, or the reference
            is of other data.

    Example:
        >>> import torch
        >>> from impon_hpo import Rows
        >>> images = torch.randint(256, (100, 1, 8, 8), dtype=torch.uint8)
        >>> rows = Rows(images, torch.arange(100) % 3, 3, prepare=lambda x: x.float() / 255)
        >>> rows
        Rows(inputs=uint8 (100, 1, 8, 8), labels=int64 (100,), n_classes=3, device=cpu)
        >>> rows.read(torch.tensor([0, 7])).shape
        torch.Size([2, 1, 8, 8])
    """

    inputs: Tensor | Inputs
    labels: Tensor
    n_classes: int
    prepare: Callable[[Tensor], Tensor] = as_float
    reference: Reference | None = None
    thumbnails: Tensor | Inputs | None = None

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
                f"The reference has {len(self.reference)} rows and "
                f"{self.reference.probabilities.shape[1]} classes, but the data have "
                f"{len(self.labels)} rows and {self.n_classes} classes."
            )

    def __repr__(self) -> str:
        reference = "" if self.reference is None else f", reference={self.reference!r}"
        return (
            f"Rows(inputs={describe(self.inputs)}, labels={describe(self.labels)}, "
            f"n_classes={self.n_classes}, device={self.device}{reference})"
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def read(self, rows: Tensor) -> Tensor:
        """Return the prepared inputs (k, ...) float32 of `rows` (k,) int64."""
        return self.prepare(self.inputs.index_select(0, rows))

    def read_small(self, rows: Tensor) -> Tensor:
        """Return the prepared thumbnails (k, C, h, w) of `rows` (k,); without any, the inputs."""
        small = self.inputs if self.thumbnails is None else self.thumbnails
        return self.prepare(small.index_select(0, rows))

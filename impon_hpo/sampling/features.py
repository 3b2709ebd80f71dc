"""Features: what of a row goes into its context vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find
from impon_hpo.sampling.rows import Rows

Features = Callable[[Tensor], Tensor]
"""rows (k,) int64 -> (k, d) float32."""

CHUNK = 4096
"""Rows prepared at once where all rows are gone through."""


def pixel_features(rows: Rows) -> Features:
    """Flattened normalised pixels: the paper's plain reading."""

    def pixels(picked: Tensor) -> Tensor:
        read = rows.read(picked)
        if read.dim() == 4 and read.is_contiguous(memory_format=torch.channels_last):
            read = read.permute(0, 2, 3, 1)  # in the order of memory nothing is copied
        return read.flatten(1)

    return pixels


def pooled_features(rows: Rows, *, side: int = 4) -> Features:
    """Pixels averaged over a grid of at most side × side cells; d = C · side²."""

    def pooled(picked: Tensor) -> Tensor:
        images = rows.read(picked)
        if images.dim() != 4:
            raise ConfigError(
                "Pooled features need images (k, C, H, W), but the rows read as "
                f"{tuple(images.shape)}."
            )
        height, width = images.shape[2:]
        return adaptive_avg_pool2d(images, (min(side, height), min(side, width))).flatten(1)

    return pooled


def pca_features(rows: Rows, *, n_components: int = 32, n_fitted: int = 10_000) -> Features:
    """The first principal components of the pixels, fitted once on up to `n_fitted` rows.

    Source: the randomised range finder with power iterations of Halko, Martinsson, Tropp (2011).
    """
    n_fitted = min(n_fitted, len(rows))
    spread = torch.arange(n_fitted, device=rows.device) * len(rows) // n_fitted
    pixels = torch.cat([rows.read(chunk).flatten(1) for chunk in spread.split(CHUNK)])
    n_components = min(n_components, *pixels.shape)
    mean = pixels.mean(0)
    centred = pixels - mean
    generator = torch.Generator(device=rows.device).manual_seed(0)
    n_tried = min(2 * n_components, *pixels.shape)
    tried = torch.randn(pixels.shape[1], n_tried, generator=generator, device=rows.device)
    for _ in range(4):
        basis = torch.linalg.qr(centred @ tried).Q
        tried = torch.linalg.qr(centred.T @ basis).Q
    directions = tried @ torch.linalg.svd(centred @ tried, full_matrices=False).Vh.T
    directions = directions[:, :n_components].contiguous()
    return lambda picked: (rows.read(picked).flatten(1) - mean) @ directions


FEATURES: dict[str, Callable[[Rows], Features]] = {
    "pixels": pixel_features,
    "pooled": pooled_features,
    "pca": pca_features,
}


def make_features(features: str | Callable[[Tensor], Tensor], rows: Rows) -> tuple[Features, int]:
    """Return a function from rows (k,) to features (k, d) float32, and d.

    Args:
        features: "pixels", "pooled", "pca", "module:function", or a function itself; a function
            gets the prepared inputs (k, ...) float32 of k rows and returns (k, d).
        rows: The training rows.

    Raises:
        ConfigError: The name is unknown, or a function does not return (k, d).
    """
    if isinstance(features, str) and features in FEATURES:
        read = FEATURES[features](rows)
    else:
        read = _own_features(features, rows)

    # Two rows: what forgets the rows' dimension cannot hide behind a single one.
    sample = read(torch.zeros(2, dtype=torch.int64, device=rows.device))
    if sample.dim() != 2 or sample.shape[0] != 2:
        raise ConfigError(
            f"Features must be of shape (rows, d), but '{features}' returned "
            f"{tuple(sample.shape)} for two rows."
        )
    return read, sample.shape[1]


def _own_features(features: str | Callable[[Tensor], Tensor], rows: Rows) -> Features:
    function: Any = find(FEATURES, features, "features") if isinstance(features, str) else features
    if not callable(function):
        raise ConfigError(f"Features must be a name or a function, but got {features!r}.")

    def read(picked: Tensor) -> Tensor:
        result = function(rows.read(picked))
        if not isinstance(result, Tensor):
            raise ConfigError(
                f"Features must be a tensor (rows, d), but '{features}' returned "
                f"{type(result).__name__}."
            )
        return result.to(torch.float32)

    return read

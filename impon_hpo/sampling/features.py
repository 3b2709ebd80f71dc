"""The context vector: features of a row, and the norm of the deep weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.nn.utils import get_total_norm

from impon_hpo.errors import ConfigError
from impon_hpo.lookup import find
from impon_hpo.sampling.rows import Rows

Features = Callable[[Tensor], Tensor]
"""rows (k,) int64 -> (k, d) float32."""

CHUNK = 4096
"""Rows prepared at a time in a pass over all rows."""

SMALL = 2**16
"""Below this number of elements, copying a tensor costs less than launching one more kernel."""


def pixel_features(rows: Rows) -> Features:
    """Flattened normalised pixels, the plain reading of the paper."""

    def pixels(picked: Tensor) -> Tensor:
        read = rows.read(picked)
        if read.dim() == 4 and read.is_contiguous(memory_format=torch.channels_last):
            read = read.permute(0, 2, 3, 1)  # the order of memory, so that nothing is copied
        return read.flatten(1)

    return pixels


def pooled_features(rows: Rows, *, side: int = 4) -> Features:
    """Pixels averaged over a grid of at most side × side cells; d = C · side². Of large images the
    thumbnails are averaged, which were made once."""

    def pooled(picked: Tensor) -> Tensor:
        images = rows.read_small(picked)
        if images.dim() != 4:
            raise ConfigError(
                "Pooled features need images (k, C, H, W), but the rows read as "
                f"{tuple(images.shape)}."
            )
        height, width = images.shape[2:]
        return adaptive_avg_pool2d(images, (min(side, height), min(side, width))).flatten(1)

    return pooled


def pca_features(rows: Rows, *, n_components: int = 32, n_fitted: int = 10_000) -> Features:
    """The first principal components of the pixels, fitted once on up to `n_fitted` rows; of large
    images those of the thumbnails.

    Source: the randomised range finder with power iterations of Halko, Martinsson, Tropp (2011).
    """
    n_fitted = min(n_fitted, len(rows))
    spread = torch.arange(n_fitted, device=rows.device) * len(rows) // n_fitted
    pixels = torch.cat([rows.read_small(chunk).flatten(1) for chunk in spread.split(CHUNK)])
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
    return lambda picked: (rows.read_small(picked).flatten(1) - mean) @ directions


def default_features(rows: Rows) -> Features:
    """Pixels, as in the paper, or of images above 64 pixels pooled features: choosing a batch must
    not read a bank of whole photographs."""
    return pixel_features(rows) if rows.thumbnails is None else pooled_features(rows)


FEATURES: dict[str, Callable[[Rows], Features]] = {
    "auto": default_features,
    "pixels": pixel_features,
    "pooled": pooled_features,
    "pca": pca_features,
}


def make_features(features: str | Callable[[Tensor], Tensor], rows: Rows) -> tuple[Features, int]:
    """Return a function from rows (k,) to features (k, d) float32, and d.

    Args:
        features: "auto", "pixels", "pooled", "pca", "module:function" or a function. A function
            takes the prepared inputs (k, ...) float32 of k rows and returns (k, d).
        rows: The training rows.

    Raises:
        ConfigError: The name is unknown, or a function does not return (k, d).
    """
    if isinstance(features, str) and features in FEATURES:
        read = FEATURES[features](rows)
    else:
        read = _own_features(features, rows)

    # Two rows, since a function that drops the dimension of rows may get away with one.
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


class WeightNorm:
    """Computes ‖w‖_F over the trainable parameters of a model, without waiting for a device.

    The parameters are listed once, since walking through a model takes as long as the norm. The
    norm follows what an optimiser or `load_state_dict` writes into them later.

    Args:
        model: The model. Without trainable parameters the norm is 0.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = [p.detach() for p in model.parameters() if p.requires_grad]
        flats = [(flat_view(tensor), tensor) for tensor in parameters]
        trainable = [tensor if flat is None else flat for flat, tensor in flats]
        small = [t for t in trainable if t.dim() == 1 and t.numel() < SMALL]
        self._small = [t for t in small if t.device == small[0].device]
        small_ids = {id(tensor) for tensor in self._small}
        self._rest = [tensor for tensor in trainable if id(tensor) not in small_ids]

    def is_of_the_same(self, other: WeightNorm) -> bool:
        """Return whether both norms read the same memory."""
        addresses = [[t.data_ptr() for t in [*n._small, *n._rest]] for n in (self, other)]
        return addresses[0] == addresses[1]

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Return the norm (), of the parameters' dtype and on their device."""
        if not self._small:
            return get_total_norm(self._rest)
        norm = torch.linalg.vector_norm(torch.cat(self._small))
        return torch.hypot(norm, get_total_norm(self._rest).to(norm)) if self._rest else norm


def flat_view(tensor: Tensor) -> Tensor | None:
    """Return the elements (numel,) in the order of memory, without a copy, or None if the memory of
    the tensor has gaps or overlaps."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    in_order = tensor.permute(order)
    return in_order.reshape(-1) if in_order.is_contiguous() else None

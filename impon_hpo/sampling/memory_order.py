"""The order of memory: a tensor's elements one after the other, as they lie there."""

from __future__ import annotations

from torch import Tensor


def flat_view(tensor: Tensor) -> Tensor | None:
    """Return the elements (numel,) in the order of memory, without a copy; None where the tensor's
    memory has gaps or overlaps."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dim: -strides[dim])
    in_order = tensor.permute(order)
    return in_order.reshape(-1) if in_order.is_contiguous() else None

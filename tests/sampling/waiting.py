"""Finds, on the CPU, the operations for which the host would wait if the tensors were on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Reads a value, or makes a tensor whose size depends on values.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::allclose",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::_linalg_check_errors",
}
# Copies between host and device, which leave no trace where both are the CPU.
COPYING = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__, torch.tensor}


class WaitingError(Exception):
    """An operation for which the host would wait for the GPU."""


class _NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        kwargs = kwargs or {}
        if name in WAITING or (_by_mask(name, args) and not _is_one_value(name, args)):
            raise WaitingError(name)
        if name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
            raise WaitingError(name)
        return func(*args, **kwargs)


class _NoCopying(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in COPYING:
            raise WaitingError(func.__name__)
        return func(*args, **(kwargs or {}))


def _by_mask(name: str, args: tuple[Any, ...]) -> bool:
    return name.startswith(("aten::index", "aten::_index_put")) and any(
        isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
        for index in (args[1] if isinstance(args[1], list | tuple) else ())
    )


def _is_one_value(name: str, args: tuple[Any, ...]) -> bool:
    # x[mask] = 0.0 is a fill.
    return "index_put" in name and args[2].numel() == 1


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Raise `WaitingError` at each operation inside for which the host would wait for a GPU."""
    with _NoCopying(), _NoWaiting():  # type: ignore[no-untyped-call]
        yield

"""The finder of waiting operations finds them, and lets the others pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.sampling.waiting import WaitingError, nothing_waits

WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "int": lambda x: int(x.sum()),
    "if": lambda x: 1 if x[0] > 0 else 0,
    "index": lambda x: x[: x.argmax()],
    "nonzero": torch.nonzero,
    "where": lambda x: torch.where(x > 0),
    "equal": lambda x: torch.equal(x, x + 1),
    "allclose": lambda x: torch.allclose(x, x),
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "mask": lambda x: x[x > 0],
    "mask of rows": lambda x: x.expand(2, -1)[:, x > 0],
    "set by mask": lambda x: x.clone().__setitem__(x > 0, x[:2].clone()),
    "unique": torch.unique,
    "bincount": lambda x: torch.bincount(x.long().abs()),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, x.long().abs()),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "tolist": lambda x: x.tolist(),
    "tensor": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "cholesky": lambda x: torch.linalg.cholesky(torch.diag(x.abs())),
}

PASSES: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: (x + 1).mean() / x.sum().clamp_min(1),
    "where of three": lambda x: torch.where(x > 0, x, 0.0),
    "index by rows": lambda x: x[torch.argsort(x)][:2],
    "set by rows": lambda x: x.clone().__setitem__(torch.argsort(x), x),
    "fill by mask": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "topk": lambda x: torch.topk(x, 2).indices,
    "len": lambda x: len(x) + x.shape[0],
    "cholesky_ex": lambda x: torch.linalg.cholesky_ex(torch.diag(x.abs())),
}


@pytest.mark.parametrize("name", WAITS)
def test_waiting_operation_is_found(name: str) -> None:
    x = torch.linspace(-1, 3, 3)
    WAITS[name](x)  # it works where waiting is allowed
    with pytest.raises(WaitingError), nothing_waits():
        WAITS[name](x)


@pytest.mark.parametrize("name", PASSES)
def test_other_operation_passes(name: str) -> None:
    x = torch.linspace(-1, 3, 3)
    expected = PASSES[name](x)
    with nothing_waits():
        result = PASSES[name](x)
    assert str(result) == str(expected)

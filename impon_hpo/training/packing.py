"""Packing: the tensors of a nested state joined into a few, which are written in half the time
of many."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from impon_hpo.sampling.features import flat_view

JOINED, REST = "joined", "rest"
PLACE = "impon_hpo:tensor"
"""The key, of a mapping that has no other, of where a tensor is: group, begin, shape, strides."""


def pack(state: Any) -> dict[str, Any]:
    """Return `state` with its tensors joined, by dtype and device, on the CPU.

    `torch.save` takes up to 0.1 ms a tensor, and waits for a GPU at each; there are hundreds.

    Args:
        state: Tensors and plain values in dicts, lists and tuples.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    lengths = Counter[tuple[torch.dtype, torch.device]]()

    def put(tensor: Tensor) -> dict[str, Any]:
        tensor = tensor.detach()
        flat = flat_view(tensor)
        if flat is None:
            tensor = tensor.contiguous()
            flat = tensor.view(-1)
        key = tensor.dtype, tensor.device
        groups.setdefault(key, []).append(flat)
        at, begin = list(groups).index(key), lengths[key]
        lengths[key] += len(flat)
        return {PLACE: [at, begin, list(tensor.shape), list(tensor.stride())]}

    rest = _map(state, lambda value: put(value) if isinstance(value, Tensor) else value)
    return {JOINED: [torch.cat(flats).cpu() for flats in groups.values()], REST: rest}


def unpack(packed: Any) -> Any:
    """Return the state of `pack(state)`, each tensor with its own memory and its strides."""
    if not (isinstance(packed, dict) and packed.keys() == {JOINED, REST}):
        return packed  # of a version that did not pack
    joined: list[Tensor] = packed[JOINED]

    def take(value: Any) -> Any:
        if not (isinstance(value, dict) and value.keys() == {PLACE}):
            return value
        at, begin, shape, strides = value[PLACE]
        return joined[at].as_strided(shape, strides, begin).clone()

    return _map(packed[REST], take)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return `value` with everything in it that `change` changes changed."""
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        copied = copy.copy(value)  # a model's state has attributes, too
        for key, part in value.items():
            copied[key] = _map(part, change)
        return copied
    if isinstance(value, list | tuple):
        return type(value)(_map(part, change) for part in value)
    return value

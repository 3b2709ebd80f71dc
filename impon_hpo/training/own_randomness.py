"""Random numbers of one's own, for code that draws from the global generators."""

from __future__ import annotations

import random
import threading
from types import TracebackType
from typing import Any

import numpy as np
import torch

_alone = threading.RLock()
"""Held while global generators are lent: they belong to all threads of a process."""


class OwnRandomness:
    """Lends the global generators of torch, numpy and `random` to what runs in its block.

    Inside, they go on from where this object's block before left them; afterwards they are as they
    were. So what a block draws depends on the seed alone, and the caller's random numbers do not
    depend on the block. One block at a time runs in a process.

    Args:
        seed: Where they begin, 0 … 2³² - 1.
        device: Its generator is lent, too, if it is a GPU.

    Example:
        >>> import torch
        >>> from impon_hpo.training.own_randomness import OwnRandomness
        >>> own, before = OwnRandomness(3, torch.device("cpu")), torch.get_rng_state()
        >>> with own:
        ...     drawn = torch.rand(2)
        >>> torch.equal(torch.get_rng_state(), before)
        True
        >>> with OwnRandomness(3, torch.device("cpu")):
        ...     torch.equal(torch.rand(2), drawn)
        True
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._gpu = device if device.type == "cuda" else None
        self._state: dict[str, Any] = {
            "torch": torch.Generator().manual_seed(seed).get_state(),
            "numpy": _kept(np.random.RandomState(seed).get_state(legacy=False)),
            "random": random.Random(seed).getstate(),
        }
        if self._gpu is not None:
            self._state["gpu"] = torch.Generator(device).manual_seed(seed).get_state()
        self._others: dict[str, Any] = {}

    def __enter__(self) -> None:
        _alone.acquire()
        self._others = self._global_state()
        self._lend(self._state)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state = self._global_state()
        self._lend(self._others)
        _alone.release()

    def state_dict(self) -> dict[str, Any]:
        """Return where the generators are, for a checkpoint."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._state = dict(state)
        for name in state.keys() & {"torch", "gpu"}:
            self._state[name] = state[name].cpu()

    def _global_state(self) -> dict[str, Any]:
        state = {
            "torch": torch.get_rng_state(),
            "numpy": _kept(np.random.get_state(legacy=False)),
            "random": random.getstate(),
        }
        if self._gpu is not None:
            state["gpu"] = torch.cuda.get_rng_state(self._gpu)
        return state

    def _lend(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"])
        numpy, key = state["numpy"], state["numpy"]["state"]["key"]
        words = key.cpu().numpy().astype(np.uint32)
        np.random.set_state(numpy | {"state": numpy["state"] | {"key": words}})
        random.setstate(state["random"])
        if self._gpu is not None:
            torch.cuda.set_rng_state(state["gpu"], self._gpu)


def _kept(numpy: dict[str, Any]) -> dict[str, Any]:
    """Return a state of numpy's with a tensor for an array, as a checkpoint can hold it."""
    inner = numpy["state"]
    key = torch.from_numpy(inner["key"].astype(np.int64))
    return numpy | {"state": {"key": key, "pos": int(inner["pos"])}}

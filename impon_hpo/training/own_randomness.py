"""A run's own state of the global generators, for code that takes no generator: dropout, transforms
of torchvision's, and functions and layers of the user's."""

from __future__ import annotations

import random
import threading
from types import TracebackType
from typing import Any

import numpy as np
import torch

_one_at_a_time = threading.RLock()
"""The global generators are those of the process, so one thread at a time may have its own."""


class OwnRandomness:
    """Inside `with`, the global generators are this run's, and outside as they were.

    They are torch's of the CPU and, for a run on a GPU, of the GPU. Nested in itself, it changes
    nothing more. Another thread that wants its own waits meanwhile.

    A captured CUDA graph reads seed and offset from the GPU's generator at every replay, and the
    state is written into that generator, so it may be exchanged between replays; not during a
    capture.

    Args:
        seed: Seed of what is drawn inside, 0 … 2³² - 1.
        device: The device of the run.
        python: Whether numpy's and `random`'s are among them.

    Example:
        >>> import torch
        >>> from impon_hpo.training.own_randomness import OwnRandomness
        >>> first, second = (OwnRandomness(7, torch.device("cpu")) for _ in range(2))
        >>> with first:
        ...     drawn = torch.rand(2)
        >>> with second:
        ...     again = torch.rand(2)
        >>> bool((drawn == again).all())
        True
    """

    def __init__(self, seed: int, device: torch.device, *, python: bool = False) -> None:
        self._seed, self._device, self._python = seed, device, python
        self._own: dict[str, Any] | None = None  # none before it is first used
        self._outside: dict[str, Any] = {}
        self._depth = 0

    def __enter__(self) -> None:
        _one_at_a_time.acquire()
        self._depth += 1
        if self._depth == 1:
            self._outside = self._states()
            self._begin()
            self._go_on_from(self._own or {})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._own = self._states()
            self._go_on_from(self._outside)
        _one_at_a_time.release()

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps; None before the first use."""
        return self._own

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from `state_dict()`."""
        self._own = state

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"cpu": torch.default_generator}
        if self._device.type == "cuda":
            torch.cuda.init()  # before that there are none
            index = self._device.index
            here = torch.cuda.current_device() if index is None else index
            generators["cuda"] = torch.cuda.default_generators[here]
        return generators

    def _states(self) -> dict[str, Any]:
        states: dict[str, Any] = {n: one.get_state() for n, one in self._generators().items()}
        if self._python:
            numpy = np.random.get_state(legacy=False)
            key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
            states["numpy"] = numpy | {"state": {"key": key, "pos": int(numpy["state"]["pos"])}}
            states["random"] = random.getstate()
        return states

    def _begin(self) -> None:
        for generator in self._generators().values():
            generator.manual_seed(self._seed)
        if self._python and self._own is None:
            np.random.seed(self._seed)
            random.seed(self._seed)

    def _go_on_from(self, states: dict[str, Any]) -> None:
        for name, generator in self._generators().items():
            if name in states:  # unknown to a run that began on another device
                generator.set_state(states[name].cpu())
        if self._python and "numpy" in states:  # unknown to a run of before
            numpy = states["numpy"]
            key = numpy["state"]["key"].cpu().numpy().astype(np.uint32)
            np.random.set_state(numpy | {"state": numpy["state"] | {"key": key}})
            random.setstate(states["random"])

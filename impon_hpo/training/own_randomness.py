"""A run's own state of torch's global generators, for layers that take no generator, as dropout."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_one_at_a_time = threading.RLock()
"""The global generators are those of the process, so one thread at a time may have its own."""


class OwnRandomness:
    """Inside `with`, torch's global generators are this run's, and outside as they were.

    They are that of the CPU and, for a run on a GPU, that of the GPU. Nested in itself, it changes
    nothing more. Another thread that wants its own waits meanwhile.

    A captured CUDA graph reads seed and offset from the GPU's generator at every replay, and the
    state is written into that generator, so it may be exchanged between replays; not during a
    capture.

    Args:
        seed: Seed of what is drawn inside.
        device: The device of the run.

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

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._own: dict[str, Tensor] | None = None  # none before it is first used
        self._outside: dict[str, Tensor] = {}
        self._depth = 0

    def __enter__(self) -> None:
        _one_at_a_time.acquire()
        self._depth += 1
        if self._depth == 1:
            self._outside = self._states()
            for name, generator in self._generators().items():
                if self._own is not None and name in self._own:
                    generator.set_state(self._own[name])
                else:  # also what a run that began on another device does not know
                    generator.manual_seed(self._seed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._own = self._states()
            for name, generator in self._generators().items():
                generator.set_state(self._outside[name])
        _one_at_a_time.release()

    def state_dict(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps; None before the first use."""
        return self._own

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from `state_dict()`."""
        self._own = None if state is None else {name: one.cpu() for name, one in state.items()}

    def _generators(self) -> dict[str, torch.Generator]:
        generators = {"cpu": torch.default_generator}
        if self._device.type == "cuda":
            torch.cuda.init()  # before that there are none
            index = self._device.index
            here = torch.cuda.current_device() if index is None else index
            generators["cuda"] = torch.cuda.default_generators[here]
        return generators

    def _states(self) -> dict[str, Tensor]:
        return {name: one.get_state() for name, one in self._generators().items()}

"""A tape: a CUDA graph's stand-in on a CPU, which also repeats operations with the Python numbers
that they had when they were recorded, on the memory that they were recorded with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from impon_hpo.sampling import captured
from impon_hpo.sampling.captured import Function, call


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        fresh = [] if any(r.alias_info for r in func._schema.returns) else tree_leaves(result)
        self.done.append((func, args, kwargs or {}, fresh))
        return result


class TapeGraph:
    """Records by running, so the first replay has its work done already."""

    made = 0
    """Tapes made, and replays, since `on_tape` began."""
    replays = 0

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Tensor | None],
        generators: Sequence[Any],
        stream: object,
    ) -> None:
        type(self).made += 1
        with _Recorder() as recorder:
            self._outputs = call(function, inputs, lambda: None)
        self._done = recorder.done
        self._run = True

    def replay(self, halfway: Callable[[], None]) -> tuple[Tensor, ...]:
        type(self).replays += 1
        if self._run:
            self._run = False
            return tuple(output.clone() for output in self._outputs)
        with torch.no_grad():
            for func, args, kwargs, fresh in self._done:
                again = tree_leaves(func(*args, **kwargs))
                for place, value in zip(fresh, again, strict=False):
                    if isinstance(place, Tensor):
                        place.copy_(value)
        return tuple(output.clone() for output in self._outputs)


@contextmanager
def on_tape() -> Iterator[type[TapeGraph]]:
    """Have everything inside captured as it would be on a GPU."""
    TapeGraph.made = TapeGraph.replays = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "graph_on", lambda device: TapeGraph)
        yield TapeGraph

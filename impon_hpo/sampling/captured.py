"""A captured function: a GPU replays its work as one CUDA graph, so that the host launches once per
call and not once per operation."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from inspect import ismethod
from typing import Any, Protocol
from weakref import WeakMethod

import torch
from torch import Tensor

Function = Callable[..., "tuple[Tensor, ...] | Iterator[tuple[Tensor, ...]] | None"]
"""It takes tensors or None and returns tensors or nothing. What else it changes, it changes in
place. One that yields its result has more to do after that."""

Inputs = Sequence[Tensor | None]

WARM_UP = 3
"""Calls of each kind before the capture: libraries load, compilers compile, tuners tune."""


_one_at_a_time = threading.Lock()
"""The stream of a lane, torch's watch for what waits and Python's warnings are the process's."""


class Graph(Protocol):
    """The recorded work of a function on tensors that keep their memory."""

    def __init__(
        self, function: Function, inputs: Inputs, generators: Sequence[Any], stream: Any
    ) -> None: ...

    def replay(self, halfway: Callable[[], None]) -> tuple[Tensor, ...]:
        """Do the work on what the inputs hold now and return copies of the results; call `halfway`
        as soon as there are results."""
        ...


class CudaGraph:
    """A CUDA graph; recording does not run it.

    Args:
        function: The work.
        inputs: Tensors on the GPU that it reads, or None.
        generators: The random generators that it uses besides torch's own.
        stream: The stream of that GPU on which it is recorded.
    """

    def __init__(
        self, function: Function, inputs: Inputs, generators: Sequence[Any], stream: Any
    ) -> None:
        self._inputs = inputs
        self._generators = generators
        self._stream = stream
        self._graphs: list[torch.cuda.CUDAGraph] = []
        with self._next_graph():
            self._outputs, rest = _begin(function, inputs)
        if rest is not None:
            with self._next_graph():
                _end(rest)

    @contextmanager
    def _next_graph(self) -> Iterator[None]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # The second graph shares the memory of the first. Thread-local, because other threads, such
        # as the one that renews a lease, may use the GPU meanwhile.
        pool = self._graphs[0].pool() if self._graphs else None
        with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
            yield
        self._graphs.append(graph)

    def replay(self, halfway: Callable[[], None]) -> tuple[Tensor, ...]:
        first, *rest = self._graphs
        first.replay()
        outputs = tuple(output.clone() for output in self._outputs)
        halfway()
        for graph in rest:
            graph.replay()
        return outputs


@cache
def _side_stream(index: int, lane: str) -> torch.cuda.Stream:
    """Return the stream for the warm-ups and captures of a lane.

    Libraries keep a workspace for each stream, and a graph uses that of the stream on which it was
    recorded. So functions that run in turn share a stream, and those that overlap do not.
    """
    return torch.cuda.Stream(index)


def call(function: Function, inputs: Inputs, halfway: Callable[[], None]) -> tuple[Tensor, ...]:
    """Call a function to its end and return its result; call `halfway` once there is a result."""
    outputs, rest = _begin(function, inputs)
    halfway()
    if rest is not None:
        _end(rest)
    return outputs


def _begin(
    function: Function, inputs: Inputs
) -> tuple[tuple[Tensor, ...], Iterator[tuple[Tensor, ...]] | None]:
    """Call a function until it has a result; return that, and what it has left to do."""
    result = function(*inputs)
    if result is None or isinstance(result, tuple):
        return result or (), None
    return next(result), result


def _end(rest: Iterator[tuple[Tensor, ...]]) -> None:
    for _ in rest:
        raise AssertionError("a captured function yields once")


def graph_on(device: torch.device) -> type[Graph] | None:
    """Return the kind of graph for a device: CUDA graphs on a GPU, none elsewhere."""
    return CudaGraph if device.type == "cuda" else None


@dataclass
class _Kind:
    """The calls whose inputs have the same shapes and dtypes and are None in the same places."""

    calls: int = 0
    inputs: list[Tensor | None] = field(default_factory=list)
    graph: Graph | None = None


class Captured:
    """Calls a function; on a GPU, from the fourth call on, as a CUDA graph.

    The function must do the same work at every call with tensors of the same shapes. What differs
    between calls goes in as a tensor; what it changes, it changes in place. The first calls run as
    they are, as a warm-up. Inputs of other shapes, or None in other places, have a graph of their
    own. A function that yields its result instead of returning it becomes two graphs, and what uses
    the result may begin between them. A function that waits for the GPU cannot be captured; the
    last call of the warm-up detects that.

    Args:
        function: What is called. A bound method is not kept alive by this object.
        device: Where its tensors are.
        generators: The random generators that it uses besides torch's own.
        lane: Functions that may run at the same time need different ones.
        capture: If False, the function runs as it is at every call, on a GPU too.
        refused: Called with the reason if the function cannot be captured and therefore runs as it
            is at every call. It may raise. Default: do nothing.
    """

    def __init__(
        self,
        function: Function,
        device: torch.device,
        *,
        generators: Sequence[torch.Generator] = (),
        lane: str = "sampling",
        capture: bool = True,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        # Else a cycle would keep the method's object and the graph's memory alive for long.
        self._function: Callable[[], Function | None] = (
            WeakMethod(function) if ismethod(function) else lambda: function
        )
        self._generators = generators
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            self._stream = _side_stream(index, lane)
        self._refused = refused
        self._device = device
        self._graph_type = graph_on(device) if capture else None
        self._kinds: dict[tuple[Any, ...], _Kind] = {}
        self.result_there = torch.cuda.Event() if device.type == "cuda" else None
        """On a GPU: reached once the result of the last call is ready; else None."""

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Return the results for these inputs, in tensors that belong to the caller."""
        function = self._function()
        assert function is not None
        if self._graph_type is None:
            return call(function, inputs, self._halfway)
        key = tuple(None if one is None else (one.shape, one.dtype) for one in inputs)
        kind = self._kinds.setdefault(key, _Kind())
        kind.calls += 1
        if kind.calls < WARM_UP:
            return self._beside(function, inputs)
        if kind.calls == WARM_UP:
            waited, outputs = self._watched(function, inputs)
            if waited:
                self._give_up(waited)
            return outputs
        if kind.graph is None:
            kind.inputs = [None if one is None else one.clone() for one in inputs]
            try:
                with _one_at_a_time:
                    kind.graph = self._graph_type(
                        function, kind.inputs, self._generators, self._stream
                    )
            except Exception as error:
                self._give_up(f"{type(error).__name__}: {error}")
                return call(function, inputs, self._halfway)
        for target, one in zip(kind.inputs, inputs, strict=True):
            if target is not None and one is not None:
                target.copy_(one)
        return kind.graph.replay(self._halfway)

    def _halfway(self) -> None:
        if self.result_there is not None:
            self.result_there.record(torch.cuda.current_stream(self._device))

    def _give_up(self, reason: str) -> None:
        self._graph_type = None
        self._kinds.clear()
        self._refused(reason)

    def _beside(self, function: Function, inputs: Inputs) -> tuple[Tensor, ...]:
        """Call on the stream of the capture."""
        if self._stream is None:
            return call(function, inputs, self._halfway)
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            outputs = call(function, inputs, self._halfway)
        here.wait_stream(self._stream)
        return outputs

    def _watched(self, function: Function, inputs: Inputs) -> tuple[str, tuple[Tensor, ...]]:
        """Call, and return what made the host wait, or "", and the result."""
        if self._device.type != "cuda":
            return "", call(function, inputs, self._halfway)
        with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                outputs = self._beside(function, inputs)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        waits = [one for one in caught if "called a synchronizing" in str(one.message)]
        return (str(waits[0].message).splitlines()[0] if waits else ""), outputs

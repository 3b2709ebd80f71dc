"""A captured function: a GPU replays its work as one CUDA graph, so that the host launches once a
call and not once an operation."""

from __future__ import annotations

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
"""Tensors or None in, tensors or nothing out; what else it changes, it changes in place. One that
yields its result has more to do after that."""

Inputs = Sequence[Tensor | None]

WARM_UP = 3
"""Calls of each kind before the capture: libraries load, compilers compile, tuners tune."""


class Graph(Protocol):
    """The work of a function on tensors that stay where they are."""

    def __init__(
        self, function: Function, inputs: Inputs, generators: Sequence[Any], stream: Any
    ) -> None: ...

    def replay(self, halfway: Callable[[], None]) -> tuple[Tensor, ...]:
        """Do the work on what the inputs hold now, and return copies of what came of it; call
        `halfway` when there is a result."""
        ...


class CudaGraph:
    """A CUDA graph; it is recorded without being run.

    Args:
        function: What it does.
        inputs: Tensors on the GPU that it reads, or None.
        generators: The random generators that it draws from, beside torch's own.
        stream: That on which it is recorded, of the GPU in question.
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
        # The second one goes on with the memory of the first. Other threads, such as the one that
        # renews a lease, may go on meanwhile.
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
    """Return the stream of the warm-ups and captures of a lane.

    Libraries keep a workspace for each stream, and a graph uses that of the stream it was recorded
    on: so one stream for all that runs in turn, and others for what runs beside it.
    """
    return torch.cuda.Stream(index)


def call(function: Function, inputs: Inputs, halfway: Callable[[], None]) -> tuple[Tensor, ...]:
    """Call a function to its end and return its result; call `halfway` when that is there."""
    outputs, rest = _begin(function, inputs)
    halfway()
    if rest is not None:
        _end(rest)
    return outputs


def _begin(
    function: Function, inputs: Inputs
) -> tuple[tuple[Tensor, ...], Iterator[tuple[Tensor, ...]] | None]:
    """Call a function until its result is there; return that, and what it has left to do."""
    result = function(*inputs)
    if result is None or isinstance(result, tuple):
        return result or (), None
    return next(result), result


def _end(rest: Iterator[tuple[Tensor, ...]]) -> None:
    for _ in rest:
        raise AssertionError("a captured function yields once")


def graph_on(device: torch.device) -> type[Graph] | None:
    """Return what captures on a device: CUDA graphs on a GPU, nothing elsewhere."""
    return CudaGraph if device.type == "cuda" else None


@dataclass
class _Kind:
    """What has come of the calls whose inputs have the same shapes, dtypes and gaps."""

    calls: int = 0
    inputs: list[Tensor | None] = field(default_factory=list)
    graph: Graph | None = None


class Captured:
    """Calls a function, on a GPU from the fourth call on as a CUDA graph.

    The function must do the same with tensors of the same shapes at every call: what differs from
    call to call goes in as a tensor, what it changes it changes in place. Its first calls are made
    as they are, and are the warm-up; calls with inputs of other shapes, or None for other ones,
    have a graph of their own. A function that yields its result instead of returning it is two
    graphs, and what uses the result may begin between them. A function that waits for the GPU
    cannot be captured; it is found out by its last call before the capture.

    Args:
        function: What is called. A bound method is not kept alive by this object.
        device: Where its tensors are.
        generators: The random generators that it draws from, beside torch's own.
        lane: Functions that may run at the same time have different ones.
        capture: False: the function is called at every call, on a GPU, too.
        refused: Called with the reason where it cannot be captured; it is then called as it is. It
            may raise. Default: nothing is said.
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
        # A method's object would otherwise live, with the graph's memory, until cycles are sought.
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
        """On a GPU: reached when the result of the last call is there."""

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """Return what the function returns of these inputs; the tensors are the caller's."""
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
                kind.graph = self._graph_type(function, kind.inputs, self._generators, self._stream)
            except Exception as error:
                self._give_up(f"{type(error).__name__}: {error}")
                return call(function, inputs, self._halfway)
        for kept, one in zip(kind.inputs, inputs, strict=True):
            if kept is not None and one is not None:
                kept.copy_(one)
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
        """Call, and return for what the host waited, or ""."""
        if self._device.type != "cuda":
            return "", call(function, inputs, self._halfway)
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                outputs = self._beside(function, inputs)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        waits = [one for one in caught if "called a synchronizing" in str(one.message)]
        return (str(waits[0].message).splitlines()[0] if waits else ""), outputs

"""Time on a device: seconds by phase, and what a GPU may do beside the training step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up the seconds spent in named phases: on a GPU with its events, otherwise by the clock.

    Args:
        device: Where the phases run.
        seconds: What was counted before, by phase.
    """

    def __init__(self, device: torch.device, seconds: Mapping[str, float] | None = None) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._seconds = defaultdict[str, float](float, seconds or {})
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        if self._on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            start.record(stream)
            yield
            end.record(stream)
            self._events.append((name, start, end))
        else:
            begun = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - begun

    def seconds(self, name: str) -> float:
        """Return the seconds of `name`; waits for the GPU."""
        if self._events:
            torch.cuda.synchronize(self._device)
            for phase, start, end in self._events:
                self._seconds[phase] += start.elapsed_time(end) / 1000
            self._events.clear()
        return self._seconds[name]


class Beside:
    """Runs work on a second stream that need not wait for the whole step before it.

    Tensors made inside a block may be used outside after `join()`. Tensors made outside may be used
    inside once the event that the block waits for is reached. On a CPU everything runs in turn.

    Args:
        device: Where everything runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._main: torch.cuda.Stream | None = None

    @contextmanager
    def __call__(self, since: torch.cuda.Event | None) -> Iterator[None]:
        """Run the block as soon as `since` is reached; None: after everything before it."""
        if self._stream is None:
            yield
            return
        self._main = torch.cuda.current_stream(self._device)
        if since is None:
            self._stream.wait_stream(self._main)
        else:
            self._stream.wait_event(since)
        with torch.cuda.stream(self._stream):
            yield

    def wait_for_all(self) -> None:
        """Inside a block: make what follows wait for everything started outside."""
        if self._stream is not None and self._main is not None:
            self._stream.wait_stream(self._main)

    def join(self) -> None:
        """Outside: make what follows wait for everything started inside a block."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

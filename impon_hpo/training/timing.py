"""Time on a device: seconds by phase, and what a GPU may do beside the training step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up the seconds spent in named phases: on a GPU by its own events, else by the clock.

    Args:
        device: Where the phases run.
        seconds: What was counted before.
    """

    def __init__(self, device: torch.device, seconds: Mapping[str, float] | None = None) -> None:
        self._on_gpu = device.type == "cuda"
        self._device = device
        self._seconds = defaultdict[str, float](float, seconds or {})
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside towards `name`."""
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
        """Return the seconds counted towards `name`; waits for the GPU."""
        if self._events:
            torch.cuda.synchronize(self._device)
            for phase, start, end in self._events:
                self._seconds[phase] += start.elapsed_time(end) / 1000
            self._events.clear()
        return self._seconds[name]


class Beside:
    """Runs on a second stream what does not need the whole of the step before it.

    Tensors made inside may be used outside after `join()`, and the other way round from the moment
    that is waited for on. On a CPU everything runs in turn.

    Args:
        device: Where everything happens.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._main: torch.cuda.Stream | None = None

    @contextmanager
    def __call__(self, since: torch.cuda.Event | None) -> Iterator[None]:
        """Run what is inside as soon as `since` is reached; None: when all before it is done."""
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
        """Inside: have what follows wait for all that was asked for outside."""
        if self._stream is not None and self._main is not None:
            self._stream.wait_stream(self._main)

    def join(self) -> None:
        """Outside: have what follows wait for all that was asked for inside."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

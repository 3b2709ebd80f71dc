"""Seconds by phase of an epoch, measured without waiting for a GPU at every step."""

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

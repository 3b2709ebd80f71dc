"""Beside: what a GPU may do beside the training step, on a second stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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

"""Ctrl-C and SIGTERM, held back while a step is taken and let through between two of them."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

HELD = (signal.SIGINT, signal.SIGTERM)


class HeldSignals:
    """A context in which the first Ctrl-C or SIGTERM waits until `let_through` is called or the
    context is left; a second one comes through at once.

    Only what a Python function handles is held, and in the main thread only, where signals arrive:
    elsewhere, and where SIGTERM just ends the process, nothing changes.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in HELD:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._hold)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        if kind is None:
            self.let_through()

    def let_through(self) -> None:
        """Let what came meet the handler that it was meant for; nothing came: do nothing."""
        if self._came is not None:
            number, self._came = self._came, None
            self._restore()
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._came is not None:
            self.let_through()
        self._came = number

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

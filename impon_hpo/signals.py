"""Ctrl-C and SIGTERM: held back while something must not be torn, and not lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

HELD = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.05


class HeldSignals:
    """A context in which the first Ctrl-C or SIGTERM waits until `let_through` is called or the
    context ends. A second one comes through at once.

    Only signals with a Python handler are held, and only in the main thread, where they arrive.
    Elsewhere, and where SIGTERM just ends the process, nothing changes.
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
        """Hand a signal that came to the handler that it was meant for, if one came."""
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


class Terminated(KeyboardInterrupt):
    """SIGTERM came: it ends a command as Ctrl-C does, but for the exit code."""


def heed_stops() -> None:
    """From here on, SIGTERM raises `Terminated` in the main thread; and a stop is not lost."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    if not isinstance(sys.unraisablehook, _SendAgain):
        sys.unraisablehook = _SendAgain(sys.unraisablehook)


class _SendAgain:
    """Sends a stop again that came while a destructor or a callback of a weak reference ran, where
    Python drops whatever is raised (SQLAlchemy has such callbacks).

    Args:
        otherwise: Gets what else is dropped.
    """

    def __init__(self, otherwise: Callable[[sys.UnraisableHookArgs], object]) -> None:
        self._otherwise = otherwise

    def __call__(self, dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            self._otherwise(dropped)
            return
        terminated = isinstance(dropped.exc_value, Terminated)
        number = signal.SIGTERM if terminated else signal.SIGINT
        # From another thread and a moment later, when what runs now has ended.
        later = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        later.daemon = True
        later.start()

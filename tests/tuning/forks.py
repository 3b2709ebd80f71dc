"""Processes that are forked, since importing torch takes longer than a whole small study."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def fork(run: Callable[[], None]) -> int:
    """Run in a child process and return its number; it ends with 99 after an error."""
    with warnings.catch_warnings():
        # Since Python 3.12, forking beside other threads (here pytest-xdist's) is warned of.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 99
        try:
            run()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            with suppress(OSError):  # as Python does at the end
                sys.stderr.flush()
            os._exit(code)
    return child


def ended(child: int) -> int | None:
    """Return the exit code of a child, below 0 for a signal; None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return None if pid == 0 else os.waitstatus_to_exitcode(status)


def kill(child: int) -> int:
    """Kill a child as a power cut would, and return how it ended."""
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Forked:
    """A function in a child process, with standard output and standard error of its own.

    Args:
        run: The function.
        stderr: A file descriptor that is its standard error; default: read by `said`.
    """

    def __init__(self, run: Callable[[], None], *, stderr: int | None = None) -> None:
        folder = Path(tempfile.mkdtemp(prefix="forked-", dir=Path.cwd().parent))
        self._out, self._err = folder / "out", folder / "err"
        for path in (self._out, self._err):
            path.touch()

        def child() -> None:
            for path, number in ((self._out, 1), (self._err, 2)):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(stderr if number == 2 and stderr is not None else file, number)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            faulthandler.enable()
            logging.getLogger().handlers.clear()  # pytest's own, which nobody reads here
            sys.unraisablehook = sys.__unraisablehook__  # not pytest's, which waits for the end
            run()

        self.pid = fork(child)
        self.code: int | None = None

    @property
    def out(self) -> str:
        """What it has written to standard output."""
        return self._out.read_text()

    @property
    def said(self) -> str:
        """What it has written to standard error."""
        return self._err.read_text()

    def running(self) -> bool:
        """Return whether it still runs."""
        if self.code is None:
            self.code = ended(self.pid)
        return self.code is None

    def wait(self, *, seconds: float = 120) -> int:
        """Wait for its end, and return its exit code, below 0 for a signal."""
        self.wait_until(lambda: self.code is not None, seconds=seconds)
        assert self.code is not None
        return self.code

    def wait_until(self, what: Callable[[], bool], *, seconds: float = 60) -> None:
        """Wait until `what` is true or the process has ended."""
        limit = time.monotonic() + seconds
        while self.running() and not what():
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGABRT)  # it says where it is
                self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                raise AssertionError(f"it hangs: {self.said}")
            time.sleep(0.01)


def start(*arguments: str | Path, stderr: int | None = None) -> Forked:
    """Start `impon-hpo ARGUMENTS` in a child process, in this working directory."""

    def run() -> None:
        from impon_hpo.cli.app import main

        sys.argv = ["impon-hpo", *map(str, arguments)]
        main()

    return Forked(run, stderr=stderr)

"""Workers as forked processes, since importing torch anew takes longer than a whole small study."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def fork(run: Callable[[], None]) -> int:
    """Run in a child process and return its number; it ends with 99 after an error."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            run()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
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

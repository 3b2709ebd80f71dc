"""A meter: reads the processor seconds that something has used, again and again, while it runs."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

SERVERS = {"postgresql": {"postgres"}, "mysql": {"mariadbd", "mysqld"}}
"""Names of the processes of database servers, by what their addresses begin with."""

SECONDS = 0.25
"""Between two readings."""


@dataclass(frozen=True)
class Readings:
    """What a meter has read.

    Args:
        moments: Of each reading, of `time.perf_counter()`, which all processes of a machine share.
        counts: What it read.
    """

    moments: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)

    def between(self, begin: float, end: float) -> float:
        """Return by how much the count rose from one moment to another."""
        before, after = np.interp([begin, end], self.moments, self.counts)
        return float(after - before)


class Meter:
    """Reads a count from a thread of its own while it is open.

    Args:
        read: Returns the count so far.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.readings = Readings()
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="meter", daemon=True)

    def __enter__(self) -> Meter:
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._take()

    def _keep(self) -> None:
        while not self._stop.wait(SECONDS):
            self._take()

    def _take(self) -> None:
        self.readings.moments.append(time.perf_counter())
        self.readings.counts.append(self._read())


def own_seconds() -> float:
    """Return the processor seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def machine_seconds() -> float:
    """Return the processor seconds that this machine has spent, all processes together."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def named_seconds(names: Set[str]) -> float:
    """Return the processor seconds of this machine's processes of these names; 0 without any."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            said = path.read_text(errors="replace")
        except OSError:  # it has ended
            continue
        name, _, fields = said.partition("(")[2].rpartition(")")
        if name in names:  # own user and system time, and those of children that have ended
            ticks += sum(int(field) for field in fields.split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")

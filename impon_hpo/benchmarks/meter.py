"""A meter: reads the processor seconds that something has used, again and again, while it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from impon_hpo.tuning.process_stat import process_stat

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


@contextmanager
def metered(read: Callable[[], float]) -> Iterator[Readings]:
    """Read a count from a thread of its own, again and again while what is inside runs."""
    readings, over = Readings(), threading.Event()

    def take() -> None:
        readings.moments.append(time.perf_counter())
        readings.counts.append(read())

    def keep() -> None:
        while not over.wait(SECONDS):
            take()

    take()
    thread = threading.Thread(target=keep, name="meter", daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        over.set()
        thread.join()
        take()


def machine_seconds() -> float:
    """Return the processor seconds that this machine has spent, all processes together."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def named_seconds(names: Set[str]) -> float:
    """Return the processor seconds of this machine's processes of these names; 0 without any."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        name, fields = process_stat(folder.name) or ("", [])  # it may have ended
        if name in names:  # own user and system time, and those of children that have ended
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")

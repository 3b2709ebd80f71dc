"""What benchmarks measure with: sides timed in turn, processes of their own, processor seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from impon_hpo import ImponHpoError
from impon_hpo.environment import environment
from impon_hpo.errors import ConfigError


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated figures."""

    low: float
    median: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """Return the spread of the figures times a positive factor."""
        return Spread(self.low * factor, self.median * factor, self.high * factor)

    def columns(self, name: str) -> dict[str, float]:
        """Return the median under `name` and the quartiles beside it, four digits each."""
        return {
            name: _rounded(self.median),
            f"{name}_q1": _rounded(self.low),
            f"{name}_q3": _rounded(self.high),
        }


@dataclass(frozen=True)
class Measurement:
    """The result of a benchmark.

    Args:
        benchmark: Its name.
        settings: What was measured: sizes and repeats.
        environment: Versions, hardware, threads, and the machine's load when it began.
        rows: One mapping a side, the same keys in all; times are in the unit that the key says.
    """

    benchmark: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]


def spread(figures: Sequence[float]) -> Spread:
    """Return median and quartiles of one or more figures."""
    low, median, high = np.quantile(np.asarray(figures, dtype=np.float64), [0.25, 0.5, 0.75])
    return Spread(float(low), float(median), float(high))


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` takes by the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def check_rounds(rounds: int) -> None:
    """Raise `ConfigError` unless there is a round."""
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1, but got {rounds}.")


def alternate(
    sides: Mapping[str, Callable[[], Any]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Time every side once a round, in turn, so that whatever else the machine does meets all.

    Args:
        sides: What to time, by name.
        rounds: Times that each side counts, at least 1.
        warm_up: Rounds before, which do not count.

    Returns:
        The seconds (rounds,) of each side, paired by round.

    Raises:
        ConfigError: There is no round.
    """
    check_rounds(rounds)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for at in range(-warm_up, rounds):
        for name, work in sides.items():
            taken = seconds_of(work)
            if at >= 0:
                seconds[name].append(taken)
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the spread of the ratios of two sides, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def surroundings(device: str) -> dict[str, Any]:
    """Return versions, hardware, threads, and how many processes wanted the CPU in the last minute.

    A load near 0 means that nothing else ran. Otherwise, rely on ratios only.
    """
    return environment(device) | {"load": round(os.getloadavg()[0], 2)}


def _rounded(figure: float) -> float:
    return float(f"{figure:.4g}")


class SideProcess:
    """Builds a side in a new process, and runs it there whenever it is called.

    It ends with the process that made it. `peak_gpu_bytes` is the most GPU memory that it has held,
    0 without a GPU.

    Args:
        build: Returns what is run; a function of a module, because it is sent to the process.
        arguments: Keyword arguments of `build`.

    Raises:
        ImponHpoError: The side cannot be built; when called: it cannot be run.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], arguments: dict[str, Any]) -> None:
        # Forked from a process that has only imported what this one has of the package, and with it
        # torch: as clean as a new one, without the seconds that importing takes.
        context = multiprocessing.get_context("forkserver")
        imported = [name for name in sys.modules if name.partition(".")[0] == "impon_hpo"]
        context.set_forkserver_preload(imported)
        self.peak_gpu_bytes = 0
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, build, arguments, torch.get_num_threads())
        )
        self._process.start()
        theirs.close()
        self._receive()

    def __call__(self) -> Any:
        """Run the side once and return what it returned."""
        self._pipe.send(True)
        result, self.peak_gpu_bytes = self._receive()
        return result

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()  # which ends the process
        self._process.join()

    def _receive(self) -> Any:
        try:
            succeeded, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            succeeded, answer = False, f"its process ended with code {self._process.exitcode}"
        if not succeeded:
            raise ImponHpoError(f"One side of the benchmark failed: {answer}")
        return answer


def _serve(
    pipe: Connection,
    build: Callable[..., Callable[[], Any]],
    arguments: dict[str, Any],
    n_threads: int,
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    try:
        run = build(**arguments)
        pipe.send((True, None))
        while pipe.recv():
            result = run()
            peak = torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else 0
            pipe.send((True, (result, peak)))
    except EOFError:  # the other end has closed it
        return
    except Exception as error:
        pipe.send((False, f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    # The kernel's own signal would not come: the server that forks is the parent, and lives on.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


SERVERS = {"postgresql": {"postgres"}, "mysql": {"mariadbd", "mysqld"}}
"""Names of the processes of database servers, by what their addresses begin with."""

READING_SECONDS = 0.25
"""From one reading to the next."""


@dataclass(frozen=True)
class Readings:
    """A count that rises, read again and again.

    Args:
        moments: When each reading was taken, by `time.perf_counter()`, which all processes of a
            machine share.
        counts: The readings.
    """

    moments: list[float] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)

    def between(self, begin: float, end: float) -> float:
        """Return by how much the count rose from one moment to another."""
        before, after = np.interp([begin, end], self.moments, self.counts)
        return float(after - before)


@contextlib.contextmanager
def metered(read: Callable[[], float]) -> Iterator[Readings]:
    """Read a count in a thread of its own, again and again, while the block runs."""
    readings, over = Readings(), threading.Event()

    def take() -> None:
        readings.moments.append(time.perf_counter())
        readings.counts.append(read())

    def keep() -> None:
        while not over.wait(READING_SECONDS):
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
    """Return the processor seconds that all processes of this machine have used."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting = ticks[3:5]
    return (sum(ticks) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def named_seconds(names: Set[str]) -> float:
    """Return the processor seconds of this machine's processes of these names; 0 without any."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may have ended
            stat = (folder / "stat").read_text(errors="replace")
            # The name is in parentheses, and may itself have some.
            name, _, fields = stat.partition("(")[2].rpartition(")")
            if name in names:  # own user and system time, and those of children that have ended
                ticks += sum(int(field) for field in fields.split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")

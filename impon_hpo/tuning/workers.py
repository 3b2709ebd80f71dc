"""The workers of this machine: one process each, with a device and a share of the threads."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType

from impon_hpo.console import Say

STORAGE = "IMPON_HPO_STORAGE"
"""Environment variable of the storage's address."""

PARENT = "IMPON_HPO_PARENT"
"""Environment variable of a worker: the process that started it."""

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def run_workers(
    arguments: Sequence[str], devices: Sequence[str], *, n: int, say: Say, storage: str = ""
) -> int:
    """Run `impon-hpo ARGUMENTS` in n processes until all have ended, and return the exit code: 0
    where one came to the end, else the first one that was not 0.

    Threads are shared out before torch is imported. Ctrl-C and SIGTERM reach all of them, and they
    end when this process is killed.

    Args:
        arguments: Of the command line.
        devices: Given out in turn; empty: what the study file says.
        n: Number of processes.
        say: Gets what they say, line by line.
        storage: Its address, which no list of processes shows.
    """
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // n)
    workers = []
    for index in range(n):
        device = ["--set", f"device={devices[index % len(devices)]}"] if devices else []
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "impon_hpo", *arguments, *device],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_environment(threads, storage),
            )
        )
    readers = [
        threading.Thread(target=_pass_on, args=(worker, index, say), daemon=True)
        for index, worker in enumerate(workers)
    ]
    for reader in readers:
        reader.start()
    stopped = _wait(workers)
    for reader in readers:
        reader.join()
    codes = [worker.returncode for worker in workers]
    for index, code in enumerate(codes):
        if code < 0:
            say(f"[{index}] was killed by {signal.Signals(-code).name}; its trial is continued")
    if stopped:
        return 128 + stopped
    return 0 if 0 in codes else next(abs(code) for code in codes)


def _environment(threads: int, storage: str) -> Mapping[str, str]:
    said = str(threads)
    address = {STORAGE: storage} if storage else {}
    return (
        os.environ
        | address
        | {
            "OMP_NUM_THREADS": said,
            "MKL_NUM_THREADS": said,
            PARENT: str(os.getpid()),
            "COLUMNS": "200",
        }
    )


def _pass_on(worker: subprocess.Popen[str], index: int, say: Say) -> None:
    assert worker.stderr is not None
    with worker.stderr as lines:
        for line in lines:
            say(f"[{index}] {line.rstrip()}")


def _wait(workers: Sequence[subprocess.Popen[str]]) -> int:
    """Wait for all; pass SIGINT and SIGTERM on, and return which one came, or 0."""
    came = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = number
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for worker in workers:
            worker.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return came


def end_with_parent() -> None:
    """In a worker that `run_workers` has started: end when the process that started it does."""
    parent = os.environ.get(PARENT)
    if parent is not None:
        end_with(int(parent))


def end_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when the process that started this one ends."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that
        os.kill(os.getpid(), signal.SIGTERM)

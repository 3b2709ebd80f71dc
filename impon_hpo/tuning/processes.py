"""Worker processes: on this machine, each with a device and a share of the threads, or as jobs of a
cluster; and the orders that each of them is given."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from impon_hpo.errors import ConfigError, as_typed

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

log = logging.getLogger("impon_hpo")

STORAGE = "IMPON_HPO_STORAGE"
"""Environment variable of the storage's address."""

PARENT = "IMPON_HPO_PARENT"
"""Environment variable of a worker: the process that started it."""

JOB = {"name": "impon-hpo", "timeout_min": 24 * 60, "slurm_signal_delay_s": 120}
"""Parameters of a cluster's job unless told otherwise."""

TIMEOUTS = 1000
"""How often a job that has used up its time is put back into the queue."""

POLL_SECONDS = 1.0
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Orders:
    """What a worker is to do, as one object that any process can be given.

    The storage's address is not part of what is written down, since it may hold a password: it is
    handed on in the environment.

    Args:
        task: "tune", "compare" or "compare-samplers".
        study: The study as the user gave it.
        settings: Those of `--set`.
        storage: The storage's address, or None for the study file's.
        arms: Arms: the one that is tuned, or those that are compared; none: all.
        n_trials: Finished trials wanted, or None for the study file's.
        n_seeds: Seeds of each configuration of `compare-samplers`.
        max_epochs: Budget: epochs.
        max_cost: Budget: forward-equivalents.
        max_seconds: Budget: seconds of training.
        device: The device, or None for the study file's.
        grace: Seconds of silence after which another machine's trial is taken over.
        keep_checkpoints: Whether checkpoints of finished trials stay.
        checkpoint_budget: Bytes for the checkpoints of trials that wait to be promoted, or None.
        earlier: Configurations of an earlier study that are tried first: its name, the number of
            the trial there, and its values.
        recordings: Folder of a table that a comparison continues, or None.
        command: The command as it was typed.
    """

    task: str
    study: str
    settings: Sequence[str] = ()
    storage: str | None = None
    arms: Sequence[str] = ()
    n_trials: int | None = None
    n_seeds: int = 1
    max_epochs: int | None = None
    max_cost: float | None = None
    max_seconds: float | None = None
    device: str | None = None
    grace: float = 180.0
    keep_checkpoints: bool = False
    checkpoint_budget: int | None = None
    earlier: Sequence[Mapping[str, Any]] = field(default_factory=list)
    recordings: str | None = None
    command: str = ""

    def to_json(self) -> str:
        """Return it as text, without the storage."""
        return json.dumps(dataclasses.asdict(self) | {"storage": None})

    @classmethod
    def from_json(cls, text: str) -> Orders:
        """Return the orders that `to_json` wrote, with the storage that the environment names."""
        return cls(**json.loads(text) | {"storage": os.environ.get(STORAGE)})


def run_workers(orders: Orders, devices: Sequence[str], *, n: int) -> int:
    """Run n workers until all have ended, and return the exit code: 0 where one came to the end,
    else the first one that was not 0. What they print is logged, line by line.

    Threads are shared out before torch is imported. Ctrl-C and SIGTERM reach all of them, and they
    end when this process is killed.

    Args:
        orders: What they are to do.
        devices: Given out in turn; empty: what the orders say.
        n: Number of processes.
    """
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // n)
    workers = []
    for index in range(n):
        of_worker = orders
        if devices:
            of_worker = dataclasses.replace(orders, device=devices[index % len(devices)])
        workers.append(
            subprocess.Popen(
                _command(of_worker),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_environment(threads, orders.storage),
            )
        )
    readers = [
        threading.Thread(target=_pass_on, args=(worker, index), daemon=True)
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
            name = signal.Signals(-code).name
            log.warning("[%d] was killed by %s; its trial is continued", index, name)
    if stopped:
        return 128 + stopped
    return 0 if 0 in codes else next(abs(code) for code in codes)


def _command(orders: Orders) -> list[str]:
    return [sys.executable, "-m", "impon_hpo", "worker", orders.to_json()]


def _environment(threads: int, storage: str | None) -> Mapping[str, str]:
    address = {STORAGE: storage} if storage else {}
    return (
        os.environ
        | address
        | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            PARENT: str(os.getpid()),
            "COLUMNS": "200",
        }
    )


def _pass_on(worker: subprocess.Popen[str], index: int) -> None:
    assert worker.stderr is not None
    with worker.stderr as lines:
        for line in lines:
            log.info("[%d] %s", index, line.rstrip())


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
    """In a worker that `run_workers` has started: ask the kernel for SIGTERM when the process that
    started it ends."""
    if PARENT not in os.environ:
        return
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != int(os.environ[PARENT]):  # it ended before that
        os.kill(os.getpid(), signal.SIGTERM)


class WorkerJob:
    """A worker that a cluster runs; submitit pickles it, and calls it on the machine it is given.

    The worker is a process of its own. When the job is preempted, or its time is nearly over, the
    worker gets SIGTERM: it finishes its step, saves, and puts its trial back; then the job goes
    back into the queue, and continues.

    Args:
        orders: What the worker is to do.
    """

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the worker to its end.

        Raises:
            RuntimeError: It ended with another exit code than 0; submitit keeps that as the result.
        """
        self._process = subprocess.Popen(_command(self.orders))
        # Not wait(): it holds a lock that `checkpoint`, called in the midst of it, would wait for.
        while (code := self._process.poll()) is None:
            time.sleep(POLL_SECONDS)
        if code:
            raise RuntimeError(f"The worker ended with exit code {code}; the log above says why.")
        return code

    def checkpoint(self) -> DelayedSubmission:
        """Stop the worker and return what goes on in its place; called by submitit."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        return DelayedSubmission(WorkerJob(self.orders))


def submit_workers(
    orders: Orders, *, n: int, launcher: str, folder: Path, storage: str, parameters: Sequence[str]
) -> list[str]:
    """Hand n workers to a cluster and return the numbers of their jobs, without waiting for them.

    Args:
        orders: What they are to do.
        n: Number of workers.
        launcher: "slurm", or "local": processes that outlive this one, to try it out.
        folder: Where logs go; all machines see it.
        storage: The storage's address.
        parameters: submitit's own as `key=value` (`timeout_min`, `gpus_per_node`,
            `slurm_partition` …).

    Raises:
        ConfigError: submitit is missing, there is no such cluster here, or a parameter is wrong.
    """
    settings = _parameters(parameters)
    try:
        import submitit
    except ImportError:
        raise ConfigError(
            f"--launcher needs submitit: `{as_typed('pip install impon-hpo[slurm]')}`."
        ) from None
    before = os.environ.get(STORAGE)
    os.environ[STORAGE] = storage  # jobs take over the environment that they are submitted in
    try:
        executor = submitit.AutoExecutor(
            folder=str(folder / "%j"),
            cluster=launcher,
            **{f"{launcher}_max_num_timeout": TIMEOUTS},
        )
        executor.update_parameters(**(JOB | settings))
        with executor.batch():
            jobs = [executor.submit(WorkerJob(orders)) for _ in range(n)]
    except (RuntimeError, NameError, ValueError, AssertionError, OSError) as error:
        raise ConfigError(f"The jobs cannot be submitted to '{launcher}': {error}") from error
    finally:
        if before is None:
            del os.environ[STORAGE]
        else:
            os.environ[STORAGE] = before
    return [job.job_id for job in jobs]


def _parameters(settings: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` settings as a mapping, numbers as numbers."""
    parameters: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise ConfigError(f"--job takes key=value, but got '{setting}'.")
        parameters[key.strip()] = int(text) if text.strip().isdigit() else text
    return parameters

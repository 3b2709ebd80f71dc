"""Workers as jobs of a cluster: Slurm's, through submitit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impon_hpo.errors import ConfigError
from impon_hpo.tuning.workers import STORAGE

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

OWN = {"name": "impon-hpo", "timeout_min": 24 * 60, "slurm_signal_delay_s": 120}
"""Parameters of a job unless told otherwise."""

TIMEOUTS = 1000
"""How often a job that has used up its time is put back into the queue."""


POLL_SECONDS = 1.0


class WorkerJob:
    """A worker that a cluster runs; submitit pickles it, and calls it on the machine it is given.

    The worker is a process of its own. When the job is preempted, or its time is nearly over, the
    worker gets SIGTERM: it finishes its step, saves, and puts its trial back; then the job goes
    back into the queue, and continues.

    Args:
        arguments: Of the command line.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the worker to its end.

        Raises:
            RuntimeError: It ended with another exit code than 0; submitit keeps that as the result.
        """
        self._process = subprocess.Popen([sys.executable, "-m", "impon_hpo", *self.arguments])
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
        return DelayedSubmission(WorkerJob(self.arguments))


def submit_workers(
    arguments: Sequence[str],
    *,
    n: int,
    launcher: str,
    folder: Path,
    storage: str,
    parameters: Mapping[str, Any],
) -> list[str]:
    """Hand n workers to a cluster and return the numbers of their jobs, without waiting for them.

    Args:
        arguments: Of `impon-hpo`'s command line.
        n: Number of workers.
        launcher: "slurm", or "local": processes that outlive this one, to try it out.
        folder: Where logs go; all machines see it.
        storage: Its address, which is handed on in the environment only.
        parameters: submitit's own (`timeout_min`, `gpus_per_node`, `slurm_partition` …).

    Raises:
        ConfigError: submitit is missing, there is no such cluster here, or a parameter is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("--launcher needs submitit: `pip install impon-hpo[slurm]`.") from None
    os.environ[STORAGE] = storage
    try:
        executor = submitit.AutoExecutor(
            folder=str(folder / "%j"),
            cluster=launcher,
            **{f"{launcher}_max_num_timeout": TIMEOUTS},
        )
        executor.update_parameters(**(OWN | dict(parameters)))
        with executor.batch():
            jobs = [executor.submit(WorkerJob(arguments)) for _ in range(n)]
    except (RuntimeError, NameError, ValueError, AssertionError, OSError) as error:
        raise ConfigError(f"The jobs cannot be submitted to '{launcher}': {error}") from error
    return [job.job_id for job in jobs]


def job_parameters(given: Sequence[str]) -> dict[str, Any]:
    """Return `key=value` settings as a mapping, numbers as numbers.

    Raises:
        ConfigError: One has no `=`.
    """
    found: dict[str, Any] = {}
    for setting in given:
        key, equals, text = setting.partition("=")
        if not key or not equals:
            raise ConfigError(f"--job takes key=value, but got '{setting}'.")
        found[key.strip()] = int(text) if text.strip().isdigit() else text
    return found

"""How `tune` starts other processes: workers here, or jobs of a cluster; and `proxy`, for many."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.commands.options import check_free, interrupted, quiet_optuna
from impon_hpo.console import print_line, say

if TYPE_CHECKING:
    from impon_hpo.storage.trials import StudyRecord
    from impon_hpo.tuning.study_file import StudyFile


class Launcher(StrEnum):
    """Who runs the workers."""

    slurm = "slurm"
    local = "local"


def launch(
    study_file: StudyFile,
    address: str,
    given: list[str],
    workers: int,
    launcher: Launcher,
    parameters: list[str],
) -> None:
    """Hand workers to a cluster, and say what to look at."""
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.tuning.cluster import job_parameters, submit_workers

    open_storage(address, create=True)
    if launcher is Launcher.slurm and ("://" not in address or address.startswith("sqlite")):
        say(
            "Warning: the storage is a file. Workers on several machines need a server: "
            "--storage postgresql+psycopg://…"
        )
    logs = study_file.runs / "jobs"
    ids = submit_workers(
        ["tune", *given],
        n=workers,
        launcher=launcher.value,
        folder=logs,
        storage=address,
        parameters=job_parameters(parameters),
    )
    for job_id in ids:
        print_line(job_id)
    say(
        f"{len(ids)} job(s) of {launcher.value}; their logs: {logs}/<job>. "
        f"How far they are: impon-hpo status {given[0]}"
    )


def run_workers_here(
    study_file: StudyFile,
    arm: str,
    address: str,
    given: list[str],
    devices: list[str],
    workers: int,
    command: dict[str, Any],
) -> StudyRecord:
    """Run workers on this machine to their end and return what came of the study."""
    from impon_hpo.environment import environment
    from impon_hpo.storage.connect import open_storage
    from impon_hpo.storage.trials import read_study
    from impon_hpo.tuning.study import open_study
    from impon_hpo.tuning.workers import run_workers

    quiet_optuna()
    opened = open_storage(address, create=True)
    here = environment(devices[0] if devices else "cpu")
    study = open_study(study_file, arm, opened, command=command, environment=here)
    code = run_workers(["tune", *given], devices, n=workers, say=say, storage=address)
    if code:
        raise typer.Exit(code)
    return read_study(study)


def proxy(
    storage: Annotated[
        str, typer.Option(metavar="URL", envvar="IMPON_HPO_STORAGE", help="The database.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: whoever reaches this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 13000,
) -> None:
    """Stand between a database and more workers than it has connections for.

    They use --storage grpc://host:port, share its few connections, and are answered later than by
    the database itself. There is no log-in: whoever reaches the port can write.
    """
    from optuna.storages import run_grpc_proxy_server

    from impon_hpo.storage.connect import (
        PROXY_THREADS,
        no_experimental_warnings,
        open_storage,
        without_secrets,
    )

    check_free(host, port)
    opened = open_storage(storage, create=True, threads=PROXY_THREADS)
    print_line(f"grpc://{host}:{port}")
    say(f"in front of {without_secrets(storage)}. Ctrl-C stops it.")
    sys.stdout.flush()
    try:
        with no_experimental_warnings():
            run_grpc_proxy_server(opened, host=host, port=port)
    except KeyboardInterrupt as error:
        raise interrupted(error) from None

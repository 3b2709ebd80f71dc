"""The commands that serve until they are stopped: `dashboard`, and `proxy` for many workers."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from impon_hpo.cli.options import Storage, Study, check_free, interrupted, read_study
from impon_hpo.console import print_line, say


def dashboard(
    study: Study,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: whoever reaches this machine.")
    ] = "127.0.0.1",
    storage: Storage = None,
) -> None:
    """Open optuna-dashboard on the study's storage, with notes and graphs on each arm.

    While other processes run trials, notes and graphs keep up with them. There is no log-in:
    whoever reaches the port can delete studies.
    """
    import threading

    from impon_hpo.reporting.dashboard import Pages, serve
    from impon_hpo.storage.connect import READER_SECONDS, open_storage

    study_file = read_study(study, check_samplers=False)
    check_free(host, port)
    address = storage or study_file.storage
    opened = open_storage(address, create=False, patience=READER_SECONDS)
    pages = Pages(opened, study_file.name, list(study_file.arms), study_file.runs)
    pages.write()
    threading.Thread(target=pages.keep_up, name="pages", daemon=True).start()
    print_line(f"http://{host}:{port}/dashboard")
    say("Ctrl-C stops it.")
    sys.stdout.flush()
    serve(opened, study_file.artifacts, host, port)


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

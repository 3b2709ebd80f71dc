"""The options that several commands share, and how an interrupted command ends."""

from __future__ import annotations

import signal
from enum import StrEnum
from types import FrameType
from typing import Annotated

import typer

from impon_hpo.console import say


class Format(StrEnum):
    """How a command prints what it lists."""

    table = "table"
    json = "json"


Study = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A folder with a study.toml, or its name in studies/."),
]
Arm = Annotated[str | None, typer.Option(help="The arm; default: the first of the study file.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help=r"Change a setting of \[run], or table.key of any other table; may be repeated.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="IMPON_HPO_STORAGE",
        help="Storage instead of the study file's; a password is safer in the variable.",
    ),
]
Formatted = Annotated[Format, typer.Option("--format", help="table or json.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM came: it ends a command as Ctrl-C does, but for the exit code."""


def heed_sigterm() -> None:
    """From here on, SIGTERM raises `Terminated` in the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)


def interrupted(error: KeyboardInterrupt) -> typer.Exit:
    """Return what to raise after Ctrl-C or SIGTERM."""
    say("Interrupted. The same command continues.")
    return typer.Exit(143 if isinstance(error, Terminated) else 130)


def quiet_optuna() -> None:
    """Leave Optuna's errors only: what it tells otherwise is said by the commands."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def check_free(host: str, port: int) -> None:
    """Raise `ConfigError` where `port` of `host` cannot be listened on."""
    import socket

    from impon_hpo.errors import ConfigError

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} of {host} cannot be used: {error}. Give another one with --port."
            ) from error

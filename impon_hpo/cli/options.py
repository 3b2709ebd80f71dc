"""The options that several commands share, and how an interrupted command ends."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impon_hpo.console import say
from impon_hpo.files import as_argument
from impon_hpo.signals import Terminated

if TYPE_CHECKING:
    from impon_hpo.tuning.study_file import StudyFile


class Format(StrEnum):
    """How a command prints what it lists."""

    table = "table"
    json = "json"


Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A folder with a study.toml, or its name in studies/.",
        callback=as_argument,  # it is printed in commands
    ),
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


class Launcher(StrEnum):
    """Who runs the workers."""

    slurm = "slurm"
    local = "local"


MaxEpochs = Annotated[
    int | None, typer.Option(min=1, help="Budget: epochs of all workers together.")
]
MaxCost = Annotated[float | None, typer.Option(min=1, help="Budget: forward-equivalents.")]
MaxSeconds = Annotated[
    float | None, typer.Option(min=1, help="Budget: seconds of training, added up.")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes on this machine.")]
Devices = Annotated[
    str | None, typer.Option(metavar="cuda:0,cuda:1", help="Given out to them in turn.")
]
Launched = Annotated[
    Launcher | None,
    typer.Option(
        "--launcher", help="Hand the workers to a cluster, and return; local: to try that out."
    ),
]
Job = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A parameter of submitit's: timeout_min, gpus_per_node, slurm_partition …",
    ),
]
Grace = Annotated[
    float,
    typer.Option(
        min=1, help="Seconds of silence after which another machine's trial is taken over."
    ),
]
CheckpointBudget = Annotated[
    str | None,
    typer.Option(
        metavar="20GB",
        help="Disk for the checkpoints of trials that wait to be promoted; default: half of what "
        "is free.",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="OTHER",
        help="Try the best of an earlier study first: its folder, or its name in --from-storage.",
    ),
]
FromStorage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="IMPON_HPO_FROM_STORAGE",
        help="Storage of that study, which may be any of Optuna's; default: its study file's.",
    ),
]
FromArm = Annotated[
    str | None, typer.Option(metavar="ARM", help="Its arm; default: the one of that name.")
]
FromBest = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="How many of its trials; default: 5."),
]
Table = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of a recordings.csv.xz; default: the storage's, else the study's own.",
    ),
]
Formatted = Annotated[Format, typer.Option("--format", help="table or json.")]


def bytes_of(size: str | None) -> int | None:
    """Return the bytes of a size such as "20GB" or "500 MiB"; None of None.

    Raises:
        ConfigError: It is not a size.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from impon_hpo.errors import ConfigError

    if size is None:
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError:
        raise ConfigError(
            f"--checkpoint-budget takes a size such as 20GB or 500MB, but got '{size}'."
        ) from None


def interrupted(error: KeyboardInterrupt) -> typer.Exit:
    """Return what to raise after Ctrl-C or SIGTERM."""
    say("Interrupted. The same command continues.")
    return typer.Exit(143 if isinstance(error, Terminated) else 130)


def read_study(
    study: str, settings: list[str] | None = None, *, check_samplers: bool = True
) -> StudyFile:
    """Read the study file that a command is about.

    From then on, "module:name" is also looked for beside it, in the folder above, which studies of
    one question share, and in the working directory.

    Args:
        study: As the user gave it.
        settings: Those of `--set`.
        check_samplers: False for a command that trains nothing: torch is not imported then.
    """
    from impon_hpo.lookup import find_modules_in
    from impon_hpo.tuning.study_file import find_study_file, read_study_file

    folder = find_study_file(study).parent.resolve()
    find_modules_in(folder, folder.parent, Path.cwd())
    return read_study_file(study, settings or [], check_samplers=check_samplers)


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

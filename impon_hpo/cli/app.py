"""The command line: its commands put together, and how it ends on a mistake of the user's."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from impon_hpo.cli import inspect, judge, labels, launch, serve
from impon_hpo.cli.export import export
from impon_hpo.console import print_line, say_what_is_logged, talk
from impon_hpo.errors import ImponHpoError
from impon_hpo.signals import heed_stops

app = typer.Typer(
    name="impon-hpo",
    help="Tune deep networks with Optuna on importance-sampled batches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    launch.train,
    launch.tune,
    inspect.status,
    inspect.watch,
    export,
    inspect.samplers,
    judge.plan,
    launch.compare,
    judge.report,
    judge.pictures,
    labels.labels,
    labels.duplicates,
    launch.compare_samplers,
    serve.dashboard,
    serve.proxy,
    inspect.doctor,
):
    app.command()(command)
app.command(hidden=True)(launch.worker)


def main(program: typer.Typer = app) -> None:
    """Run a command line; a mistake of the user ends it with its message and exit code 2.

    Args:
        program: Its commands; a script of a study gives its own.
    """
    heed_stops()
    say_what_is_logged()
    try:
        program()
    except ImponHpoError as error:
        talk.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print_line(f"impon-hpo {installed('impon-hpo')}")
        raise typer.Exit

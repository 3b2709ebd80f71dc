"""The command line: one function a command; what takes long to import is imported inside."""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.console import loading, print_json, print_line, print_rows, say, talk
from impon_hpo.errors import ImponHpoError

if TYPE_CHECKING:
    from impon_hpo.record import StudyRecord
    from impon_hpo.tuning.study_file import StudyFile

app = typer.Typer(
    name="impon-hpo",
    help="Tune deep networks with Optuna on importance-sampled batches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
        help="Change a setting of [run], or table.key of any other table; may be repeated.",
    ),
]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Storage instead of the study file's.")
]
Formatted = Annotated[Format, typer.Option("--format", help="table or json.")]


def main() -> None:
    """Run the command line; a mistake of the user's ends it with its message and exit code 2."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `impon-hpo status … | head` is no error
    try:
        app()
    except ImponHpoError as error:
        talk.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _interrupted() -> typer.Exit:
    say("Interrupted. The same command continues.")
    return typer.Exit(130)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print_line(f"impon-hpo {installed('impon-hpo')}")
        raise typer.Exit


@app.command()
def train(study: Study, arm: Arm = None, settings: Set = None) -> None:
    """One training run, no search: a line an epoch, a checkpoint, the result as JSON.

    The same command again continues a run that was stopped. The test split is looked at once, after
    the last epoch.
    """
    with loading():
        from impon_hpo.training.train import train as train_run
        from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study, settings or [])
    arm = study_file.arm(arm)
    try:
        result = train_run(
            study_file.arms[arm],
            study_file.runs / "train",
            name=arm,
            say=say,
        )
    except KeyboardInterrupt:
        raise _interrupted() from None
    print_json(result)


@app.command()
def tune(
    study: Study,
    arm: Arm = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials wanted in all; default: n_trials.")
    ] = None,
    storage: Storage = None,
    settings: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say what would be run.")
    ] = False,
    format: Formatted = Format.table,
) -> None:
    """Run the study until N trials are finished; the same command again continues it."""
    with loading():
        from impon_hpo.reporting.summary import summarise
        from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study, settings or [])
    arm = study_file.arm(arm)
    n_trials = trials or study_file.n_trials
    address = storage or study_file.storage
    for warning in study_file.warnings():
        say(f"Warning: {warning}")
    if dry_run:
        from impon_hpo.tuning.plan import plan, plan_rows

        facts = plan(study_file, arm, n_trials, address)
        if format is Format.json:
            print_json(facts)
        else:
            print_rows(f"{study_file.name}, arm {arm}: nothing is run", plan_rows(facts))
        return
    command = {"study": study, "settings": settings or [], "storage": storage}
    facts = summarise(_run_study(study_file, arm, n_trials, address, command))
    if format is Format.json:
        print_json(facts)
    else:
        _print_summary(facts)


def _run_study(
    study_file: StudyFile, arm: str, n_trials: int, address: str, command: dict[str, Any]
) -> StudyRecord:
    import optuna

    from impon_hpo.environment import environment
    from impon_hpo.record import read_studies
    from impon_hpo.reporting.csv_files import write_csv_files
    from impon_hpo.storage import artifact_store, open_storage
    from impon_hpo.tuning.objective import Objective
    from impon_hpo.tuning.plan import check_fit
    from impon_hpo.tuning.progress import Progress
    from impon_hpo.tuning.study import open_study
    from impon_hpo.tuning.tune import tune as run_trials

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = study_file.arms[arm]
    progress = Progress(talk, config.epochs)
    objective = Objective(
        config,
        study_file.space,
        artifact_store=artifact_store(study_file.runs / "artifacts"),
        on_epoch=progress.epoch,
    )
    check_fit(config, study_file.space, objective.splits)
    opened = open_storage(address, create=True)
    here = environment(str(objective.device))
    study = open_study(study_file, arm, opened, command=command, environment=here)
    try:
        with progress:
            return run_trials(study, objective, n_trials=n_trials, progress=progress)
    except KeyboardInterrupt:
        raise _interrupted() from None
    finally:
        write_csv_files(study_file.runs, read_studies(opened, study_file.name))


def _print_summary(facts: dict[str, Any]) -> None:
    from impon_hpo.reporting.summary import summary_commands, summary_rows

    print_rows(f"{facts['study']}, arm {facts['arm']}", summary_rows(facts))
    for command in summary_commands(facts):
        print_line(command)


@app.command()
def status(study: Study, storage: Storage = None, format: Formatted = Format.table) -> None:
    """What is in the storage: trials by state, best, cost."""
    from impon_hpo.record import read_studies
    from impon_hpo.reporting.summary import summarise
    from impon_hpo.storage import open_storage
    from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study)
    opened = open_storage(storage or study_file.storage, create=False)
    arms = [summarise(record) for record in read_studies(opened, study_file.name)]
    if format is Format.json:
        print_json(arms)
        return
    for facts in arms:
        _print_summary(facts)


@app.command()
def dashboard(
    study: Study,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8080,
    storage: Storage = None,
) -> None:
    """Open optuna-dashboard on the study's storage and artifacts, with a note on each arm."""
    from impon_hpo.record import read_studies
    from impon_hpo.reporting.dashboard import HOST, check_port, serve, write_note
    from impon_hpo.storage import open_storage
    from impon_hpo.tuning.study_file import read_study_file

    study_file = read_study_file(study)
    check_port(port)
    opened = open_storage(storage or study_file.storage, create=False)
    for record in read_studies(opened, study_file.name):
        write_note(record)
    print_line(f"http://{HOST}:{port}/dashboard")
    say("Ctrl-C stops it.")
    sys.stdout.flush()
    serve(opened, study_file.runs / "artifacts", port)


@app.command()
def doctor(
    data_dir: Annotated[str | None, typer.Option(help="A folder of data to look into.")] = None,
    storage: Storage = None,
    format: Formatted = Format.table,
) -> None:
    """Say what this machine has, what is wrong and how to mend it; exit code 1 if anything is."""
    import dataclasses

    from impon_hpo.doctor import examine

    findings = list(examine(data_dir, storage))
    if format is Format.json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        print_rows("impon-hpo doctor", [(finding.what, finding.said) for finding in findings])
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)

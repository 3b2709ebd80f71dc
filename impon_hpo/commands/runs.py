"""The commands that train: `train`, one run, and `tune`, a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from impon_hpo.commands.looks import print_summary
from impon_hpo.commands.options import (
    Arm,
    Format,
    Formatted,
    Set,
    Storage,
    Study,
    interrupted,
    quiet_optuna,
)
from impon_hpo.console import loading, print_json, print_rows, say, talk

if TYPE_CHECKING:
    from impon_hpo.record import StudyRecord
    from impon_hpo.tuning.study_file import StudyFile


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
        raise interrupted() from None
    print_json(result)


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
        print_summary(facts)


def _run_study(
    study_file: StudyFile, arm: str, n_trials: int, address: str, command: dict[str, Any]
) -> StudyRecord:
    from impon_hpo.environment import environment
    from impon_hpo.record import read_studies
    from impon_hpo.reporting.csv_files import write_csv_files
    from impon_hpo.storage import artifact_store, open_storage
    from impon_hpo.training.references import References
    from impon_hpo.tuning.objective import Objective
    from impon_hpo.tuning.plan import check_fit
    from impon_hpo.tuning.progress import Progress
    from impon_hpo.tuning.study import open_study
    from impon_hpo.tuning.tune import tune as run_trials

    quiet_optuna()
    config = study_file.arms[arm]
    progress = Progress(talk, config.epochs)
    objective = Objective(
        config,
        study_file.space,
        artifact_store=artifact_store(study_file.runs / "artifacts"),
        references=References(study_file.runs / "references", say=progress.note),
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
        raise interrupted() from None
    finally:
        write_csv_files(study_file.runs, read_studies(opened, study_file.name))
